"""Point-in-time features of candidate pairs, in named groups.

A pair group is a function `(known, pairs, profiles) -> {column: (n,) float32}` aligned to
`pairs`. NaN means "not known"; LightGBM learns where to send it.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from rank.impressions import impressions
from rank.known import LAST_ITEMS, Columns, Kind, Known, PairTable, Values, ratio
from rank.tables import ITEM_TABLES, USER_TABLES, Table, numbers

NEWEST = 5
SAID = ("rank_", "score_", "share_")

Rows = NDArray[np.int32] | NDArray[np.int64]
PairGroup = Callable[[Known, pl.DataFrame, Values], Columns]


def generators(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """What each generator said of the pair, its share of the user's best, and how many agree."""
    ranks = [name for name in pairs.columns if name.startswith("rank_")]
    said = {n: numbers(pairs.get_column(n)) for n in pairs.columns if n.startswith(SAID)}
    agreeing = sum((~np.isnan(said[name]) for name in ranks), np.zeros(len(pairs), np.float32))
    return said | {"generators": agreeing}


def similarity(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """Cosines between the item's texts and what the user did and wrote."""
    from rank.lookups import means

    users, whose = _shard(pairs)
    texts, latest = known.item_vectors, known.last_items[users, :LAST_ITEMS]
    written, read, items = known.user_reviews, known.item_reviews, _items(pairs)
    own = np.stack([profiles, written.vectors[written.row[users]]], axis=1)
    found = _products(own, latest, texts, whose, texts, items)
    (profile, of_own), to_last = found[:2], found[2:]
    asked, none, rows = profiles[:, None], latest[:, :0], read.row[items]
    (of_reviews,) = _products(asked, none, texts, whose, read.vectors, rows)
    return {
        "cosine_profile": profile,
        "cosine_own_reviews": of_own,
        "cosine_item_reviews": of_reviews,
        "cosine_last": to_last[0],
        "cosine_last_3_mean": means(to_last[:3]),
        "cosine_last_10_max": np.fmax.reduce(to_last),
        "cosine_last_10_mean": means(to_last),
    }


def last_items(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """Cosines of whitened texts between the item and each of the user's latest items."""
    texts = known.whitened_items
    return _with_latest(known, pairs, texts, texts, name="cosine_whitened")


def last_steps(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """Log-odds of the two-tower model, were each of the user's latest items the only one."""
    if known.asks is None or known.answers is None:
        return {}
    return _with_latest(known, pairs, known.asks, known.answers, name="log_odds")


def vectors(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """Compressed vectors of the item and of the user's profile."""
    _, whose = _shard(pairs)
    columns: Columns = {}
    for of, compressed, rows in (
        ("item", known.projected_items, _items(pairs)),
        ("user", known.projection(profiles), whose),
    ):
        places = np.ascontiguousarray(compressed.T).take(rows, axis=1, mode="clip")
        columns |= {f"{of}_pc_{n}": values for n, values in enumerate(places)}
    return columns


def price(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """How far the item's price lies from those that the user acted on.

    In logarithms, and by its quantile in its category.
    """
    users, items = _users(pairs), _items(pairs)
    quantile = known.price_in_category["price_quantile"][items]
    return {
        "price_gap": known.log_price[items] - known.usual_log_price[users],
        "price_quantile_gap": quantile - known.usual_price_quantile[users],
    }


def kinds(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """The user's share of affinity for the item's category, brand and text attributes."""
    total = known.total_affinity[_users(pairs)]
    columns: Columns = {}
    for name, kind in known.kinds.items():
        liked = _liked(kind, pairs)
        columns[f"affinity_{name}"] = np.where(total > 0, ratio(liked, total), liked)
    return columns


def clusters(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """The user's share of affinity for the item's cluster of texts; by the whole shop's."""
    share = ratio(_liked(known.clusters, pairs), known.total_affinity[_users(pairs)])
    return {
        "affinity_cluster": share,
        "cluster_lift": ratio(share, known.cluster_demand[_items(pairs)]),
    }


def neighbours(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """The user's affinity for the items of texts nearest to the item's, by cosine; its share."""
    users, items = _users(pairs), _items(pairs)
    distinct, whose = _shard(pairs)
    wanted = sp.csr_array(known.affinity[distinct] @ known.asking_texts)
    has_any = np.diff(known.text_neighbours.indptr)[items] > 0
    liked = np.where(has_any, _entries(wanted, whose, items), np.float32(np.nan))
    return {
        "affinity_neighbours": liked,
        "affinity_share_neighbours": ratio(liked, known.total_affinity[users]),
    }


def intervals(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """How near the user's last use of the item is to its usual interval ago."""
    return _looked_up(known.due_table, pairs)


def pair_history(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """What this user already did on this item."""
    return _looked_up(known.pair_table, pairs)


PAIR_GROUPS: dict[str, PairGroup] = {
    "generators": generators,
    "similarity": similarity,
    "last_items": last_items,
    "last_steps": last_steps,
    "vectors": vectors,
    "price": price,
    "kinds": kinds,
    "clusters": clusters,
    "neighbours": neighbours,
    "intervals": intervals,
    "pair_history": pair_history,
    "impressions": impressions,
}
GROUPS = tuple(dict.fromkeys([*PAIR_GROUPS, *USER_TABLES, *ITEM_TABLES]))


@dataclass(frozen=True)
class Features:
    """Computes the features of candidate pairs at one `as_of`.

    Attributes:
        known: the state before `as_of`.
        without: names of groups (see `GROUPS`) to leave out.
        of_items: what the figures of items alone are counted from, where that is not `known`.
    """

    known: Known
    without: Collection[str] = ()
    of_items: Known | None = None

    def __call__(self, pairs: pl.DataFrame, profiles: Values) -> pl.DataFrame:
        """Float32 columns aligned to `pairs`, the same names in the same order at every `as_of`.

        Args:
            pairs: candidates sorted by user: `user`, `item`, `rank_*`, `score_*`, `share_*`.
            profiles: (distinct users in `pairs`, d) their profiles, in ascending order of user.
        """
        names = [*self.groups(pairs[:0], profiles[:0])]
        matrix = np.empty((len(names), len(pairs)), dtype=np.float32)
        filled = 0
        for _, part in self._parts(pairs, profiles):
            for values in part.values():
                matrix[filled] = values
                filled += 1
        for alone, rows in ((self._of_users, _users(pairs)), (self._of_items, _items(pairs))):
            end = filled + len(alone.values)
            alone.values.take(rows, axis=1, out=matrix[filled:end], mode="clip")
            filled = end
        return _frame(names, matrix)

    def groups(self, pairs: pl.DataFrame, profiles: Values) -> dict[str, str]:
        """The group of each feature; arguments as of a call, of which any pairs will do."""
        of_pairs = {n: group for group, part in self._parts(pairs, profiles) for n in part}
        return of_pairs | self._of_users.groups | self._of_items.groups

    def _parts(self, pairs: pl.DataFrame, profiles: Values) -> Iterator[tuple[str, Columns]]:
        for name, group in PAIR_GROUPS.items():
            if name not in self.without:
                yield name, group(self.known, pairs, profiles)

    def of_users(self, users: Rows) -> pl.DataFrame:
        """Float32 columns aligned to `users`: what is known of them whatever the item."""
        return _frame([*self._of_users.groups], self._of_users.values.take(users, axis=1))

    @cached_property
    def _of_users(self) -> "Alone":
        return self._alone(USER_TABLES, self.known, "user")

    @cached_property
    def _of_items(self) -> "Alone":
        return self._alone(ITEM_TABLES, self.of_items or self.known, "item")

    def _alone(self, tables: dict[str, Table], known: Known, of: str) -> "Alone":
        wanted = {name: table for name, table in tables.items() if name not in self.without}
        return Alone.of({name: table(known) for name, table in wanted.items()}, known.size(of))


@dataclass(frozen=True)
class Alone:
    """Features of users, or of items, whatever the other.

    Attributes:
        groups: the group of each feature.
        values: (features, users or items) aligned to `groups`.
    """

    groups: dict[str, str]
    values: Values

    @classmethod
    def of(cls, tables: dict[str, Columns], size: int) -> "Alone":
        """Those of all groups; a behaviour called `review` has a column that `ratings` has too."""
        columns = {name: values for table in tables.values() for name, values in table.items()}
        groups = {name: group for group, table in tables.items() for name in table}
        values = np.array([*columns.values()], dtype=np.float32).reshape(len(columns), size)
        return cls(groups, values)


def _frame(names: list[str], matrix: Values) -> pl.DataFrame:
    """The rows of a matrix as columns: the frame holds the same memory."""
    return pl.from_numpy(matrix.T, names) if names else pl.DataFrame(height=matrix.shape[1])


def _users(pairs: pl.DataFrame) -> NDArray[np.int32]:
    return pairs.get_column("user").to_numpy()


def _items(pairs: pl.DataFrame) -> NDArray[np.int32]:
    return pairs.get_column("item").to_numpy()


def _shard(pairs: pl.DataFrame) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The distinct users, ascending, and the (n,) position of each pair's among them."""
    users = _users(pairs)
    first = np.diff(users, prepend=-1) > 0
    return users[first], np.cumsum(first) - 1


def _entries(matrix: sp.csr_array, rows: Rows, columns: Rows) -> Values:
    """(n,) the aligned entries of a matrix, 0 where it has none; those of a row together."""
    from rank.lookups import entries

    stored = (matrix.indptr, matrix.indices, matrix.data)
    return np.asarray(entries(*stored, matrix.shape[1], rows, columns))


def _liked(kind: Kind, pairs: pl.DataFrame) -> Values:
    """(n,) the user's affinity for the value of the item, NaN where it has none."""
    code = kind.code[_items(pairs)]
    liked = _entries(kind.affinity, _users(pairs), np.maximum(code, 0))
    return np.where(code < 0, np.float32(np.nan), liked)


def _looked_up(table: PairTable, pairs: pl.DataFrame) -> Columns:
    found = table.find(_users(pairs), _items(pairs))
    return {name: values[found] for name, values in table.columns.items()}


def _with_latest(
    known: Known, pairs: pl.DataFrame, asks: Values, answers: Values, *, name: str
) -> Columns:
    """Inner products of each of the user's latest items, as it asks, with the item's answer."""
    users, whose = _shard(pairs)
    none = np.empty((len(users), 0, asks.shape[1]), np.float32)
    recent = known.last_items[users, :NEWEST]
    latest = _products(none, recent, asks, whose, answers, _items(pairs))
    columns = {f"{name}_{n + 1}": values for n, values in enumerate(latest)}
    return columns | {f"{name}_max": np.fmax.reduce(latest)}


def _products(
    queries: Values, latest: Rows, asks: Values, whose: Rows, vectors: Values, rows: Rows
) -> Values:
    """(q, n) inner products of each pair's vector with its user's queries; NaN: one is zero."""
    from rank.lookups import products

    queries = np.ascontiguousarray(queries, dtype=np.float32)
    return np.asarray(products(queries, latest, asks, whose, vectors, rows))
