"""What users did and what items are before `as_of`, in the shapes that generators need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from index import neighbours, times
from index.rows import PADDING, unit_rows
from index.store import Vectors

# The latest item of a user speaks loudest; each earlier one by this factor less.
ORDER_DECAY = 0.7
# Popularity "of late" has a half-life so many times shorter than popularity.
OF_LATE = 6.0


@dataclass(frozen=True)
class Weights:
    """How much an event or a review says about its user.

    Attributes:
        behaviours: weight of an event of each behaviour.
        review: weight of a neutral review's text, on the same scale.
        half_life_days: after this many days a weight has halved.
        popular_half_life_days: the same, for the popularity of items.
        neighbours_per_item: so many neighbours of an item are kept.
        ease_items: so many of the commonest items take part in EASE.
        new_item_days: an item listed at most so many days ago is new.
    """

    behaviours: Mapping[str, float]
    review: float
    half_life_days: float
    popular_half_life_days: float
    neighbours_per_item: int
    ease_items: int
    new_item_days: float


@dataclass(frozen=True)
class Facts:
    """What is known before `as_of`.

    Attributes:
        as_of: naive UTC; the caller passes only events and reviews with `ts < as_of`.
        events: user, item (Int32 row positions), ts, behaviour.
        reviews: user, item, ts, sentiment (0 sorry, 1 glad); row r has the vector
            `review_vectors[r]`.
        item_vectors: (n_items, d) float32, unit length, zero where an item has no text.
        review_vectors: (len(reviews), d), likewise.
        item_attributes: brand, category and other text columns of the items; row i is item i.
        item_age: (n_items,) days since an item was listed, NaN where that is not known.
        eligible: (n_items,) whether an item may be proposed at all.
        excluded: (n_users, n_items) sparse; what must not be proposed to a user.
        weights: what events and reviews are worth.
        asks: the m two-tower models, or None where they are not used: for each the decay of a
            history's items by their order, and (n_items, d) float32, what an item adds to the
            query.
        answers: (n_items, m * d + 1), likewise: what the queries, side by side with a one
            appended, are matched with.
        corpus: the events that item-to-item matrices and popularity are built from, where they
            are not all of `events`: benchmarks keep a user's last item out of them.
    """

    as_of: datetime
    events: pl.DataFrame
    reviews: pl.DataFrame
    item_vectors: Vectors
    review_vectors: Vectors
    item_attributes: pl.DataFrame
    item_age: NDArray[np.float64]
    eligible: NDArray[np.bool_]
    excluded: sp.csr_array
    weights: Weights
    asks: tuple[tuple[float, Vectors], ...] | None = None
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
        decay = times.decayed(self.events.get_column("ts"), self.as_of, self.weights.half_life_days)
        return _user_matrix(self.events, worth * decay, self.events.get_column("item"), self.shape)

    @cached_property
    def item_affinity(self) -> sp.csr_array:
        """(n_users, n_items): the same, of the events that figures of items are counted from."""
        return self.affinity if self.corpus is None else replace(self, events=self.corpus).affinity

    @cached_property
    def demand(self) -> Vectors:
        """(n_items,): everybody's affinity for an item, by `item_affinity`."""
        return np.asarray(self.item_affinity.sum(axis=0), dtype=np.float32)

    @cached_property
    def review_affinity(self) -> sp.csr_array:
        """(n_users, n_reviews): the decayed weight of each of the user's own reviews.

        In proportion to its sentiment: one of 1/2 has the weight of `weights.review`.
        """
        decay = times.decayed(
            self.reviews.get_column("ts"), self.as_of, self.weights.half_life_days
        )
        rows = pl.Series(np.arange(len(self.reviews), dtype=np.int32))
        shape = (self.shape[0], len(self.reviews))
        worth = self.weights.review * 2.0 * self.reviews.get_column("sentiment").to_numpy()
        return _user_matrix(self.reviews, worth * decay, rows, shape)

    @cached_property
    def latest(self) -> pl.DataFrame:
        """user, item, place: see `index.neighbours.latest_first`."""
        return neighbours.latest_first(self.events)

    @cached_property
    def recent(self) -> sp.csr_array:
        """(n_users, n_items): weight of a user's items by their order, the latest first."""
        return neighbours.ordered(self.latest, self.shape, decay=ORDER_DECAY)

    @cached_property
    def histories(self) -> tuple[sp.csr_array, ...]:
        """The same as `recent`, as each of the two-tower models weighs it."""
        decays = [decay for decay, _ in self.asks or ()]
        return tuple(neighbours.ordered(self.latest, self.shape, decay=d) for d in decays)

    @cached_property
    def last_items(self) -> NDArray[np.int32]:
        """(n_users, up to 50): a user's distinct items, the latest first, padded with -1."""
        latest = self.latest.filter(pl.col("place") < neighbours.LONGEST_HISTORY)
        user, item, place = (latest.get_column(n).to_numpy() for n in ("user", "item", "place"))
        width = int(place.max(initial=0)) + 1
        table = np.full((self.shape[0], width), PADDING, dtype=np.int32)
        table[user, place] = item
        return table

    @cached_property
    def due(self) -> sp.csr_array:
        """(n_users, n_items): see `index.times.due`."""
        return times.due(self.events, self.item_events, self.as_of, self.shape)

    def questions(self, users: NDArray[np.int32]) -> Vectors:
        """(len(users), m * d + 1): queries of the two-tower models; zero without a history."""
        assert self.asks is not None
        tables = [table for _, table in self.asks]
        histories = zip(self.histories, tables, strict=True)
        return _query([history[users] @ table for history, table in histories])

    @cached_property
    def item_questions(self) -> Vectors | None:
        """(n_items, m * d + 1): queries were each item a history; None where there are none."""
        return None if self.asks is None else _query([table for _, table in self.asks])

    @property
    def item_events(self) -> pl.DataFrame:
        """What popularity and item-to-item matrices are built from."""
        return self.events if self.corpus is None else self.corpus

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """(n_items,): decayed number of users' events on an item, whatever their behaviour."""
        return self._decayed_count(self.weights.popular_half_life_days)

    @cached_property
    def popularity_of_late(self) -> NDArray[np.float64]:
        """(n_items,): the same with a half-life six times shorter."""
        return self._decayed_count(self.weights.popular_half_life_days / OF_LATE)

    @property
    def trend(self) -> NDArray[np.float64]:
        """(n_items,): popularity of late against the expected e = popularity / 6, in deviations.

        (of late - e) / sqrt(e + 1): e is what a steady rate would give, as a decayed count is
        proportional to its half-life; the deviation is that of a Poisson count, and the 1 keeps
        an item with few events from leading.
        """
        expected = self.popularity / OF_LATE
        return (self.popularity_of_late - expected) / np.sqrt(expected + 1.0)

    def _decayed_count(self, half_life_days: float) -> NDArray[np.float64]:
        decay = times.decayed(self.item_events.get_column("ts"), self.as_of, half_life_days)
        items = self.item_events.get_column("item").to_numpy()
        counts = np.bincount(items, weights=decay, minlength=self.shape[1])
        return counts.astype(np.float64)

    @property
    def new(self) -> NDArray[np.bool_]:
        """(n_items,) whether an item is eligible and was listed of late."""
        return self.eligible & (self.item_age <= self.weights.new_item_days)

    def profiles(self, users: NDArray[np.int32]) -> Vectors:
        """(len(users), d): each user's decayed mean of item and own review texts, unit length.

        A user without history, or whose history has no text, gets a zero row.
        """
        mean = self.affinity[users] @ self.item_vectors
        if len(self.reviews):
            mean = mean + self.review_affinity[users] @ self.review_vectors
        return unit_rows(np.asarray(mean, dtype=np.float32))


def _query(asked: Sequence[Vectors]) -> Vectors:
    """Rows at unit length in each table and side by side, a one appended; zero rows stay zero."""
    query = unit_rows(np.hstack([unit_rows(np.asarray(one, np.float32)) for one in asked]))
    return np.hstack([query, query.any(axis=1, keepdims=True).astype(np.float32)])


def _user_matrix(
    frame: pl.DataFrame, values: NDArray[np.float64], columns: pl.Series, shape: tuple[int, int]
) -> sp.csr_array:
    coordinates = (frame.get_column("user").to_numpy(), columns.to_numpy())
    return sp.csr_array((values.astype(np.float32), coordinates), shape=shape)
