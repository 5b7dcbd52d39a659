"""Compiled loops against numpy and scipy."""

import numpy as np
import pytest
import scipy.sparse as sp

from rank.lookups import entries, means, products

RNG = np.random.default_rng(5)
WIDTH, USERS, ITEMS = 257, 60, 50
QUERIES = RNG.normal(size=(USERS, 2, WIDTH)).astype(np.float32)
VECTORS, ASKS = RNG.normal(size=(2, ITEMS, WIDTH)).astype(np.float32)
LATEST = RNG.integers(-1, ITEMS, (USERS, 5)).astype(np.int32)
QUERIES[2, 1], QUERIES[3], LATEST[3], VECTORS[7], ASKS[9] = 0, 0, -1, 0, 0
WHOSE, WHICH = (axis.ravel() for axis in np.indices((USERS, ITEMS)))


def test_products_equal_float64_and_are_unknown_where_either_is_zero() -> None:
    latest = np.where((LATEST >= 0)[..., None], ASKS[LATEST], 0)
    queries = np.concatenate([QUERIES, latest], axis=1).astype(np.float64)
    expected = np.einsum("uqd,id->qui", queries, VECTORS)
    expected[(~queries.any(axis=2)).T] = expected[..., 7] = np.nan
    found = products(QUERIES, LATEST, ASKS, WHOSE, VECTORS, WHICH)
    np.testing.assert_allclose(found, expected.reshape(7, -1), atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 59])
def test_products_are_the_same_bits_in_every_shard(size: int) -> None:
    whole = products(QUERIES, LATEST, ASKS, WHOSE, VECTORS, WHICH)
    for start in range(0, USERS, size):
        mine, cut = WHOSE // size == start // size, slice(start, start + size)
        shard, latest = QUERIES[cut].copy(), LATEST[cut].copy()
        alone = products(shard, latest, ASKS, WHOSE[mine] - start, VECTORS, WHICH[mine])
        np.testing.assert_array_equal(alone, whole[:, mine])


@pytest.mark.parametrize("width", [1, 15, 256, WIDTH])
def test_products_are_the_same_bits_whichever_pairs_and_queries_are_beside(width: int) -> None:
    queries, asks, vectors = (x[..., :width].copy() for x in (QUERIES, ASKS, VECTORS))
    whole = products(queries, LATEST, asks, WHOSE, vectors, WHICH)
    some = RNG.random(len(WHICH)) < 0.3
    fewer = products(queries[:, 1:].copy(), LATEST, asks, WHOSE[some], vectors, WHICH[some])
    np.testing.assert_array_equal(fewer, whole[1:, some])


def test_means_are_of_what_is_known() -> None:
    rows = RNG.normal(size=(5, 40)).astype(np.float32)
    rows[RNG.random(rows.shape) < 0.5] = np.nan
    rows[:, 3] = np.nan
    expected = [np.mean(c[~np.isnan(c)]) if not np.isnan(c).all() else np.nan for c in rows.T]
    np.testing.assert_allclose(means(rows), expected, rtol=1e-5, atol=1e-6)


def test_entries_equal_the_dense_matrix_also_where_they_are_stored_twice() -> None:
    rows, columns = RNG.integers(0, USERS, 300), RNG.integers(0, ITEMS, 300)
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.arange(USERS + 1))
    values = RNG.integers(1, 9, 300).astype(np.float32)
    dense = sp.coo_array((values, (rows[order], columns[order])), shape=(USERS, ITEMS)).toarray()
    found = entries(starts, columns[order], values, ITEMS, WHOSE, WHICH)
    np.testing.assert_array_equal(found, dense.ravel())
