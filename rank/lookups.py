"""Compiled loops over the pairs of a shard, each of which passes once over what it reads.

Sums are added in one order, whatever the shard: libraries for matrices choose theirs by the
number of rows.
"""

import numpy as np

from rank.compiling import compiled, prefetch

LINE = 16  # float32 that come from memory at once


@compiled(fastmath={"reassoc", "nsz", "contract"})
def _eight(q, r, a, b, c, d):  # type: ignore[no-untyped-def]
    """Two queries by four vectors: what is loaded once serves four products or two."""
    qa = qb = qc = qd = ra = rb = rc = rd = np.float32(0.0)
    for place in range(len(q)):
        qa += q[place] * a[place]
        qb += q[place] * b[place]
        qc += q[place] * c[place]
        qd += q[place] * d[place]
        ra += r[place] * a[place]
        rb += r[place] * b[place]
        rc += r[place] * c[place]
        rd += r[place] * d[place]
    return (qa, qb, qc, qd), (ra, rb, rc, rd)


@compiled(fastmath={"reassoc", "nsz", "contract"})
def _blank(vector):  # type: ignore[no-untyped-def]
    """Whether all numbers are zero: their sum is made of eight at a time, `any` looks at one."""
    total = np.float32(0.0)
    for place in range(len(vector)):
        total += abs(vector[place])
    return total == 0


@compiled()
def _ask(queries, latest, asks, user, asking, which):  # type: ignore[no-untyped-def]
    """Copy the user's queries that are not zero, and where they stand; how many."""
    count, fixed = 0, queries.shape[1]
    for q in range(len(which)):
        if q >= fixed and latest[user, q - fixed] < 0:
            continue
        query = queries[user, q] if q < fixed else asks[latest[user, q - fixed]]
        if not _blank(query):
            for place in range(len(query)):
                asking[count, place] = query[place]
            which[count] = q
            count += 1
    return count


@compiled()
def _fetch(vectors, items, start, part, parts):  # type: ignore[no-untyped-def]
    """Have a part of the next four vectors come from memory while others are multiplied."""
    width = vectors.shape[1]
    first, last = width * part // parts, width * (part + 1) // parts
    for p in range(start, min(start + 4, len(items))):
        for place in range(first, last, LINE):
            prefetch(vectors, items[p], place)


@compiled()
def _multiply(asking, which, count, vectors, items, start, stop, found):  # type: ignore[no-untyped-def]
    """Write the products of a user's queries with the items of up to four pairs."""
    a, last = start, stop - 1  # the last fills up the four, and is written twice then
    b, c, d = min(a + 1, last), min(a + 2, last), min(a + 3, last)
    v, w, x, y = vectors[items[a]], vectors[items[b]], vectors[items[c]], vectors[items[d]]
    for q in range(0, count, 2):
        r = min(q + 1, count - 1)
        _fetch(vectors, items, stop, q // 2, (count + 1) // 2)
        one, two = _eight(asking[q], asking[r], v, w, x, y)
        k, m = which[q], which[r]
        found[k, a], found[k, b], found[k, c], found[k, d] = one
        found[m, a], found[m, b], found[m, c], found[m, d] = two
    for p in range(start, stop):
        if vectors[items[p], 0] == 0 and _blank(vectors[items[p]]):
            found[:, p] = np.nan


@compiled()
def products(queries, latest, asks, whose, vectors, items):  # type: ignore[no-untyped-def]
    """Inner products of each pair's item with the queries of its user; NaN where either is zero.

    Arrays whose rows are not contiguous take several times as long.

    Args:
        queries: (n_users, f, d) float32.
        latest: (n_users, l) further queries, by their rows in `asks`; negative: there is none.
        asks: (n_asks, d) float32.
        whose: (n,) position of each pair's user among them, those of a user together.
        vectors: (n_items, d) float32.
        items: (n,) item of each pair.

    Returns:
        (f + l, n) float32.
    """
    which = np.empty(queries.shape[1] + latest.shape[1], np.int64)
    asking = np.empty((len(which), queries.shape[2]), np.float32)
    found = np.full((len(which), len(items)), np.nan, np.float32)
    start = end = 0
    while start < len(items):
        while end < len(items) and whose[end] == whose[start]:
            end += 1
        count = _ask(queries, latest, asks, whose[start], asking, which)
        for p in range(start, end, 4):
            _multiply(asking, which, count, vectors, items, p, min(p + 4, end), found)
        start = end
    return found


@compiled()
def means(rows):  # type: ignore[no-untyped-def]
    """(n,) means of what is known in each column of (r, n) float32; NaN where nothing is."""
    total = np.zeros(rows.shape[1], np.float32)
    count = np.zeros(rows.shape[1], np.float32)
    for row in rows:
        for p in range(len(row)):
            known = row[p] == row[p]
            total[p] += row[p] if known else np.float32(0.0)
            count[p] += np.float32(known)
    return total / count


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
