"""Compiled loops over the pairs of a shard, each of which passes once over what it reads.

Sums are added in the order of the rows they come from, so that no result depends on how the users
are cut into shards. A user's items are marked in an array as long as the catalogue, that is
cleared by counting on instead of by writing.
"""

from heapq import heappop, heappush, heapreplace
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
def first_allowed(items, scores, rows, barred, k, n_items):  # type: ignore[no-untyped-def]
    """The first `k` items of each list that are not barred, and their scores.

    Args:
        items: (n, m), padded with -1 anywhere.
        scores: (n, m) float32.
        rows: (n,) the row of `barred` for each list.
        barred: `Rows`, (n_rows, n_items).
        k: how many.
        n_items: number of items.

    Returns:
        Items (n, k) padded with -1 and scores (n, k) padded with -inf.
    """
    left_out = np.full(n_items, -1, np.int64)
    columns = np.full((len(rows), k), -1, np.int32)
    values = np.full((len(rows), k), -np.inf, np.float32)
    for n in range(len(rows)):
        for b in range(barred.starts[rows[n]], barred.starts[rows[n] + 1]):
            left_out[barred.columns[b]] = n
        found = 0
        for place in range(items.shape[1]):
            if found == k:
                break
            item = items[n, place]
            if item >= 0 and left_out[item] != n:
                columns[n, found], values[n, found] = item, scores[n, place]
                found += 1
    return columns, values


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
    sums = np.zeros(len(strength.starts) - 1, np.float32)
    columns = np.full((len(rows), k), -1, np.int32)
    values = np.full((len(rows), k), -np.inf, np.float32)
    # As integers, the bits of positive floats sort as these do, and those of others are below.
    bits, value_bits = sums.view(np.int32), values.view(np.int32)
    low = np.int64(0xFFFFFFFF)
    best = [low]  # a heap of a sum's bits and, falling, its column: the least is the first
    best.clear()  # a list has its type by what was in it
    for n in range(len(rows)):
        row = rows[n]
        for h in range(history.starts[row], history.starts[row + 1]):
            weight, asking = history.values[h], history.columns[h]
            for e in range(strength.starts[asking], strength.starts[asking + 1]):
                sums[strength.columns[e]] += weight * strength.values[e]
        for b in range(barred.starts[row], barred.starts[row + 1]):
            sums[barred.columns[b]] = 0.0
        least = np.int32(1)
        for h in range(history.starts[row], history.starts[row + 1]):
            asking = history.columns[h]
            for e in range(strength.starts[asking], strength.starts[asking + 1]):
                column = strength.columns[e]
                if bits[column] >= least:
                    key = np.int64(bits[column]) << 32 | (low - column)
                    if len(best) < k:
                        heappush(best, key)
                    elif key > best[0]:
                        heapreplace(best, key)
                    if len(best) == k:
                        least = np.int32(best[0] >> 32)
                sums[column] = 0.0  # met again where several ask for it
        for place in range(len(best) - 1, -1, -1):
            key = heappop(best)
            columns[n, place], value_bits[n, place] = low - (key & low), key >> 32
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
    # As integers, the bits of positive floats sort as these do.
    bits, low = sums.view(np.int32), np.int64(0xFFFFFFFF)
    size = 0
    for item in proposed.flat:
        size += item >= 0
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
        union[start:end].sort()
        order = np.empty(end - start, np.int64)  # the sum, falling, and where its item is
        for place in range(end - start):
            order[place] = -np.int64(bits[union[start + place]]) << 32 | place
        order.sort()
        for place in range(end - start):
            places[start + (order[place] & low)] = place + 1
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
