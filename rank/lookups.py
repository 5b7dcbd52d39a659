"""Compiled loops over the pairs of a shard, each of which passes once over what it reads.

Sums are added in one order, whatever the shard: libraries for matrices choose theirs by the
number of rows.
"""

import numpy as np

from rank.compiling import compiled


@compiled(fastmath={"reassoc", "nsz", "contract"})
def _product(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for place in range(len(a)):
        total += a[place] * b[place]
    return total


@compiled()
def products(queries, whose, vectors, items):  # type: ignore[no-untyped-def]
    """Inner products of each pair's item with the queries of its user; NaN where either is zero.

    Args:
        queries: (n_users, q, d) float32.
        whose: (n,) position of each pair's user among them.
        vectors: (n_items, d) float32.
        items: (n,) item of each pair.

    Returns:
        (q, n) float32.
    """
    found = np.full((queries.shape[1], len(items)), np.nan, np.float32)
    asked = np.empty((len(queries), queries.shape[1]), np.bool_)
    for user in range(len(queries)):
        for q in range(queries.shape[1]):
            asked[user, q] = queries[user, q].any()
    for p in range(len(items)):
        user, vector = whose[p], vectors[items[p]]
        if vector.any():  # known from its first number, which is needed anyway
            for q in range(queries.shape[1]):
                if asked[user, q]:
                    found[q, p] = _product(queries[user, q], vector)
    return found


@compiled()
def entries(starts, stored, values, width, rows, columns):  # type: ignore[no-untyped-def]
    """(n,) entries of a sparse matrix, 0 where it has none.

    Args:
        starts: (n_rows + 1,) row r has `values[starts[r]:starts[r + 1]]`.
        stored: their columns.
        values: float32.
        width: number of columns.
        rows: (n,) those of a row together.
        columns: (n,) likewise.
    """
    seen, sums = np.full(width, -1, np.int64), np.zeros(width, np.float32)
    found = np.zeros(len(rows), np.float32)
    row = -1
    for p in range(len(rows)):
        if rows[p] != row:
            row = rows[p]
            for e in range(starts[row], starts[row + 1]):
                if seen[stored[e]] != row:
                    seen[stored[e]], sums[stored[e]] = row, 0.0
                sums[stored[e]] += values[e]
        if seen[columns[p]] == row:
            found[p] = sums[columns[p]]
    return found
