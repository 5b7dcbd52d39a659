"""What is known about users and items before `as_of`, in the shapes that generators need."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from index import neighbours
from index.store import VectorIndex, Vectors
from index.whitening import whitened

# The latest item of a user speaks loudest; each earlier one by this factor less.
ORDER_DECAY = 0.7


@dataclass(frozen=True)
class Weights:
    """How much an event or a review says about its user.

    Attributes:
        behaviours: weight of an event of each behaviour.
        review: weight of a review's text, on the same scale.
        half_life_days: after this many days a weight has halved.
        popular_half_life_days: the same, for the popularity of items.
        ease_items: so many of the commonest items take part in EASE.
    """

    behaviours: Mapping[str, float]
    review: float
    half_life_days: float
    popular_half_life_days: float
    ease_items: int


@dataclass(frozen=True)
class Snapshot:
    """The state before `as_of`, from which every generator proposes.

    Attributes:
        as_of: naive UTC; the caller passes only events and reviews with `ts < as_of`.
        events: user, item (Int32 row positions), ts, behaviour.
        reviews: user, item, ts; row r has the vector `review_vectors[r]`.
        item_vectors: (n_items, d) float32, unit length, zero where an item has no text.
        review_vectors: (len(reviews), d), likewise.
        eligible: (n_items,) whether an item may be proposed at all.
        excluded: (n_users, n_items) sparse; what must not be proposed to a user.
        weights: what events and reviews are worth.
        asks: (n_items, d) float32, or None where towers are not used: what each item of a history
            adds to the query of the two-tower model.
        answers: (n_items, d + 1), likewise: what the query, with a one appended, is matched with.
        corpus: the events that item-to-item matrices and popularity are built from, where they
            are not all of `events`: benchmarks keep a user's last item out of them.
    """

    as_of: datetime
    events: pl.DataFrame
    reviews: pl.DataFrame
    item_vectors: Vectors
    review_vectors: Vectors
    eligible: NDArray[np.bool_]
    excluded: sp.csr_array
    weights: Weights
    asks: Vectors | None = None
    answers: Vectors | None = None
    corpus: pl.DataFrame | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(n_users, n_items)."""
        return self.excluded.shape[0], self.excluded.shape[1]

    @cached_property
    def affinity(self) -> sp.csr_array:
        """(n_users, n_items): the decayed weights of a user's events on an item, summed."""
        behaviours = self.events.get_column("behaviour").cast(pl.String)
        worth = behaviours.replace_strict(
            self.weights.behaviours, return_dtype=pl.Float64
        ).to_numpy()
        decay = decayed(self.events.get_column("ts"), self.as_of, self.weights.half_life_days)
        return _user_matrix(self.events, worth * decay, self.events.get_column("item"), self.shape)

    @cached_property
    def review_affinity(self) -> sp.csr_array:
        """(n_users, n_reviews): the decayed weight of each of the user's own reviews."""
        decay = decayed(self.reviews.get_column("ts"), self.as_of, self.weights.half_life_days)
        rows = pl.Series(np.arange(len(self.reviews), dtype=np.int32))
        shape = (self.shape[0], len(self.reviews))
        return _user_matrix(self.reviews, self.weights.review * decay, rows, shape)

    @cached_property
    def item_index(self) -> VectorIndex:
        """The texts of the eligible items."""
        ids = np.flatnonzero(self.eligible).astype(np.int32)
        return VectorIndex.build(ids, self.item_vectors[ids]).on_best_device()

    @cached_property
    def review_index(self) -> VectorIndex:
        """The reviews of eligible items; an id is a row of `reviews`."""
        eligible = self.eligible[self.reviews.get_column("item").to_numpy()]
        ids = np.flatnonzero(eligible).astype(np.int32)
        return VectorIndex.build(ids, self.review_vectors[ids]).on_best_device()

    @cached_property
    def whitened_items(self) -> Vectors:
        """(n_items, w): item texts freed of what all eligible ones share."""
        return whitened(self.item_vectors, self.eligible)

    @cached_property
    def recent(self) -> sp.csr_array:
        """(n_users, n_items): weight of a user's items by their order, the latest first."""
        return neighbours.ordered(
            neighbours.latest_first(self.events), self.shape, decay=ORDER_DECAY
        )

    @cached_property
    def answer_index(self) -> VectorIndex:
        """The answers of the eligible items."""
        assert self.answers is not None
        ids = np.flatnonzero(self.eligible).astype(np.int32)
        return VectorIndex.build(ids, self.answers[ids]).on_best_device()

    def questions(self, users: NDArray[np.int32]) -> Vectors:
        """(len(users), d + 1): queries of the two-tower model; zero for a user without history."""
        assert self.asks is not None
        query = unit_rows(np.asarray(self.recent[users] @ self.asks, dtype=np.float32))
        return np.hstack([query, query.any(axis=1, keepdims=True).astype(np.float32)])

    @cached_property
    def cooccurrence(self) -> sp.csr_array:
        """(n_items, n_items): see `index.neighbours.cooccurrence`."""
        return self._eligible(neighbours.cooccurrence(self._corpus_items, self.shape))

    @cached_property
    def directed(self) -> sp.csr_array:
        """(n_items, n_items): see `index.neighbours.directed`."""
        return self._eligible(neighbours.directed(self._corpus_items, self.shape))

    @cached_property
    def ease(self) -> sp.csr_array:
        """(n_items, n_items): see `index.neighbours.ease`."""
        max_items = self.weights.ease_items
        return self._eligible(neighbours.ease(self._corpus_items, self.shape, max_items=max_items))

    @cached_property
    def similar(self) -> sp.csr_array:
        """(n_items, n_items): see `index.neighbours.similar`; rows of items with events."""
        ids = np.flatnonzero(self.eligible).astype(np.int32)
        index = VectorIndex.build(ids, self.whitened_items[ids]).on_best_device()
        asking = np.unique(self.events.get_column("item").to_numpy())
        return neighbours.similar(self.whitened_items, asking, index)

    @cached_property
    def _corpus_items(self) -> pl.DataFrame:
        return neighbours.latest_first(self.events if self.corpus is None else self.corpus)

    def _eligible(self, matrix: sp.csr_array) -> sp.csr_array:
        """Only eligible columns, and the strongest of them in each row."""
        entries = matrix.tocoo()
        kept = self.eligible[entries.col]
        places = (entries.row[kept], entries.col[kept])
        allowed = sp.csr_array((entries.data[kept], places), shape=matrix.shape)
        return neighbours.strongest(allowed, neighbours.NEIGHBOURS_PER_ITEM)

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """(n_items,): decayed number of users' events on an item, whatever their behaviour."""
        events = self.events if self.corpus is None else self.corpus
        half_life = self.weights.popular_half_life_days
        decay = decayed(events.get_column("ts"), self.as_of, half_life)
        items = events.get_column("item").to_numpy()
        counts = np.bincount(items, weights=decay, minlength=self.shape[1])
        return counts.astype(np.float64)

    def profiles(self, users: NDArray[np.int32]) -> Vectors:
        """(len(users), d): each user's decayed mean of item and own review texts, unit length.

        A user without history, or whose history has no text, gets a zero row.
        """
        mean = self.affinity[users] @ self.item_vectors
        if len(self.reviews):
            mean = mean + self.review_affinity[users] @ self.review_vectors
        return unit_rows(np.asarray(mean, dtype=np.float32))


def decayed(ts: pl.Series, as_of: datetime, half_life_days: float) -> NDArray[np.float64]:
    """2 ** (-age / half life) for each timestamp; age in days at `as_of`.

    >>> ts = pl.Series([datetime(2024, 1, 1), datetime(2024, 1, 11)])
    >>> decayed(ts, datetime(2024, 1, 11), half_life_days=10).tolist()
    [0.5, 1.0]
    """
    age = (pl.lit(as_of) - ts.cast(pl.Datetime("us"))).dt.total_microseconds()
    days = pl.select(age).to_series().to_numpy() / 86_400_000_000
    return np.asarray(np.exp2(-days / half_life_days))


def unit_rows(vectors: Vectors) -> Vectors:
    """Each row divided by its length; zero rows stay zero.

    >>> unit_rows(np.array([[3, 4], [0, 0]], dtype=np.float32)).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    zero = np.zeros_like(vectors)
    return np.asarray(np.divide(vectors, length, out=zero, where=length > 0))


def _user_matrix(
    frame: pl.DataFrame, values: NDArray[np.float64], columns: pl.Series, shape: tuple[int, int]
) -> sp.csr_array:
    coordinates = (frame.get_column("user").to_numpy(), columns.to_numpy())
    return sp.csr_array((values.astype(np.float32), coordinates), shape=shape)
