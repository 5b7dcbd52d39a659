"""The state before `as_of`, from which every generator proposes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from index import neighbours
from index.attributes import overlap, same_kind
from index.choice import DEFAULT, Indexing, choose, evenly
from index.clusters import clusters
from index.factors import item_factors
from index.facts import Facts
from index.store import Ids, VectorIndex, Vectors
from index.whitening import whitened

TEXT_NEIGHBOURS = 20


@dataclass(frozen=True)
class Snapshot(Facts):
    """The facts with indexes of vectors, and item-to-item matrices.

    Row a of a matrix (n_items, n_items) holds how strongly item a speaks for eligible others.

    Attributes:
        indexing: how large corpora are searched. `new_index` and `factors` are searched exactly.
    """

    indexing: Indexing = DEFAULT

    @property
    def indexes(self) -> Iterator[tuple[str, VectorIndex]]:
        """Each corpus that users are matched with, by its name."""
        yield "items", self.item_index
        yield "whitened items", self.whitened_index
        yield "reviews", self.review_index
        if self.answers is not None:
            yield "answers", self.answer_index

    @cached_property
    def whitened_items(self) -> Vectors:
        """(n_items, w): item texts freed of what all eligible ones share."""
        return whitened(self.item_vectors, self.eligible)

    @cached_property
    def item_index(self) -> VectorIndex:
        """The texts of the eligible items, asked for profiles."""
        return self._chosen(self.item_vectors, self.eligible, self.profiles)

    @cached_property
    def whitened_index(self) -> VectorIndex:
        """The whitened texts of the eligible items, asked for the last ones."""

        def last(users: Ids) -> Vectors:
            return np.asarray(self.whitened_items[self.last_items[users, 0]])

        return self._chosen(self.whitened_items, self.eligible, last)

    @cached_property
    def new_index(self) -> VectorIndex:
        """The texts of the new items."""
        return _exact(self.item_vectors, self.new)

    @cached_property
    def review_index(self) -> VectorIndex:
        """The reviews of eligible items, asked for profiles; an id is a row of `reviews`."""
        eligible = self.eligible[self.reviews.get_column("item").to_numpy()]
        return self._chosen(self.review_vectors, eligible, self.profiles)

    @cached_property
    def answer_index(self) -> VectorIndex:
        """The answers of the eligible items, asked for questions."""
        assert self.answers is not None
        return self._chosen(self.answers, self.eligible, self.questions)

    @cached_property
    def cooccurrence(self) -> sp.csr_array:
        """(n_items, n_items): see `index.neighbours.cooccurrence`."""
        k = self._kept
        return neighbours.cooccurrence(self._corpus_items, self.shape, self.eligible, k=k)

    @cached_property
    def directed(self) -> sp.csr_array:
        """(n_items, n_items): see `index.neighbours.directed`."""
        matrix, k = neighbours.directed(self._corpus_items, self.shape), self._kept
        return neighbours.strongest_eligible(matrix, self.eligible, k=k)

    @cached_property
    def ease(self) -> sp.csr_array:
        """(n_items, n_items): see `index.neighbours.ease`."""
        max_items, k = self.weights.ease_items, self._kept
        matrix = neighbours.ease(self._corpus_items, self.shape, max_items=max_items, k=k)
        return neighbours.strongest_eligible(matrix, self.eligible, k=k)

    @cached_property
    def two_hop(self) -> sp.csr_array:
        """(n_items, n_items): see `index.neighbours.two_hop`."""
        return neighbours.two_hop(self.directed, k=self._kept)

    @cached_property
    def similar(self) -> sp.csr_array:
        """(n_items, n_items): cubed cosines of the nearest whitened texts."""
        return sp.csr_array(self._nearest_texts.power(3))

    @cached_property
    def text_neighbours(self) -> sp.csr_array:
        """(n_items, n_items): cosines of the few nearest whitened texts."""
        found = neighbours.strongest(self._nearest_texts, TEXT_NEIGHBOURS)
        vars(self).pop("_nearest_texts")  # `similar`, where it is asked for, has come before
        return found

    @cached_property
    def text_clusters(self) -> NDArray[np.int32]:
        """(n_items,): see `index.clusters.clusters`, of whitened texts."""
        return clusters(self.whitened_items, self._known, self.eligible)

    @cached_property
    def factors(self) -> sp.csr_array:
        """(n_items, n_items): products of `index.factors.item_factors`; of items with events."""
        vectors = item_factors(self._corpus_items, self.shape[1])
        index = _exact(vectors, self.eligible)
        return neighbours.by_vectors(vectors, self._asking, index, k=self._kept)

    @cached_property
    def attributes(self) -> sp.csr_array:
        """(n_items, n_items): see `index.attributes.overlap`, likewise."""
        return overlap(self.item_attributes, self.eligible, self._asking, k=self._kept)

    @cached_property
    def kinds(self) -> sp.csr_array:
        """(n_items, n_items): see `index.attributes.same_kind`, likewise."""
        attributes, popularity = self.item_attributes, self.popularity
        return same_kind(attributes, popularity, self.eligible, self._asking, k=self._kept)

    @cached_property
    def _nearest_texts(self) -> sp.csr_array:
        asking = np.flatnonzero(self._known).astype(np.int32)
        k = -(-self._kept // 2)
        return neighbours.by_vectors(self.whitened_items, asking, self.whitened_index, k=k)

    @property
    def _kept(self) -> int:
        return self.weights.neighbours_per_item

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        """(n_items,) whether an item may be proposed or has events."""
        known = self.eligible.copy()
        known[self._asking] = True
        return known

    @cached_property
    def _asking(self) -> NDArray[np.int32]:
        return np.unique(self.events.get_column("item").to_numpy())

    @cached_property
    def _corpus_items(self) -> pl.DataFrame:
        return self.latest if self.corpus is None else neighbours.latest_first(self.corpus)

    def _chosen(
        self, vectors: Vectors, chosen: NDArray[np.bool_], asked: Callable[[Ids], Vectors]
    ) -> VectorIndex:
        """An index of the chosen rows, fit for what users with a history would ask."""
        active = np.unique(self.events.get_column("user").to_numpy())

        def sampled(most: int) -> Vectors:
            return asked(active[evenly(len(active), most)])

        ids = np.arange(len(vectors), dtype=np.int32)
        index = choose(ids, vectors, self.indexing, asked=sampled, chosen=chosen)
        return index.on_best_device()


def _exact(vectors: Vectors, chosen: NDArray[np.bool_]) -> VectorIndex:
    ids = np.arange(len(vectors), dtype=np.int32)
    return VectorIndex.build(ids, vectors, chosen).on_best_device()
