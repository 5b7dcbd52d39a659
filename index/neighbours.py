"""Item-to-item matrices: row a holds how strongly item a speaks for its neighbours."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index.rows import best_first, entries_where, places
from index.store import VectorIndex, Vectors

# What a user did beyond these many latest distinct items is left out, so that the cost grows
# with the number of users and not with the square of the busiest one's history.
MAX_ITEMS_PER_USER = 200
LONGEST_HISTORY = 50
# Products are computed in blocks of rows that hold about so many numbers.
CELLS_PER_BLOCK = 2**23
# An entry of a sparse product takes as much as ten numbers while it is worked on.
ENTRIES_PER_BLOCK = 2**20

# Chosen on the validation items of leave-one-out Beauty; see docs/benchmarks.md.
DIRECTED_GAP = 10
BACKWARD = 0.5
DAMPING = (0.5, 0.3)
EASE_DECAY = 0.9
EASE_PENALTY = 200.0


def latest_first(events: pl.DataFrame) -> pl.DataFrame:
    """Distinct items of each user, the latest first: user, item, place (0 = latest).

    Args:
        events: user, item; sorted by time.
    """
    pair = pl.col("user").cast(pl.Int64) * 2**32 + pl.col("item")
    distinct = events.select("user", "item").reverse().filter(pair.is_first_distinct())
    placed = distinct.with_columns(place=pl.int_range(pl.len()).over("user"))
    return placed.filter(pl.col("place") < MAX_ITEMS_PER_USER)


def ordered(latest: pl.DataFrame, shape: tuple[int, int], *, decay: float) -> sp.csr_array:
    """(n_users, n_items): decay ** place for the items of `latest_first`."""
    weight = decay ** latest.get_column("place").to_numpy().astype(np.float64)
    pairs = (latest.get_column("user").to_numpy(), latest.get_column("item").to_numpy())
    return sp.csr_array((weight.astype(np.float32), pairs), shape=shape)


def steps(
    latest: pl.DataFrame, n_items: int, *, decays: Sequence[float], newest: int
) -> tuple[list[sp.csr_array], NDArray[np.int32]]:
    """Histories with what followed: one row for each item of a user but the first.

    Args:
        latest: as `latest_first` gives it.
        n_items: number of columns.
        decays: weights of an item by its distance from the end of the history.
        newest: so many of each user's latest steps are used.

    Returns:
        for each decay weights (n, n_items) of the items before, and the (n,) items that followed.
    """
    length = pl.len().over("user")
    step = latest.filter(pl.col("place") < pl.min_horizontal(length - 1, pl.lit(newest)))
    step = step.select("user", pl.col("place").alias("step"), following="item").with_row_index()
    before = step.join(latest, on="user").filter(
        pl.col("place") > pl.col("step"), pl.col("place") <= pl.col("step") + LONGEST_HISTORY
    )
    row, item = before.get_column("index").to_numpy(), before.get_column("item").to_numpy()
    distance = (before.get_column("place") - before.get_column("step") - 1).to_numpy()
    shape = (len(step), n_items)
    weights = [(decay ** distance.astype(np.float64)).astype(np.float32) for decay in decays]
    histories = [sp.csr_array((weight, (row, item)), shape=shape) for weight in weights]
    return histories, step.get_column("following").to_numpy()


def cooccurrence(
    latest: pl.DataFrame, shape: tuple[int, int], eligible: NDArray[np.bool_], *, k: int
) -> sp.csr_array:
    """Number of common users, damped by the popularity of both items: `strongest_eligible`.

    Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 2004; the popularity
    of the neighbour is damped less, which favours the popular. Computed in blocks of rows, as the
    whole product may be too large.
    """
    users_of = ordered(latest, shape, decay=1.0)
    by_item, count = sp.csr_array(users_of.T), _count(latest, shape[1])
    most = np.cumsum(by_item @ np.diff(users_of.indptr))  # entries up to each row
    ends = np.searchsorted(most, np.arange(0, most[-1:].sum(), ENTRIES_PER_BLOCK)[1:])
    blocks = [
        strongest_eligible(
            _damped(sp.csr_array(by_item[start:end] @ users_of), count, first=start), eligible, k=k
        )
        for start, end in pairwise(np.unique([0, *ends, shape[1]]))
    ]
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def directed(latest: pl.DataFrame, shape: tuple[int, int]) -> sp.csr_array:
    """How often the neighbour came after the item, by 1 / gap; before it counts half."""
    frame = latest.sort("user", "place", descending=[False, True])
    user, item = frame.get_column("user").to_numpy(), frame.get_column("item").to_numpy()
    rows, columns, values = [], [], []
    for gap in range(1, DIRECTED_GAP + 1):
        same = user[:-gap] == user[gap:]
        before, after = item[:-gap][same], item[gap:][same]
        rows += [before, after]
        columns += [after, before]
        values += [np.full(len(before), 1.0 / gap), np.full(len(before), BACKWARD / gap)]
    pairs = (np.concatenate(rows), np.concatenate(columns))
    entries = (np.concatenate(values).astype(np.float32), pairs)
    matrix = sp.csr_array(entries, shape=(shape[1], shape[1]))
    return _damped(matrix, _count(latest, shape[1]))


def ease(latest: pl.DataFrame, shape: tuple[int, int], *, max_items: int, k: int) -> sp.csr_array:
    """The `k` largest weights of the linear model that best restores users' items from the others.

    Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019. Closed form over the
    `max_items` most common items: memory peaks at about 30 * max_items ** 2 bytes, time grows
    with the cube of it.
    """
    from scipy.linalg.lapack import spotrf, spotri

    users_of = ordered(latest, shape, decay=EASE_DECAY).tocsc()
    count = np.diff(users_of.indptr)
    common = np.sort(np.lexsort((np.arange(len(count)), -count))[:max_items])
    common = common[count[common] > 0]
    if len(common) == 0:
        return sp.csr_array(users_of.T @ users_of)
    chosen = users_of[:, common]
    gram = np.asfortranarray((chosen.T @ chosen).toarray(), dtype=np.float32)
    gram[np.diag_indices_from(gram)] += EASE_PENALTY
    with threadpool_limits(limits=1):  # several threads would round differently
        factor, _ = spotrf(gram, lower=0, overwrite_a=1)
        upper, _ = spotri(factor, lower=0, overwrite_c=1)
    upper = np.triu(upper)
    inverse = upper + np.triu(upper, 1).T
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0.0)
    k = min(k, len(common))
    top = np.sort(np.argpartition(-weights, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(weights, top, axis=1)
    pairs = (np.repeat(common, k), common[top.ravel()])
    entries = sp.coo_array((values.ravel(), pairs), shape=(shape[1], shape[1]))
    return entries_where(entries, entries.data > 0)


def two_hop(directed: sp.csr_array, *, k: int) -> sp.csr_array:
    """What the neighbours' neighbours are, where they are not neighbours already.

    Args:
        directed: a matrix of neighbours, whose rows hold the strongest only.
        k: neighbours of each item.
    """
    itself = sp.eye_array(directed.shape[0], format="csr", dtype=directed.dtype)
    return strongest_products(directed, directed, sp.csr_array(directed + itself), k=k)


def by_vectors(
    vectors: Vectors, asking: NDArray[np.int32], index: VectorIndex, *, k: int
) -> sp.csr_array:
    """The `k` largest inner products of the items `asking` with others of the index, if > 0."""
    items, product = index.search(vectors[asking], k + 1)
    rows = np.broadcast_to(asking[:, None], items.shape)
    kept = (items >= 0) & (items != rows) & (product > 0)
    entries = (product[kept], (rows[kept], items[kept]))
    return sp.csr_array(entries, shape=(len(vectors), len(vectors)))


def strongest_products(
    left: sp.csr_array, right: sp.csr_array, barred: sp.csr_array, *, k: int
) -> sp.csr_array:
    """The `k` strongest positive entries of `left @ right` in each row, where `barred` has none.

    Computed in blocks of rows, as the whole product may be too large.
    """
    rows = np.flatnonzero(np.diff(left.indptr))
    size = max(CELLS_PER_BLOCK // max(right.shape[1], 1), 1)
    most = min(k, right.shape[1])
    kept_rows, columns, values = (
        [np.empty(0, dtype)] for dtype in (np.int64, np.int64, np.float32)
    )
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        product = (left[block] @ right).toarray().astype(np.float32)
        product[barred[block].nonzero()] = 0.0
        least = np.partition(product, -most, axis=1)[:, -most, None]
        row, column = np.nonzero((product > 0) & (product >= least))
        kept_rows.append(block[row])
        columns.append(column)
        values.append(product[row, column])
    pairs = (np.concatenate(kept_rows), np.concatenate(columns))
    kept = sp.csr_array((np.concatenate(values), pairs), shape=barred.shape)
    return strongest(kept, k)


def strongest(matrix: sp.csr_array, k: int) -> sp.csr_array:
    """Only the `k` largest entries of each row, ties by column.

    Computed in blocks of rows, as sorting takes several times what the entries do.
    """
    ends = np.searchsorted(matrix.indptr, np.arange(0, matrix.nnz, ENTRIES_PER_BLOCK)[1:])
    blocks = []
    for start, end in pairwise(np.unique([0, *ends, matrix.shape[0]])):
        entries = matrix[start:end].tocoo()
        order = best_first(entries.row, entries.col, entries.data)
        blocks.append(entries_where(entries, order[places(entries.row[order]) < k]))
    return sp.csr_array(sp.vstack(blocks, format="csr")) if blocks else matrix


def strongest_eligible(
    matrix: sp.csr_array, eligible: NDArray[np.bool_], *, k: int
) -> sp.csr_array:
    """Of each row the `k` largest entries in eligible columns."""
    entries = matrix.tocoo()
    return strongest(entries_where(entries, eligible[entries.col]), k)


def _count(latest: pl.DataFrame, n_items: int) -> NDArray[np.float64]:
    """(n_items,) how many users each item has, at least one."""
    items = latest.get_column("item").to_numpy()
    return np.maximum(np.bincount(items, minlength=n_items), 1.0)


def _damped(matrix: sp.csr_array, count: NDArray[np.float64], *, first: int = 0) -> sp.csr_array:
    """Rows from the `first` on, without the diagonal, divided by powers of both items' users."""
    entries = matrix.tocoo()
    row = entries.row + first
    divisor = count[row] ** DAMPING[0] * count[entries.col] ** DAMPING[1]
    entries.data = (entries.data / divisor).astype(np.float32)
    return entries_where(entries, row != entries.col)
