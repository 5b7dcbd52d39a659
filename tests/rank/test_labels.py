from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank.labels import happened, labels, sampled

AS_OF = datetime(2024, 5, 1)
TICK = timedelta(microseconds=1)


def make_pairs(users: int, items: int) -> pl.DataFrame:
    grid = np.indices((users, items)).reshape(2, -1).astype(np.int32)
    return pl.DataFrame({"user": grid[0], "item": grid[1]})


def test_label_windows_are_half_open_and_of_one_behaviour() -> None:
    end = AS_OF + timedelta(days=7)
    rows = [
        (0, 1, AS_OF - TICK, "buy"),
        (0, 2, AS_OF, "buy"),
        (0, 2, AS_OF + TICK, "buy"),
        (0, 3, AS_OF + TICK, "view"),
        (1, 4, end - TICK, "buy"),
        (1, 5, end, "buy"),
    ]
    schema = {
        "user": pl.Int32,
        "item": pl.Int32,
        "ts": pl.Datetime("us"),
        "behaviour": pl.Enum(["view", "buy"]),
    }
    events = pl.DataFrame(rows, schema=schema, orient="row")
    targets = happened(events, behaviour="buy", as_of=AS_OF, horizon_days=7)
    assert targets.rows() == [(0, 2), (1, 4)]
    pairs = make_pairs(2, 6).reverse()
    marked = pairs.filter(labels(pairs, targets))
    assert marked.rows() == [(1, 4), (0, 2)]
    following = happened(events, behaviour="buy", as_of=end, horizon_days=7)
    assert following.rows() == [(1, 5)]


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4))), st.randoms())
def test_labels_follow_the_pairs_in_any_order(targets: set[tuple[int, int]], random) -> None:
    grid = [(u, i) for u in range(5) for i in range(5)]
    random.shuffle(grid)
    schema = {"user": pl.Int32, "item": pl.Int32}
    pairs = pl.DataFrame(grid, schema=schema, orient="row")
    wanted = pl.DataFrame(list(targets), schema=schema, orient="row")
    assert labels(pairs, wanted).tolist() == [pair in targets for pair in grid]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_is_binomial(share: float, seed: int) -> None:
    pairs = make_pairs(400, 250)
    drawn = sampled(pairs, share=share, as_of=AS_OF, seed=seed)
    n = len(pairs)
    assert abs(drawn.sum() - n * share) <= 4 * np.sqrt(n * share * (1 - share))
    for axis, size in ((1, 250), (0, 400)):  # evenly over users and over items
        spread = drawn.reshape(400, 250).mean(axis=axis).std()
        assert spread <= 1.25 * np.sqrt(share * (1 - share) / size)


def test_a_draw_does_not_depend_on_the_company() -> None:
    pairs = make_pairs(60, 50)
    options = {"share": 0.3, "as_of": AS_OF, "seed": 3}
    whole = sampled(pairs, **options)
    parts = [sampled(pairs[start : start + 701], **options) for start in range(0, 3000, 701)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(sampled(pairs.reverse(), **options), whole[::-1])
    smaller = sampled(pairs, share=0.1, as_of=AS_OF, seed=3)
    assert not (smaller & ~whole).any()


def test_draws_of_other_windows_and_seeds_are_independent() -> None:
    pairs = make_pairs(200, 100)
    first = sampled(pairs, share=0.3, as_of=AS_OF, seed=3)
    others = [(AS_OF + timedelta(days=7), 3), (AS_OF + timedelta(seconds=1), 3), (AS_OF, 4)]
    for as_of, seed in others:
        both = first & sampled(pairs, share=0.3, as_of=as_of, seed=seed)
        assert abs(both.mean() - 0.09) < 4 * np.sqrt(0.09 * 0.91 / len(pairs))
