"""Row-wise operations on sparse user x item matrices and on padded candidate arrays."""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

PADDING = -1


def pair_keys(
    users: NDArray[np.int32], items: NDArray[np.int32], n_items: int
) -> NDArray[np.int64]:
    """One integer for each (user, item) pair, ordered by user, then item."""
    return users.astype(np.int64) * n_items + items


def contains(
    matrix: sp.csr_array, rows: NDArray[np.int32], columns: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Whether the aligned (row, column) pairs are stored in `matrix`.

    >>> m = sp.csr_array(([True], ([0], [2])), shape=(2, 3))
    >>> contains(m, np.array([0, 1]), np.array([2, 2])).tolist()
    [True, False]
    """
    n_columns = matrix.shape[1]
    coordinates = matrix.tocoo()
    stored = np.sort(pair_keys(coordinates.row, coordinates.col, n_columns))
    asked = pair_keys(np.asarray(rows), np.asarray(columns), n_columns)
    if len(stored) == 0:
        return np.zeros(len(asked), dtype=bool)
    place = np.minimum(np.searchsorted(stored, asked), len(stored) - 1)
    return np.asarray(stored[place] == asked)


def top_k(scores: sp.csr_array, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The `k` highest positive entries of each row, ties by column.

    Returns:
        columns (n, k) padded with -1 and scores (n, k) padded with -inf, best first.

    >>> top_k(sp.csr_array(np.array([[0, 1.0, 3.0], [0, 0, 0]])), k=2)[0].tolist()
    [[2, 1], [-1, -1]]
    """
    coordinates = scores.tocoo()
    positive = coordinates.data > 0
    rows, columns = coordinates.row[positive], coordinates.col[positive]
    values = coordinates.data[positive].astype(np.float32)
    return scatter_top_k(rows, columns, values, n_rows=scores.shape[0], k=k)


def scatter_top_k(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    *,
    n_rows: int,
    k: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """As `top_k`, from aligned (row, column, value) entries in any order."""
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < k
    top_columns = np.full((n_rows, k), PADDING, dtype=np.int32)
    top_values = np.full((n_rows, k), -np.inf, dtype=np.float32)
    top_columns[rows[kept], rank[kept]] = columns[kept]
    top_values[rows[kept], rank[kept]] = values[kept]
    return top_columns, top_values


def compact(
    columns: NDArray[np.int32], values: NDArray[np.float32], keep: NDArray[np.bool_], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Move the kept entries of each row to the front, in order, and cut to `k` with padding.

    >>> keep = np.array([[False, True, True]])
    >>> compact(np.array([[5, 6, 7]]), np.array([[0.9, 0.8, 0.7]]), keep, 2)[0]
    array([[6, 7]], dtype=int32)
    """
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep, order, axis=1)
    moved = np.where(kept, np.take_along_axis(columns, order, axis=1), PADDING)
    scores = np.where(kept, np.take_along_axis(values, order, axis=1), -np.inf)
    return moved.astype(np.int32), scores.astype(np.float32)
