from collections import defaultdict
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import AS_OF, ITEMS, USERS, make_snapshot

from index.generators import history
from index.times import due

SHAPE = (USERS, ITEMS)
uses = st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0.01, 40))


def events(rows: list[tuple[int, int, float]]) -> pl.DataFrame:
    dated = [(user, item, AS_OF - timedelta(days=age)) for user, item, age in rows]
    schema = {"user": pl.Int32, "item": pl.Int32, "ts": pl.Datetime("us")}
    return pl.DataFrame(dated, schema, orient="row")


def days_of(rows: list[tuple[int, int, float]]) -> dict[tuple[int, int], list[int]]:
    days = defaultdict(set)
    for user, item, age in rows:
        days[user, item].add(int(timedelta(days=age) / timedelta(days=1)))
    return {pair: sorted(found) for pair, found in days.items()}


@given(st.lists(uses, max_size=30), st.lists(uses, max_size=30))
def test_due_equals_brute_force(
    rows: list[tuple[int, int, float]], others: list[tuple[int, int, float]]
) -> None:
    everybody = defaultdict(list)
    for (_, item), days in days_of(others).items():
        everybody[item] += np.diff(days).tolist()
    expected = np.zeros(SHAPE)
    for (user, item), days in days_of(rows).items():
        gaps = np.diff(days).tolist() or everybody[item]
        if gaps:
            interval, elapsed = np.mean(gaps), days[0]
            expected[user, item] = min(interval, elapsed) / max(interval, elapsed)
    found = due(events(rows), events(others), AS_OF, SHAPE).toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_worked_example() -> None:
    """User 0 uses item 0 every ten days, user 1 used it once, nobody repeated item 1."""
    rows = [(0, 0, 35.5), (0, 0, 25.5), (0, 0, 15.5), (1, 0, 10.5), (1, 1, 10.5), (2, 0, 0.5)]
    found = due(events(rows), events(rows), AS_OF, SHAPE).toarray()
    assert found[0, 0] == pytest.approx(10 / 15)
    assert found[1, 0] == 1.0
    assert found[1, 1] == found[2, 0] == 0.0


def test_what_is_due_now_comes_first_and_what_was_just_used_by_affinity() -> None:
    # Item 3: every ten days, last ten days ago. Item 5: as often, used today. Item 7: once.
    bought = [(0, 3), (0, 3), (0, 5), (0, 5), (0, 7)]
    world = make_snapshot(bought, days_ago=[20.5, 10.5, 10.5, 0.5, 2.5], excluded=[])
    items, scores, _ = history(world, np.array([0], dtype=np.int32), 4)
    affinity = world.affinity.toarray()[0]
    assert affinity[3] < affinity[5]
    assert items[0].tolist() == [3, 5, 7, -1]
    np.testing.assert_allclose(scores[0, 0], affinity[3] + affinity[5])
    np.testing.assert_allclose(scores[0, 1:3], affinity[[5, 7]])
