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
from rank.known import Columns, Kind, Known, PairTable, Values, ratio
from rank.tables import ITEM_TABLES, USER_TABLES, Table, numbers

NEWEST = 5
SAID = ("rank_", "score_", "share_")

Rows = NDArray[np.int32] | NDArray[np.int64]
PairGroup = Callable[[Known, pl.DataFrame, Values], Columns]


def generators(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """What each generator said of the pair, its share of the user's best, and how many agree."""
    ranks = [name for name in pairs.columns if name.startswith("rank_")]
    said = {n: numbers(pairs.get_column(n)) for n in pairs.columns if n.startswith(SAID)}
    agreeing = sum((~np.isnan(said[name]) for name in ranks), np.zeros(len(pairs)))
    return said | {"generators": agreeing}


def similarity(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """Cosines between the item's texts and what the user did and wrote."""
    users, items = _users(pairs), _items(pairs)
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    last = known.last_items[users[starts]]
    newest = np.where((last >= 0)[..., None], known.item_vectors[last], 0.0)
    own = known.user_review_vectors[users[starts]]
    queries = np.concatenate([profiles[:, None], own[:, None], newest], axis=1, dtype=np.float32)
    to_item = _cosines(known.item_vectors, items, queries, starts)
    to_reviews = _cosines(known.item_review_vectors, items, queries[:, :1], starts)
    to_last = to_item[:, 2:]
    return {
        "cosine_profile": to_item[:, 0],
        "cosine_own_reviews": to_item[:, 1],
        "cosine_item_reviews": to_reviews[:, 0],
        "cosine_last": to_last[:, 0],
        "cosine_last_3_mean": _nan_mean(to_last[:, :3]),
        "cosine_last_10_max": np.fmax.reduce(to_last, axis=1),
        "cosine_last_10_mean": _nan_mean(to_last),
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
    users = _users(pairs)
    row = np.cumsum(np.diff(users, prepend=users[:1]) != 0)
    item, user = known.projected_items[_items(pairs)], known.projection(profiles)[row]
    columns = {f"item_pc_{n}": item[:, n] for n in range(item.shape[1])}
    return columns | {f"user_pc_{n}": user[:, n] for n in range(user.shape[1])}


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
    distinct, row = np.unique(users, return_inverse=True)
    wanted = sp.csr_array(known.affinity[distinct] @ known.asking_texts)
    wanted.sort_indices()  # makes looking up pairs fast
    has_any = np.diff(known.text_neighbours.indptr)[items] > 0
    liked = np.where(has_any, _entries(wanted, row, items), np.float32(np.nan))
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
        parts = self._parts(pairs, profiles)
        columns = {name: values for _, part in parts for name, values in part.items()}
        return pl.DataFrame({name: values.astype(np.float32) for name, values in columns.items()})

    def groups(self, pairs: pl.DataFrame, profiles: Values) -> dict[str, str]:
        """The group of each feature; arguments as of a call, of which any pairs will do."""
        return {name: group for group, part in self._parts(pairs, profiles) for name in part}

    def _parts(self, pairs: pl.DataFrame, profiles: Values) -> Iterator[tuple[str, Columns]]:
        for name, group in PAIR_GROUPS.items():
            if name not in self.without:
                yield name, group(self.known, pairs, profiles)
        for tables, rows in ((self._of_users, _users(pairs)), (self._of_items, _items(pairs))):
            for name, table in tables.items():
                yield name, {column: values[rows] for column, values in table.items()}

    @cached_property
    def _of_users(self) -> dict[str, Columns]:
        return self._tables(USER_TABLES, self.known)

    def of_users(self, users: Rows) -> pl.DataFrame:
        """Float32 columns aligned to `users`: what is known of them whatever the item."""
        columns = {n: v[users] for table in self._of_users.values() for n, v in table.items()}
        single = {name: values.astype(np.float32) for name, values in columns.items()}
        return pl.DataFrame(single or None, height=len(users))

    @cached_property
    def _of_items(self) -> dict[str, Columns]:
        return self._tables(ITEM_TABLES, self.of_items or self.known)

    def _tables(self, tables: dict[str, Table], known: Known) -> dict[str, Columns]:
        return {name: table(known) for name, table in tables.items() if name not in self.without}


def _users(pairs: pl.DataFrame) -> NDArray[np.int32]:
    return pairs.get_column("user").to_numpy()


def _items(pairs: pl.DataFrame) -> NDArray[np.int32]:
    return pairs.get_column("item").to_numpy()


def _entries(matrix: sp.csr_array, rows: Rows, columns: Rows) -> Values:
    """(n,) the aligned entries of a matrix, 0 where it has none."""
    if len(rows) == 0:  # scipy raises
        return np.empty(0, dtype=np.float32)
    return np.asarray(matrix[rows, columns]).ravel()


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
    users = _users(pairs)
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    last = known.last_items[users[starts], :NEWEST]
    queries = np.where((last >= 0)[..., None], asks[last], 0.0)
    products = _cosines(answers, _items(pairs), queries, starts)
    columns = {f"{name}_{n + 1}": products[:, n] for n in range(NEWEST)}
    return columns | {f"{name}_max": np.fmax.reduce(products, axis=1)}


def _cosines(
    rows: Values, items: NDArray[np.int32], queries: Values, starts: NDArray[np.int64]
) -> Values:
    """Inner products of each pair's row with its user's queries; NaN where either is zero.

    Args:
        rows: (n_items, d) unit vectors.
        items: (n,) item of each pair, pairs of one user together.
        queries: (n_users, q, d) unit vectors.
        starts: (n_users,) first pair of each user.

    Returns:
        (n, q) float32.
    """
    cosines = np.empty((len(items), queries.shape[1]), dtype=np.float32)
    bounds = np.append(starts, len(items))
    for query, start, end in zip(queries, bounds[:-1], bounds[1:], strict=True):
        np.matmul(rows[items[start:end]], query.T, out=cosines[start:end])
    textless = np.asarray(~rows.any(axis=1))
    cosines[textless[items]] = np.nan
    empty = np.repeat(~queries.any(axis=2), np.diff(bounds), axis=0)
    cosines[empty] = np.nan
    return cosines


def _nan_mean(values: Values) -> Values:
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    unknown = np.full(len(values), np.nan, dtype=np.float32)
    return np.asarray(np.divide(total, count, out=unknown, where=count > 0))
