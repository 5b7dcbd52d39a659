"""Item-to-item matrices and what generators make of them, against brute force."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ITEMS, USERS, make_snapshot

from index import neighbours
from index.candidates import propose
from index.generators import GENERATORS, NEIGHBOURS
from index.store import VectorIndex

pairs = st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1))
worlds = st.lists(pairs, min_size=1, max_size=40)
SHAPE = (USERS, ITEMS)


def events(bought: list[tuple[int, int]]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "item": pl.Int32}
    return pl.DataFrame(bought, schema, orient="row")


def sequences(bought: list[tuple[int, int]]) -> list[list[int]]:
    """Distinct items of each user by their last event, oldest first."""
    found: list[list[int]] = [[] for _ in range(USERS)]
    for user, item in reversed(bought):
        if item not in found[user]:
            found[user].append(item)
    return [items[::-1] for items in found]


def damped(strength: np.ndarray, bought: list[tuple[int, int]]) -> np.ndarray:
    count = np.zeros(ITEMS)
    for _, item in set(bought):
        count[item] += 1
    count = np.maximum(count, 1)
    result = strength / count[:, None] ** 0.5 / count[None, :] ** 0.3
    np.fill_diagonal(result, 0)
    return result


@settings(max_examples=40)
@given(worlds)
def test_cooccurrence_equals_brute_force(bought: list[tuple[int, int]]) -> None:
    strength = np.zeros((ITEMS, ITEMS))
    for items in sequences(bought):
        for a, b in combinations(items, 2):
            strength[a, b] += 1
            strength[b, a] += 1
    found = neighbours.cooccurrence(neighbours.latest_first(events(bought)), SHAPE)
    np.testing.assert_allclose(found.toarray(), damped(strength, bought), rtol=1e-5)


@settings(max_examples=40)
@given(worlds)
def test_directed_equals_brute_force(bought: list[tuple[int, int]]) -> None:
    strength = np.zeros((ITEMS, ITEMS))
    for items in sequences(bought):
        for (place, a), (later, b) in combinations(enumerate(items), 2):
            gap = later - place
            if gap <= neighbours.DIRECTED_GAP:
                strength[a, b] += 1 / gap
                strength[b, a] += neighbours.BACKWARD / gap
    found = neighbours.directed(neighbours.latest_first(events(bought)), SHAPE)
    np.testing.assert_allclose(found.toarray(), damped(strength, bought), rtol=1e-5)


@settings(max_examples=40)
@given(worlds)
def test_ease_equals_the_closed_form(bought: list[tuple[int, int]]) -> None:
    latest = neighbours.latest_first(events(bought))
    x = neighbours.ordered(latest, SHAPE, decay=neighbours.EASE_DECAY).toarray().astype(float)
    inverse = np.linalg.inv(x.T @ x + neighbours.EASE_PENALTY * np.eye(ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    found = neighbours.ease(latest, SHAPE, max_items=ITEMS).toarray()
    np.testing.assert_allclose(found, np.maximum(weights, 0), rtol=1e-3, atol=1e-7)


def test_ease_is_the_least_squares_solution_of_each_item() -> None:
    """Steck's constrained problem solved column by column: ridge without the own item."""
    rng = np.random.default_rng(0)
    bought = [(u, i) for u in range(USERS) for i in range(ITEMS) if rng.uniform() < 0.4]
    latest = neighbours.latest_first(events(bought))
    x = neighbours.ordered(latest, SHAPE, decay=neighbours.EASE_DECAY).toarray().astype(float)
    found = neighbours.ease(latest, SHAPE, max_items=ITEMS).toarray()
    for item in range(ITEMS):
        others = np.delete(np.arange(ITEMS), item)
        a = x[:, others]
        ridge = a.T @ a + neighbours.EASE_PENALTY * np.eye(ITEMS - 1)
        expected = np.linalg.solve(ridge, a.T @ x[:, item])
        np.testing.assert_allclose(
            found[others, item], np.maximum(expected, 0), rtol=1e-3, atol=1e-7
        )


def test_ease_keeps_to_the_commonest_items() -> None:
    bought = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 2), (3, 0), (3, 1)]
    latest = neighbours.latest_first(events(bought))
    few = neighbours.ease(latest, SHAPE, max_items=2).tocoo()
    assert set(few.row) | set(few.col) == {0, 1}


@settings(max_examples=40, deadline=None)
@given(worlds)
def test_two_hops_equal_brute_force(bought: list[tuple[int, int]]) -> None:
    one = neighbours.directed(neighbours.latest_first(events(bought)), SHAPE)
    strength = one.toarray()
    expected = np.zeros((ITEMS, ITEMS))
    for a, b, c in np.ndindex(ITEMS, ITEMS, ITEMS):
        if a != c and strength[a, c] == 0:
            expected[a, c] += strength[a, b] * strength[b, c]
    np.testing.assert_allclose(neighbours.two_hop(one).toarray(), expected, rtol=1e-5)


def test_a_chain_reaches_two_steps_and_no_further() -> None:
    """Users go from 0 to 1, from 1 to 2 and from 2 to 3, each pair of items at once."""
    world = make_snapshot([(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)])
    found = world.two_hop.toarray()
    assert {(int(a), int(b)) for a, b in zip(*found.nonzero(), strict=True)} == {
        (0, 2), (1, 3), (2, 0), (3, 1),
    }  # fmt: skip
    assert found[0, 2] > found[2, 0]


@pytest.mark.parametrize("cells", [1, 50, 10**6])
def test_products_are_cut_to_the_strongest_in_blocks(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "CELLS_PER_BLOCK", cells)
    monkeypatch.setattr(neighbours, "NEIGHBOURS_PER_ITEM", 3)
    rng = np.random.default_rng(5)
    left, right, barred = (rng.poisson(0.7, size=(9, 9)) for _ in range(3))
    left[4] = 0
    product = (left @ right) * (barred == 0)
    expected = np.zeros_like(product)
    for row, values in enumerate(product):
        best = np.lexsort((np.arange(9), -values))[:3]
        expected[row, best] = values[best]
    matrices = [sp.csr_array(m.astype(np.float32)) for m in (left, right, barred)]
    found = neighbours.strongest_products(*matrices)
    np.testing.assert_array_equal(found.toarray(), expected)


def test_similar_is_the_cubed_cosine_without_the_item_itself() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
    index = VectorIndex.build(np.arange(5, dtype=np.int32), vectors)
    found = neighbours.similar(vectors, np.array([0, 1, 4], dtype=np.int32), index).toarray()
    expected = np.zeros((5, 5))
    expected[0, 1], expected[1, 0], expected[1, 2] = 0.6**3, 0.6**3, 0.8**3
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_latest_items_come_first_and_only_once() -> None:
    latest = neighbours.latest_first(events([(0, 3), (0, 4), (1, 5), (0, 3)]))
    assert sorted(latest.rows()) == [(0, 3, 0), (0, 4, 1), (1, 5, 0)]
    weights = neighbours.ordered(latest, SHAPE, decay=0.5)
    assert weights.toarray()[0, [3, 4]].tolist() == [1.0, 0.5]


def test_strongest_keeps_the_largest_of_each_row_ties_by_column() -> None:
    matrix = sp.csr_array(np.array([[1.0, 3, 2], [5, 5, 5]]))
    assert neighbours.strongest(matrix, 2).toarray().tolist() == [[0, 3, 2], [5, 5, 0]]


@pytest.mark.parametrize("name", sorted(NEIGHBOURS))
def test_a_generator_sums_the_strength_of_the_history(name: str) -> None:
    rng = np.random.default_rng(2)
    bought = [(u, i) for u in range(USERS) for i in range(ITEMS) if rng.uniform() < 0.2]
    vectors = rng.normal(size=(ITEMS, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    attributes = {"brand": list("abcabcabcabc"), "category": list("xxyyxxyyxxyy")}
    world = make_snapshot(bought, item_vectors=vectors, attributes=attributes)
    scores = getattr(world, NEIGHBOURS[name]).toarray() @ getattr(world, name).toarray()
    scores[world.excluded.toarray() > 0] = 0
    assert scores.any()
    users = np.arange(USERS, dtype=np.int32)
    items, found, _ = GENERATORS[name](world, users, 3)
    for user in users:
        best = np.lexsort((np.arange(ITEMS), -scores[user]))[:3]
        best = best[scores[user, best] > 0]
        np.testing.assert_allclose(found[user, : len(best)], scores[user, best], rtol=1e-4)
        assert (items[user, len(best) :] == -1).all()
    union = propose(world, users, budgets={name: 3, "popular": ITEMS}, per_user=ITEMS)
    told = union.get_column(f"score_{name}").to_numpy()
    expected = scores[union.get_column("user"), union.get_column("item")]
    np.testing.assert_allclose(told, expected, rtol=1e-4, atol=1e-7)


def test_the_corpus_speaks_of_items_and_the_events_of_users() -> None:
    bought = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    world = make_snapshot(bought, excluded=[])
    limited = make_snapshot(bought, excluded=[], corpus=world.events.head(2))
    assert limited.cooccurrence[0, 1] == pytest.approx(1.0)  # one common user, both seen once
    assert limited.popularity[0] == pytest.approx(2 ** (-1 / 30))
    assert limited.recent[2, 0] == 1.0
