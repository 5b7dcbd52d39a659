"""Compiled loops against numpy and scipy."""

import numpy as np
import pytest
import scipy.sparse as sp

from rank.lookups import entries, products

RNG = np.random.default_rng(5)
WIDTH, USERS, ITEMS = 384, 60, 50
QUERIES = RNG.normal(size=(USERS, 6, WIDTH)).astype(np.float32)
VECTORS = RNG.normal(size=(ITEMS, WIDTH)).astype(np.float32)
QUERIES[2, 1], QUERIES[3, :5], VECTORS[7] = 0, 0, 0
WHOSE, WHICH = (axis.ravel() for axis in np.indices((USERS, ITEMS)))


def test_products_equal_float64_and_are_unknown_where_either_is_zero() -> None:
    expected = np.einsum("uqd,id->qui", QUERIES.astype(np.float64), VECTORS)
    expected[1, 2] = expected[:5, 3] = expected[..., 7] = np.nan
    found = products(QUERIES, WHOSE, VECTORS, WHICH)
    np.testing.assert_allclose(found, expected.reshape(6, -1), atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 59])
def test_products_are_the_same_bits_in_every_shard(size: int) -> None:
    whole = products(QUERIES, WHOSE, VECTORS, WHICH)
    for start in range(0, USERS, size):
        mine = WHOSE // size == start // size
        shard = QUERIES[start : start + size].copy()
        alone = products(shard, WHOSE[mine] - start, VECTORS, WHICH[mine])
        np.testing.assert_array_equal(alone, whole[:, mine])


def test_entries_equal_the_dense_matrix_also_where_they_are_stored_twice() -> None:
    rows, columns = RNG.integers(0, USERS, 300), RNG.integers(0, ITEMS, 300)
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.arange(USERS + 1))
    values = RNG.integers(1, 9, 300).astype(np.float32)
    dense = sp.coo_array((values, (rows[order], columns[order])), shape=(USERS, ITEMS)).toarray()
    found = entries(starts, columns[order], values, ITEMS, WHOSE, WHICH)
    np.testing.assert_array_equal(found, dense.ravel())
