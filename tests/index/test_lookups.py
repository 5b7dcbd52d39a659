"""Compiled loops against numpy and scipy."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from index.lookups import (
    Rows,
    entries_reached,
    first_allowed,
    fused,
    products,
    ranked,
    strongest_reached,
)
from index.rows import top_k

USERS, ITEMS = 9, 30


def random_matrix(rng: np.random.Generator, shape: tuple[int, int]) -> sp.csr_array:
    """Few distinct values of both signs, so that sums tie and cancel."""
    values = rng.choice([0, 0, 0, 1, 2, -1], size=shape).astype(np.float32)
    return sp.csr_array(values)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, ITEMS + 3))
def test_the_strongest_reached_are_those_of_the_product(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    history, barred = (random_matrix(rng, (USERS, ITEMS)) for _ in range(2))
    strength = random_matrix(rng, (ITEMS, ITEMS))
    users = np.sort(rng.choice(USERS, 5, replace=False)).astype(np.int32)
    product = (history[users] @ strength).toarray()
    allowed = np.where(barred[users].toarray() != 0, 0, product)
    columns, values = top_k(sp.csr_array(allowed), k)
    matrices = (Rows.of(history), users, Rows.of(strength))
    found = strongest_reached(*matrices, Rows.of(barred), k)
    np.testing.assert_array_equal(found[0], columns)
    np.testing.assert_array_equal(found[1], values)
    whose, items = (axis.ravel() for axis in np.indices(product.shape))
    np.testing.assert_array_equal(
        entries_reached(*matrices, whose, items).reshape(product.shape), product
    )


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, ITEMS + 3))
def test_the_first_allowed_are_those_that_a_set_leaves(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    barred = random_matrix(rng, (USERS, ITEMS))
    users = np.sort(rng.choice(USERS, 5, replace=False)).astype(np.int32)
    items = np.stack([rng.permutation(ITEMS)[:12] for _ in users]).astype(np.int32)
    items[rng.random(items.shape) < 0.2] = -1
    scores = rng.random(items.shape).astype(np.float32)
    columns, values = first_allowed(items, scores, users, Rows.of(barred), k, ITEMS)
    for row, user in enumerate(users):
        never = {-1, *barred[[user]].nonzero()[1].tolist()}
        kept = [place for place, item in enumerate(items[row]) if item not in never][:k]
        assert columns[row].tolist() == items[row, kept].tolist() + [-1] * (k - len(kept))
        assert values[row].tolist() == scores[row, kept].tolist() + [-np.inf] * (k - len(kept))


def test_products_are_inner_products_and_unknown_of_a_zero_query() -> None:
    rng = np.random.default_rng(0)
    queries, vectors = (rng.normal(size=(n, 7)).astype(np.float32) for n in (USERS, ITEMS))
    queries[4] = 0
    vectors[3] = 0
    whose, items = (axis.ravel() for axis in np.indices((USERS, ITEMS)))
    expected = queries.astype(np.float64) @ vectors.T
    expected[4] = np.nan
    np.testing.assert_allclose(
        products(queries, whose, vectors, items), expected.ravel(), atol=1e-5
    )


@pytest.mark.parametrize("seed", range(5))
def test_fusion_and_ranks_equal_a_dictionary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = [
        np.stack([rng.permutation(ITEMS)[:k] for _ in range(USERS)]).astype(np.int32)
        for k in (4, 6)
    ]
    lists[0][2, 1:] = -1
    worth = np.concatenate([1 / (60 + np.arange(1, k + 1, dtype=np.float32)) for k in (4, 6)])
    rows, items, places = fused(np.hstack(lists), worth, ITEMS)
    expected = []
    for user in range(USERS):
        sums: dict[int, np.float32] = {}
        for item, more in zip(np.hstack(lists)[user], worth, strict=True):
            if item >= 0:
                sums[item] = sums.get(item, np.float32(0)) + more
        order = sorted(sums, key=lambda item: (-sums[item], item))
        expected += [(user, item, order.index(item) + 1) for item in sorted(sums)]
    assert list(zip(rows.tolist(), items.tolist(), places.tolist(), strict=True)) == expected
    scores = rng.normal(size=lists[1].shape).astype(np.float32)
    rank, score = (np.full(len(rows), np.nan, np.float32) for _ in range(2))
    ranked(lists[1], scores, rows, items, rank, score, ITEMS)
    for n, (user, item) in enumerate(zip(rows, items, strict=True)):
        place = np.flatnonzero(lists[1][user] == item)
        np.testing.assert_array_equal(rank[n], place[0] + 1 if len(place) else np.nan)
        np.testing.assert_array_equal(score[n], scores[user, place[0]] if len(place) else np.nan)
