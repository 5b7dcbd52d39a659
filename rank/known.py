"""What is known about users and items before `as_of`, as arrays that features look up by row."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from rank.metrics import PAIR
from rank.projection import Projection

if TYPE_CHECKING:
    from rank.impressions import Shown

Values = NDArray[np.float32]
# One value for each row; counts may be integers until a frame of features is made.
Columns = dict[str, NDArray[Any]]

DAYS = (1, 7, 30, 90)
# Rates and means lean on the whole shop's as if this many more events had been seen.
PRIOR_EVENTS = 20.0
LAST_ITEMS = 10
_MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class Known:
    """The state before `as_of` from which features are computed.

    Attributes:
        as_of: naive UTC; the caller passes only events and reviews with `ts < as_of`.
        items: row i is item i: category, brand, price, created_at, attributes.
        users: row u is user u: known_since, attributes.
        events: user, item, ts, behaviour; sorted by ts.
        reviews: user, item, ts, rating, sentiment (0 sorry, 1 glad); row r has the vector
            `review_vectors[r]`.
        item_vectors: (n_items, d) float32, unit length, zero where an item has no text.
        review_vectors: (len(reviews), d), likewise.
        whitened_items: (n_items, w): item texts freed of what all share, likewise.
        text_neighbours: (n_items, n_items) sparse: row i holds the cosines of whitened texts
            between item i and the few nearest others.
        text_clusters: (n_items,) the cluster of texts that an item belongs to, -1 without one.
        affinity: (n_users, n_items) sparse: decayed weight of a user's events on an item.
        demand: (n_items,) everybody's affinity for an item, counted as figures of items are.
        due: (n_users, n_items) sparse: how near a user's last use of an item is to its usual
            interval ago; pairs without an entry, a stored zero being one, are not known.
        behaviours: all behaviours that events may hold, in the order of the funnel.
        item_attributes: further columns of `items` to use.
        user_attributes: further columns of `users` to use.
        projection: what compresses vectors to a few dimensions.
        asks: (n_items, d + 1) what each item alone asks of the two-tower model, unit length and a
            one appended; None where it is not used.
        answers: (n_items, d + 1) what it is matched with, likewise.
        shown: the impressions; None where there are none to know of.
    """

    as_of: datetime
    items: pl.DataFrame
    users: pl.DataFrame
    events: pl.DataFrame
    reviews: pl.DataFrame
    item_vectors: Values
    review_vectors: Values
    whitened_items: Values
    text_neighbours: sp.csr_array
    text_clusters: NDArray[np.int32]
    affinity: sp.csr_array
    demand: Values
    due: sp.csr_array
    behaviours: tuple[str, ...]
    item_attributes: tuple[str, ...]
    user_attributes: tuple[str, ...]
    projection: Projection
    asks: Values | None = None
    answers: Values | None = None
    shown: "Shown | None" = None

    def size(self, of: str) -> int:
        """Number of users or of items."""
        return len(self.users if of == "user" else self.items)

    def codes(self, of: str) -> NDArray[np.int32]:
        """(n_events,) row position of the user or the item of each event."""
        return self.events.get_column(of).to_numpy()

    @cached_property
    def event_age(self) -> NDArray[np.float64]:
        """(n_events,) days before `as_of`."""
        return days_before(self.events.get_column("ts"), self.as_of)

    @cached_property
    def is_behaviour(self) -> dict[str, NDArray[np.bool_]]:
        """For each behaviour, (n_events,) whether an event is one."""
        column = self.events.get_column("behaviour").cast(pl.String)
        return {name: (column == name).to_numpy() for name in self.behaviours}

    def counts(self, of: str, behaviour: str, days: float) -> Values:
        """Number of events of `behaviour` by each user or item (`of`) in the last `days`."""
        chosen = self.is_behaviour[behaviour] & (self.event_age <= days)
        return np.bincount(self.codes(of)[chosen], minlength=self.size(of)).astype(np.float32)

    def decayed(self, of: str, behaviour: str, half_life_days: float) -> NDArray[np.float64]:
        """As `counts`, an event counting 2 ** (-age / half life) however long ago it was."""
        chosen = self.is_behaviour[behaviour]
        weight = np.exp2(-self.event_age[chosen] / half_life_days)
        counts = np.bincount(self.codes(of)[chosen], weight, minlength=self.size(of))
        return counts.astype(np.float64)

    def days_since(self, of: str, behaviour: str) -> Values:
        """Days since the last event of `behaviour` of each user or item; NaN without one."""
        chosen = self.is_behaviour[behaviour]
        return minimum_by(self.codes(of)[chosen], self.event_age[chosen], self.size(of))

    @cached_property
    def pair_table(self) -> "PairTable":
        """What each user already did on each item."""
        keys = self.codes("user").astype(np.int64) * len(self.items) + self.codes("item")
        distinct, place = np.unique(keys, return_inverse=True)
        size = len(distinct) + 1  # the last row stands for pairs without an event
        columns: Columns = {}
        for name, chosen in self.is_behaviour.items():
            for days, span in ((7.0, "7d"), (30.0, "30d"), (np.inf, "all")):
                recent = place[chosen & (self.event_age <= days)]
                counts = np.bincount(recent, minlength=size)
                columns[f"pair_{name}_{span}"] = counts.astype(np.float32)
            since = minimum_by(place[chosen], self.event_age[chosen], size)
            columns[f"pair_days_since_{name}"] = since
        return PairTable(keys=distinct, columns=columns, n_items=len(self.items))

    @cached_property
    def due_table(self) -> "PairTable":
        """How near each user's last use of each item is to its usual interval ago."""
        entries = self.due.sorted_indices().tocoo()
        keys = entries.row.astype(np.int64) * len(self.items) + entries.col
        columns: Columns = {"pair_due": np.append(entries.data, np.nan)}
        return PairTable(keys=keys, columns=columns, n_items=len(self.items))

    @cached_property
    def asking_texts(self) -> sp.csr_array:
        """(n_items, n_items): `text_neighbours` from the neighbour to the items that it is of."""
        return sp.csr_array(self.text_neighbours.T)

    @cached_property
    def log_price(self) -> Values:
        """(n_items,) log(1 + price), NaN without a price."""
        price = self.items.get_column("price").cast(pl.Float64).fill_null(np.nan).to_numpy()
        return np.asarray(np.log1p(np.maximum(price, 0.0)), dtype=np.float32)

    @cached_property
    def price_in_category(self) -> Columns:
        """The place of each listed item among the prices of its category; NaN without one.

        price_in_category: `log_price` less the category's mean; price_quantile: the part of the
        category's items that cost less, of equal ones half.
        """
        created, price = self.items.get_column("created_at"), pl.col("price")
        items = self.items.select("category", price=pl.Series(self.log_price, dtype=pl.Float64))
        listed = items.with_row_index("item").filter(
            created.is_null() | (created < self.as_of), price.is_not_nan()
        )
        placed = listed.drop_nulls("category").select(
            "item",
            price_in_category=price - price.mean().over("category"),
            price_quantile=(price.rank("average").over("category") - 0.5)
            / pl.len().over("category"),
        )
        columns = {name: np.full(len(items), np.nan) for name in placed.columns[1:]}
        for name, values in columns.items():
            values[placed.get_column("item").to_numpy()] = placed.get_column(name).to_numpy()
        return columns

    @cached_property
    def usual_log_price(self) -> Values:
        """(n_users,) mean of `log_price` over the user's items by affinity, NaN without one."""
        return self._usual(self.log_price)

    @cached_property
    def usual_price_quantile(self) -> Values:
        """(n_users,) the same of `price_quantile` in the category."""
        return self._usual(self.price_in_category["price_quantile"])

    def _usual(self, figure: NDArray[Any]) -> Values:
        known = ~np.isnan(figure)
        weight = self.affinity @ known.astype(np.float32)
        total = self.affinity @ np.where(known, figure, 0.0).astype(np.float32)
        return ratio(total, weight)

    @cached_property
    def total_affinity(self) -> Values:
        """(n_users,) the user's affinity for all items."""
        return np.asarray(self.affinity.sum(axis=1), dtype=np.float32)

    @cached_property
    def kinds(self) -> dict[str, "Kind"]:
        """Category, brand and each text attribute of the items."""
        names = ("category", "brand", *self.item_attributes)
        texts = [name for name in names if self.items.schema[name] == pl.String]
        return {name: Kind.of(self.items.get_column(name), self.affinity) for name in texts}

    @cached_property
    def clusters(self) -> "Kind":
        """Clusters of texts."""
        return Kind.of(pl.Series(self.text_clusters).replace(-1, None), self.affinity)

    @cached_property
    def cluster_demand(self) -> Values:
        """(n_items,) the share of all demand that the item's cluster has, NaN without a cluster."""
        place = self.clusters.code + 1  # 0: in no cluster
        total = np.bincount(place, self.demand, minlength=1)
        share = ratio(total, np.full_like(total, total.sum()))
        share[0] = np.nan
        return share[place]

    @cached_property
    def last_items(self) -> NDArray[np.int32]:
        """(n_users, LAST_ITEMS): the user's latest distinct items, newest first, padded with -1."""
        newest_first = self.events.select("user", "item").reverse()
        distinct = newest_first.filter(PAIR.is_first_distinct())
        place = distinct.select(pl.int_range(pl.len()).over("user")).to_series().to_numpy()
        kept = place < LAST_ITEMS
        table = np.full((len(self.users), LAST_ITEMS), -1, dtype=np.int32)
        user, item = (distinct.get_column(n).to_numpy()[kept] for n in ("user", "item"))
        table[user, place[kept]] = item
        return table

    @cached_property
    def item_reviews(self) -> "Means":
        """The mean of an item's reviews."""
        return self._mean_reviews("item")

    @cached_property
    def user_reviews(self) -> "Means":
        """The mean of the user's own reviews."""
        return self._mean_reviews("user")

    def _mean_reviews(self, of: str) -> "Means":
        whose = self.reviews.get_column(of).to_numpy()
        known, place = np.unique(whose, return_inverse=True)
        ones, places = np.ones(len(whose), np.float32), (place, np.arange(len(whose)))
        member = sp.csr_array((ones, places), shape=(len(known) + 1, len(whose)))
        total = np.asarray(member @ self.review_vectors, dtype=np.float32)
        length = np.linalg.norm(total, axis=1, keepdims=True)
        row = np.full(self.size(of), len(known), dtype=np.int32)
        row[known] = np.arange(len(known), dtype=np.int32)
        return Means(row, np.asarray(np.divide(total, length, out=total, where=length > 0)))

    @cached_property
    def projected_items(self) -> Values:
        """(n_items, dimensions): compressed item vectors."""
        return self.projection(self.item_vectors)


@dataclass(frozen=True)
class Means:
    """The mean review of each user, or of each item.

    Attributes:
        row: (n,) the position in `vectors`.
        vectors: (m, d) unit length or zero, as is the last, that of all who have no review.
    """

    row: NDArray[np.int32]
    vectors: Values


@dataclass(frozen=True)
class Kind:
    """One text attribute of the items, such as the brand.

    Attributes:
        code: (n_items,) number of the item's value, -1 where it has none.
        affinity: (n_users, values) sparse: affinity of each user for each value.
    """

    code: NDArray[np.int64]
    affinity: sp.csr_array

    @classmethod
    def of(cls, values: pl.Series, affinity: sp.csr_array) -> "Kind":
        """Number the values in alphabetical order and add up each user's affinity."""
        code = values.rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1
        rows = np.flatnonzero(code >= 0)
        shape = (len(code), max(int(code.max(initial=-1)) + 1, 1))
        ones = np.ones(len(rows), dtype=np.float32)
        member = sp.csr_array((ones, (rows, code[rows])), shape=shape)
        return cls(code=code, affinity=sp.csr_array(affinity @ member))


@dataclass(frozen=True)
class PairTable:
    """Looks up what is known of a (user, item) pair.

    Attributes:
        keys: (p,) sorted distinct `user * n_items + item`.
        columns: (p + 1,) arrays aligned to `keys`; the last value is that of any other pair.
        n_items: the multiplier in the keys.
    """

    keys: NDArray[np.int64]
    columns: Columns
    n_items: int

    def find(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.int64]:
        """Position in `keys` of each aligned pair, `len(keys)` where it has no event."""
        asked = users.astype(np.int64) * self.n_items + items
        if len(self.keys) == 0:
            return np.zeros(len(asked), dtype=np.int64)
        place = np.minimum(np.searchsorted(self.keys, asked), len(self.keys) - 1)
        return np.where(self.keys[place] == asked, place, len(self.keys))


def days_before(ts: pl.Series, as_of: datetime) -> NDArray[np.float64]:
    """Days from each timestamp to `as_of`; NaN where there is none.

    >>> days_before(pl.Series([datetime(2024, 1, 1, 12), None]), datetime(2024, 1, 3)).tolist()
    [1.5, nan]
    """
    age = pl.select(pl.lit(as_of) - ts.cast(pl.Datetime("us"))).to_series()
    days = age.dt.total_microseconds().cast(pl.Float64) / _MICROSECONDS_PER_DAY
    return days.fill_null(np.nan).to_numpy()


def ratio(total: NDArray[Any], count: NDArray[Any]) -> Values:
    """Each total by its count, NaN where there is none.

    >>> ratio(np.array([3.0, 0.0]), np.array([2, 0])).tolist()
    [1.5, nan]
    """
    unknown = np.full(len(total), np.nan, dtype=np.float32)
    return np.asarray(np.divide(total, count, out=unknown, where=count > 0))


def smoothed_rate(hits: NDArray[Any], tries: NDArray[Any]) -> NDArray[Any]:
    """Hits per try, leaning on the rate of all rows together.

    >>> smoothed_rate(np.array([1, 0]), np.array([20, 0])).tolist()
    [0.05, 0.05]
    """
    prior = hits.sum() / max(tries.sum(), 1.0)
    return np.asarray((hits + PRIOR_EVENTS * prior) / (tries + PRIOR_EVENTS))


def minimum_by(rows: NDArray[np.int32], values: NDArray[np.float64], size: int) -> Values:
    """The smallest value of each row, NaN where a row has none.

    >>> minimum_by(np.array([2, 0, 2]), np.array([5.0, 1.0, 3.0]), 3).tolist()
    [1.0, nan, 3.0]
    """
    least = np.full(size, np.inf)
    np.minimum.at(least, rows, values)
    return np.where(np.isinf(least), np.nan, least).astype(np.float32)
