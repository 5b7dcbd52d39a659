"""Compiled loops over the pairs of a shard, each of which passes once over what it reads.

Sums are added in the order of the rows they come from, so that no result depends on how the users
are cut into shards. A user's items are marked in an array as long as the catalogue, that is
cleared by counting on instead of by writing.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from index.compiling import compiled

Places = NDArray[np.int64]
Items = NDArray[np.int32]
Floats = NDArray[np.float32]


class Rows(NamedTuple):
    """A sparse matrix: row r has `values[starts[r]:starts[r + 1]]` in `columns` likewise."""

    starts: Places
    columns: Items
    values: Floats

    @classmethod
    def of(cls, matrix: sp.csr_array) -> "Rows":
        """The same matrix, copied only where its types differ."""
        return cls(
            matrix.indptr.astype(np.int64, copy=False),
            matrix.indices.astype(np.int32, copy=False),
            matrix.data.astype(np.float32, copy=False),
        )


@compiled()
def _reach(history, row, strength, mark, seen, sums, reached):  # type: ignore[no-untyped-def]
    """Add up a row of `history @ strength`; the number of columns reached."""
    count = 0
    for h in range(history.starts[row], history.starts[row + 1]):
        weight, asking = history.values[h], history.columns[h]
        for e in range(strength.starts[asking], strength.starts[asking + 1]):
            column = strength.columns[e]
            if seen[column] != mark:
                seen[column] = mark
                sums[column] = 0.0
                reached[count] = column
                count += 1
            sums[column] += weight * strength.values[e]
    return count


@compiled()
def strongest_reached(history, rows, strength, barred, k):  # type: ignore[no-untyped-def]
    """The `k` largest positive entries of some rows of `history @ strength`, ties by column.

    Args:
        history: `Rows`, (n_rows, n_items).
        rows: (n,) which of its rows.
        strength: `Rows`, (n_items, n_items).
        barred: `Rows`, (n_rows, n_items), of what is left out.
        k: how many.

    Returns:
        Columns (n, k) padded with -1 and values (n, k) padded with -inf, best first.
    """
    n_items = len(strength.starts) - 1
    seen, reached = np.full(n_items, -1, np.int64), np.empty(n_items, np.int32)
    sums, keys = np.zeros(n_items, np.float32), np.empty(n_items, np.uint64)
    bits = sums.view(np.uint32)  # of positive floats they sort as these do
    columns = np.full((len(rows), k), -1, np.int32)
    values = np.full((len(rows), k), -np.inf, np.float32)
    for n in range(len(rows)):
        row = rows[n]
        count = _reach(history, row, strength, n, seen, sums, reached)
        for b in range(barred.starts[row], barred.starts[row + 1]):
            sums[barred.columns[b]] = 0.0
        found = 0
        for column in reached[:count]:
            if sums[column] > 0:
                falling = np.uint64(np.uint32(0xFFFFFFFF) - bits[column])
                keys[found] = falling << np.uint64(32) | np.uint64(column)
                found += 1
        best = keys[:found]
        if found > k:
            best = np.partition(best, k - 1)[:k]
        for place, key in enumerate(np.sort(best)):
            columns[n, place] = np.int32(key & np.uint64(0xFFFFFFFF))
            values[n, place] = sums[columns[n, place]]
    return columns, values


@compiled()
def entries_reached(history, rows, strength, whose, items):  # type: ignore[no-untyped-def]
    """(m,) entries (rows[whose], items) of `history @ strength`.

    `whose` (m,) ascends, and the items of one row are distinct: they are marked, so that of all
    that the row reaches only these are added up.
    """
    marked = np.full(len(strength.starts) - 1, -1, np.int64)
    entries = np.zeros(len(items), np.float32)
    start = 0
    while start < len(items):
        row, end = rows[whose[start]], start
        while end < len(items) and whose[end] == whose[start]:
            marked[items[end]] = end
            end += 1
        for h in range(history.starts[row], history.starts[row + 1]):
            weight, asking = history.values[h], history.columns[h]
            for e in range(strength.starts[asking], strength.starts[asking + 1]):
                place = marked[strength.columns[e]]
                if place >= 0:
                    entries[place] += weight * strength.values[e]
        for place in range(start, end):
            marked[items[place]] = -1
        start = end
    return entries


@compiled(fastmath={"reassoc", "nsz", "contract"})
def products(queries, whose, vectors, items):  # type: ignore[no-untyped-def]
    """(m,) inner products of `queries[whose]` with `vectors[items]`; NaN of a zero query."""
    found = np.empty(len(items), np.float32)
    for p in range(len(items)):
        query, vector = queries[whose[p]], vectors[items[p]]
        total = np.float32(0.0)
        for d in range(len(query)):
            total += query[d] * vector[d]
        found[p] = total if total != 0 or query.any() else np.nan
    return found


@compiled()
def fused(proposed, worth, n_items):  # type: ignore[no-untyped-def]
    """The union of what is proposed to each user, and the order by the sum of its worth.

    Args:
        proposed: (n, c) items, those of all generators side by side, padded with -1.
        worth: (c,) float32 what a place adds.
        n_items: number of items.

    Returns:
        (m,) position of the user and (m,) item, ascending, and (m,) place among the user's, 1 =
        largest sum, ties by item.
    """
    seen, sums = np.full(n_items, -1, np.int64), np.zeros(n_items, np.float32)
    size = np.count_nonzero(proposed >= 0)
    users, union = np.empty(size, np.int64), np.empty(size, np.int64)
    places = np.empty(size, np.int64)
    start = 0
    for n in range(len(proposed)):
        end = start
        for c in range(len(worth)):
            item = proposed[n, c]
            if item < 0:
                continue
            if seen[item] != n:
                seen[item] = n
                sums[item] = 0.0
                users[end], union[end] = n, item
                end += 1
            sums[item] += worth[c]
        union[start:end] = np.sort(union[start:end])
        order = np.argsort(-sums[union[start:end]], kind="mergesort")
        for place in range(end - start):
            places[start + order[place]] = place + 1
        start = end
    return users[:start], union[:start], places[:start]


@compiled()
def ranked(proposed, scores, whose, items, rank, score, n_items):  # type: ignore[no-untyped-def]
    """Write the rank (1 = best) and score of each pair that was proposed.

    Args:
        proposed: (n, k) items of each user, best first, padded with -1.
        scores: (n, k) likewise.
        whose: (m,) position of each pair's user, ascending.
        items: (m,) its item.
        rank: (m,) float32 to write to.
        score: (m,) likewise.
        n_items: number of items.
    """
    seen, pair = np.full(n_items, -1, np.int64), np.empty(n_items, np.int64)
    start = 0
    while start < len(items):
        user, end = whose[start], start
        while end < len(items) and whose[end] == user:
            seen[items[end]], pair[items[end]] = user, end
            end += 1
        for place in range(proposed.shape[1]):
            item = proposed[user, place]
            if item >= 0 and seen[item] == user:
                rank[pair[item]], score[pair[item]] = place + 1, scores[user, place]
        start = end
