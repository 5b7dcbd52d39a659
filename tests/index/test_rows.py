import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from index.rows import best_first, contains, top_k

worlds = st.tuples(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 8), st.integers(1, 10))


def counts(seed: int, rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.7, size=(rows, columns)).astype(np.float32)


@given(worlds)
def test_top_k_equals_sorting(world: tuple[int, int, int, int]) -> None:
    seed, rows, columns, k = world
    dense = counts(seed, rows, columns)
    found, scores = top_k(sp.csr_array(dense), k)
    for row in range(rows):
        order = sorted((-value, column) for column, value in enumerate(dense[row]) if value > 0)
        expected = [column for _, column in order][:k]
        assert found[row].tolist() == expected + [-1] * (k - len(expected))
        assert scores[row, : len(expected)].tolist() == dense[row, expected].tolist()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.floats(-2, 2, width=16))))
def test_best_first_equals_three_sorts(entries: list[tuple[int, int, float]]) -> None:
    rows, columns, values = np.array(entries, dtype=np.float32).reshape(-1, 3).T
    rows, columns = rows.astype(np.int32), columns.astype(np.int64)
    expected = np.lexsort((columns, -values, rows))
    assert best_first(rows, columns, values).tolist() == expected.tolist()


@given(worlds)
def test_contains_equals_dense_lookup(world: tuple[int, int, int, int]) -> None:
    seed, rows, columns, _ = world
    dense = counts(seed, rows, columns)
    row, column = (a.ravel() for a in np.indices(dense.shape))
    asked = contains(sp.csr_array(dense), row, column)
    assert asked.tolist() == (dense.ravel() > 0).tolist()
