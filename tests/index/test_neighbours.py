"""Item-to-item matrices and what generators make of them, against brute force."""

from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits
from worlds import AS_OF, ITEMS, USERS, make_snapshot

from index import neighbours
from index.candidates import propose
from index.generators import GENERATORS, NEIGHBOURS
from index.rows import unit_rows

pairs = st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1))
worlds = st.lists(pairs, min_size=1, max_size=40)
SHAPE = (USERS, ITEMS)
MANY = 200  # neighbours of an item: more than there are


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


@pytest.mark.parametrize("entries", [1, 7, neighbours.ENTRIES_PER_BLOCK])
@settings(max_examples=40)
@given(worlds)
def test_cooccurrence_equals_brute_force(entries: int, bought: list[tuple[int, int]]) -> None:
    strength = np.zeros((ITEMS, ITEMS))
    for items in sequences(bought):
        for a, b in combinations(items, 2):
            strength[a, b] += 1
            strength[b, a] += 1
    latest, every = neighbours.latest_first(events(bought)), np.ones(ITEMS, dtype=bool)
    with patch.object(neighbours, "ENTRIES_PER_BLOCK", entries):
        found = neighbours.cooccurrence(latest, SHAPE, every, k=MANY)
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
    found = neighbours.ease(latest, SHAPE, max_items=ITEMS, k=MANY).toarray()
    np.testing.assert_allclose(found, np.maximum(weights, 0), rtol=1e-3, atol=1e-7)


def test_ease_is_the_least_squares_solution_of_each_item() -> None:
    """Steck's constrained problem solved column by column: ridge without the own item."""
    rng = np.random.default_rng(0)
    bought = [(u, i) for u in range(USERS) for i in range(ITEMS) if rng.uniform() < 0.4]
    latest = neighbours.latest_first(events(bought))
    x = neighbours.ordered(latest, SHAPE, decay=neighbours.EASE_DECAY).toarray().astype(float)
    found = neighbours.ease(latest, SHAPE, max_items=ITEMS, k=MANY).toarray()
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
    few = neighbours.ease(latest, SHAPE, max_items=2, k=MANY).tocoo()
    assert set(few.row) | set(few.col) == {0, 1}


def test_ease_is_the_same_for_one_and_two_threads() -> None:
    rng, items = np.random.default_rng(0), 1000
    latest = neighbours.latest_first(
        pl.DataFrame(
            rng.integers(0, items, (20_000, 2)), {"user": pl.Int32, "item": pl.Int32}, orient="row"
        )
    )
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            found.append(neighbours.ease(latest, (items, items), max_items=items, k=MANY))
    assert (found[0] != found[1]).nnz == 0


@settings(max_examples=40)
@given(worlds)
def test_two_hops_equal_brute_force(bought: list[tuple[int, int]]) -> None:
    one = neighbours.directed(neighbours.latest_first(events(bought)), SHAPE)
    strength = one.toarray()
    expected = np.zeros((ITEMS, ITEMS))
    for a, b, c in np.ndindex(ITEMS, ITEMS, ITEMS):
        if a != c and strength[a, c] == 0:
            expected[a, c] += strength[a, b] * strength[b, c]
    np.testing.assert_allclose(neighbours.two_hop(one, k=MANY).toarray(), expected, rtol=1e-5)


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
    rng = np.random.default_rng(5)
    left, right, barred = (rng.poisson(0.7, size=(9, 9)) for _ in range(3))
    left[4] = 0
    product = (left @ right) * (barred == 0)
    expected = np.zeros_like(product)
    for row, values in enumerate(product):
        best = np.lexsort((np.arange(9), -values))[:3]
        expected[row, best] = values[best]
    matrices = [sp.csr_array(m.astype(np.float32)) for m in (left, right, barred)]
    found = neighbours.strongest_products(*matrices, k=3)
    np.testing.assert_array_equal(found.toarray(), expected)


def test_similar_is_the_cubed_cosine_without_the_item_itself() -> None:
    """Too few texts to be whitened; item 1 may not be proposed, but has an event."""
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
    eligible = np.array([True, False, True, True, True])
    world = make_snapshot([(0, 1)], shape=(2, 5), item_vectors=vectors, eligible=eligible)
    expected = np.zeros((5, 5))
    expected[1, 0], expected[1, 2] = 0.6, 0.8
    np.testing.assert_allclose(world.text_neighbours.toarray(), expected, atol=1e-6)
    np.testing.assert_allclose(world.similar.toarray(), expected**3, atol=1e-6)


def texts(n: int, *, seed: int) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32))


def test_text_neighbours_are_the_nearest_twenty_of_every_item_that_is_known() -> None:
    n, rng = 90, np.random.default_rng(8)
    eligible, textless = rng.uniform(size=n) < 0.8, rng.uniform(size=n) < 0.1
    vectors = np.where(textless[:, None], np.float32(0), texts(n, seed=8))
    used = [(0, int(item)) for item in np.flatnonzero(~eligible)[:3]]
    world = make_snapshot(used, shape=(2, n), item_vectors=vectors, eligible=eligible)
    cosine = world.whitened_items.astype(float) @ world.whitened_items.T
    np.fill_diagonal(cosine, 0)
    cosine[:, ~eligible] = 0
    cosine[[i for i in np.flatnonzero(~eligible) if (0, i) not in used]] = 0
    least = np.sort(cosine, axis=1)[:, -20, None]
    expected = np.where((cosine > 0) & (cosine >= least), cosine, 0)
    np.testing.assert_allclose(world.text_neighbours.toarray(), expected, atol=1e-6)
    assert (np.diff(world.text_neighbours.indptr)[eligible & ~textless] == 20).all()


def test_one_and_two_threads_find_the_same_text_neighbours() -> None:
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            world = make_snapshot([(0, 1)], shape=(2, 3000), item_vectors=texts(3000, seed=9))
            found.append(world.text_neighbours)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(*(getattr(matrix, name) for matrix in found))


def test_items_that_are_not_known_move_no_text_neighbour() -> None:
    vectors, places = texts(80, seed=10), np.sort(np.random.default_rng(0).permutation(130)[:80])
    more = texts(130, seed=11)
    more[places] = vectors
    alone = make_snapshot([(0, 3)], shape=(2, 80), item_vectors=vectors)
    among = make_snapshot(
        [(0, int(places[3]))],
        shape=(2, 130),
        item_vectors=more,
        eligible=np.isin(np.arange(130), places),
    )
    found = among.text_neighbours.toarray()
    np.testing.assert_array_equal(found[np.ix_(places, places)], alone.text_neighbours.toarray())
    assert found.astype(bool).sum() == alone.text_neighbours.nnz


def test_the_latest_items_come_first_and_only_once() -> None:
    latest = neighbours.latest_first(events([(0, 3), (0, 4), (1, 5), (0, 3)]))
    assert sorted(latest.rows()) == [(0, 3, 0), (0, 4, 1), (1, 5, 0)]
    weights = neighbours.ordered(latest, SHAPE, decay=0.5)
    assert weights.toarray()[0, [3, 4]].tolist() == [1.0, 0.5]


def test_a_step_is_a_history_and_what_followed() -> None:
    """0 bought 3, 4 and 5 in this order; of 1, who bought one item, nothing can be learnt."""
    latest = neighbours.latest_first(events([(0, 3), (0, 4), (1, 5), (0, 5)]))
    (half, whole), following = neighbours.steps(latest, 6, decays=(0.5, 1.0), newest=9)
    told = {int(item): row.tolist() for item, row in zip(following, half.toarray(), strict=True)}
    assert told == {5: [0, 0, 0, 0.5, 1, 0], 4: [0, 0, 0, 1, 0, 0]}
    assert (whole.toarray() == (half.toarray() > 0)).all()
    _, newest = neighbours.steps(latest, 6, decays=(0.5,), newest=1)
    assert newest.tolist() == [5]


def test_each_model_is_asked_by_the_history_as_it_weighs_it() -> None:
    """0 bought item 0, then item 1; the texts of both are at right angles."""
    texts = np.eye(2, 4, dtype=np.float32)
    world = make_snapshot([(0, 0), (0, 1)], shape=(2, 2), item_vectors=texts)
    asks = ((0.5, texts), (0.0, 2 * texts), (1.0, 0 * texts))
    found = replace(world, asks=asks).questions(np.arange(2, dtype=np.int32))
    parts = [np.array([1, 2, 0, 0]) / 5**0.5, np.array([0, 1, 0, 0]), np.zeros(4)]
    np.testing.assert_allclose(found[0], [*np.hstack(parts) / 2**0.5, 1], rtol=1e-6)
    assert not found[1].any()


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


@pytest.mark.parametrize("name", sorted(NEIGHBOURS))
def test_so_many_neighbours_of_an_item_are_kept_the_strongest(name: str) -> None:
    rng = np.random.default_rng(2)
    bought = [(u, i) for u in range(USERS) for i in range(ITEMS) if rng.uniform() < 0.2]
    vectors = unit_rows(rng.normal(size=(ITEMS, 4)).astype(np.float32))
    attributes = {"brand": list("abcabcabcabc"), "category": list("xxyyxxyyxxyy")}
    world = make_snapshot(bought, item_vectors=vectors, attributes=attributes)
    few = replace(world, weights=replace(world.weights, neighbours_per_item=4))
    k = 2 if name == "similar" else 4  # texts have half as many
    kept = getattr(few, name)
    assert (np.diff(getattr(world, name).indptr) > k).any()
    assert np.diff(kept.indptr).max() == k
    if name not in ("two_hop", "kinds"):  # of fewer neighbours, or of those of each value
        whole = neighbours.strongest(getattr(world, name), k)
        np.testing.assert_allclose(kept.toarray(), whole.toarray(), rtol=1e-5)


def test_the_corpus_speaks_of_items_and_the_events_of_users() -> None:
    bought = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    world = make_snapshot(bought, excluded=[])
    limited = make_snapshot(bought, excluded=[], corpus=world.events.head(2))
    assert limited.cooccurrence[0, 1] == pytest.approx(1.0)  # one common user, both seen once
    assert limited.popularity[0] == pytest.approx(2 ** (-1 / 30))
    assert limited.recent[2, 0] == 1.0


def test_demand_is_everybodys_affinity_by_the_corpus() -> None:
    world = make_snapshot([(0, 0), (0, 1), (1, 0), (2, 0)], days_ago=[30, 60, 90, 1], excluded=[])
    np.testing.assert_allclose(world.demand[:3], [4 * (2**-1 + 2**-3 + 2 ** (-1 / 30)), 1, 0])
    assert world.item_affinity is world.affinity
    early = world.events.filter(pl.col("ts") < AS_OF - timedelta(days=20))
    limited = make_snapshot([(2, 0)], days_ago=[1], corpus=early)
    np.testing.assert_allclose(limited.demand[:3], [4 * (2**-1 + 2**-3), 1, 0])
    assert limited.item_affinity[[2]].sum() == 0
