"""What is known about users and items before `as_of`, in the shapes that generators need."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from index.store import VectorIndex, Vectors

# Beyond these many items a user's older ones are left out of item co-occurrence, so that its cost
# grows with the number of users and not with the square of the busiest one's history.
MAX_ITEMS_PER_USER = 200
NEIGHBOURS_PER_ITEM = 200


@dataclass(frozen=True)
class Weights:
    """How much an event or a review says about its user.

    Attributes:
        behaviours: weight of an event of each behaviour.
        review: weight of a review's text, on the same scale.
        half_life_days: after this many days a weight has halved.
        popular_half_life_days: the same, for the popularity of items.
    """

    behaviours: Mapping[str, float]
    review: float
    half_life_days: float
    popular_half_life_days: float


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
    """

    as_of: datetime
    events: pl.DataFrame
    reviews: pl.DataFrame
    item_vectors: Vectors
    review_vectors: Vectors
    eligible: NDArray[np.bool_]
    excluded: sp.csr_array
    weights: Weights

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
    def cooccurrence(self) -> sp.csr_array:
        """(n_items, n_items): cosine between the sets of users of two items.

        Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 2004. Only
        eligible columns, without the diagonal, the strongest neighbours of each row.
        """
        users_of = _recent_items(self.affinity)
        together = (users_of.T @ users_of).tocoo()
        count = np.maximum(users_of.sum(axis=0), 1.0)
        cosine = together.data / np.sqrt(count[together.row] * count[together.col])
        kept = (together.row != together.col) & self.eligible[together.col]
        entries = (cosine[kept].astype(np.float32), (together.row[kept], together.col[kept]))
        return strongest(sp.csr_array(entries, shape=together.shape), NEIGHBOURS_PER_ITEM)

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """(n_items,): decayed number of users' events on an item, whatever their behaviour."""
        half_life = self.weights.popular_half_life_days
        decay = decayed(self.events.get_column("ts"), self.as_of, half_life)
        items = self.events.get_column("item").to_numpy()
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


def strongest(matrix: sp.csr_array, k: int) -> sp.csr_array:
    """Only the `k` largest entries of each row, ties by column."""
    coordinates = matrix.tocoo()
    order = np.lexsort((coordinates.col, -coordinates.data, coordinates.row))
    rows = coordinates.row[order]
    kept = order[np.arange(len(rows)) - np.searchsorted(rows, rows) < k]
    entries = (coordinates.data[kept], (coordinates.row[kept], coordinates.col[kept]))
    return sp.csr_array(entries, shape=matrix.shape)


def _user_matrix(
    frame: pl.DataFrame, values: NDArray[np.float64], columns: pl.Series, shape: tuple[int, int]
) -> sp.csr_array:
    coordinates = (frame.get_column("user").to_numpy(), columns.to_numpy())
    return sp.csr_array((values.astype(np.float32), coordinates), shape=shape)


def _recent_items(affinity: sp.csr_array) -> sp.csr_array:
    """Ones where a user acted on an item, for the strongest items of each user."""
    recent = strongest(affinity, MAX_ITEMS_PER_USER)
    recent.data = np.ones_like(recent.data)
    return recent
