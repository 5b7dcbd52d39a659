import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits
from worlds import ITEMS, USERS, make_snapshot

from index.factors import item_factors
from index.neighbours import latest_first

pairs = st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1))


def latest(bought: list[tuple[int, int]]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "item": pl.Int32}
    return latest_first(pl.DataFrame(bought, schema, orient="row"))


def damped(bought: list[tuple[int, int]]) -> np.ndarray:
    used = np.zeros((USERS, ITEMS))
    used[tuple(np.array(bought).T)] = 1.0
    of_user, of_item = (np.maximum(used.sum(axis=axis), 1) for axis in (1, 0))
    return used / of_user[:, None] ** 0.5 / of_item[None, :] ** 0.3


@settings(max_examples=30)
@given(st.lists(pairs, min_size=1, max_size=50))
def test_with_all_factors_products_are_those_of_the_columns(bought: list[tuple[int, int]]) -> None:
    matrix = damped(bought)
    found = item_factors(latest(bought), ITEMS)
    np.testing.assert_allclose(found @ found.T, matrix.T @ matrix, atol=1e-5)


def test_fewer_factors_are_the_leading_ones_of_the_exact_decomposition() -> None:
    rng = np.random.default_rng(3)
    bought = [(u, i) for u in range(USERS) for i in range(ITEMS) if rng.uniform() < 0.5]
    _, strength, directions = np.linalg.svd(damped(bought))
    exact = directions[:3].T * strength[:3]
    found = item_factors(latest(bought), ITEMS, factors=3)
    np.testing.assert_allclose(found @ found.T, exact @ exact.T, atol=1e-4)


def test_users_and_items_without_events_do_not_move_a_bit() -> None:
    rng = np.random.default_rng(4)
    bought = [(u, i) for u in range(USERS) for i in range(ITEMS) if rng.uniform() < 0.4]
    spread = [(2 * u + 1, 3 * i + 2) for u, i in bought]
    near, far = item_factors(latest(bought), ITEMS), item_factors(latest(spread), 3 * ITEMS + 9)
    np.testing.assert_array_equal(far[2 : 3 * ITEMS : 3], near)
    assert np.count_nonzero(far.any(axis=1)) == np.count_nonzero(near.any(axis=1))


def test_the_newest_events_count_without_a_new_decomposition() -> None:
    """Two groups of items; a user whose first event is not in the corpus is served at once."""
    bought = [(u, i) for u in range(8) for i in range(ITEMS) if i % 2 == u % 2 and i != u + 2]
    corpus = make_snapshot(bought).events
    world = make_snapshot([*bought, (9, 4)], excluded=[(9, 4)], corpus=corpus)
    strength = world.factors[[4]].toarray()[0]
    found = item_factors(latest_first(corpus), ITEMS)
    expected = np.where(np.arange(ITEMS) == 4, 0, np.maximum(found @ found[4], 0))
    np.testing.assert_allclose(strength, expected, atol=1e-6)
    assert strength[::2].sum() > 10 * strength[1::2].sum()


def test_one_and_two_threads_find_the_same() -> None:
    rng = np.random.default_rng(0)
    schema = {"user": pl.Int32, "item": pl.Int32}
    pairs = pl.DataFrame(rng.integers(0, 2000, (20_000, 2)), schema, orient="row")
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            found.append(item_factors(latest_first(pairs), 2000))
    assert np.array_equal(*found)
