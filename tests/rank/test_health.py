"""Ranges seen in training, and what lies outside of them or is not known."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from growing import PARAMETERS as GROWN

from rank.examples import Example
from rank.health import count, seen_range, shares
from rank.trees import grow

PARAMETERS = replace(
    GROWN, num_leaves=4, min_rows_per_leaf=5, max_rounds=5, early_stopping_rounds=5, seed=0
)


@pytest.fixture(scope="module")
def seen() -> dict[str, tuple[float, float]]:
    rng = np.random.default_rng(0)
    values = rng.uniform(2.0, 5.0, 400).astype(np.float32)
    values[:2] = 2.0, 5.0
    features = pl.DataFrame(
        {"a": values, "same": np.ones(400, np.float32), "none": np.full(400, np.nan, np.float32)}
    )
    happened = values > 3
    everything = np.ones(400, np.float32)
    example = Example(features, np.zeros(400, np.int32), happened, everything)
    return seen_range(grow([example], [], objective="binary", parameters=PARAMETERS))


def test_the_range_is_that_of_the_training_rows(seen) -> None:
    assert seen["a"] == (2.0, 5.0)
    assert "none" not in seen


def test_what_is_outside_and_what_is_not_known_is_counted(seen) -> None:
    a = np.array([2.0, 5.0, 1.9, 5.1, np.nan], dtype=np.float32)
    counted = count(pl.DataFrame({"a": a, "unseen": a}), seen)
    assert counted.rows() == [("a", 5, 1, 2)]


def test_shares_of_parts_are_those_of_the_whole(seen) -> None:
    a = np.array([2.0, 9.0, np.nan, 3.0, np.nan, 1.0, 4.0], dtype=np.float32)
    parts = [count(pl.DataFrame({"a": part}), seen) for part in (a[:3], a[3:])]
    whole = shares(count(pl.DataFrame({"a": a}), seen))
    assert shares(pl.concat(parts)).equals(whole)
    assert whole.row(0) == ("a", 2 / 7, 2 / 5)


def test_where_nothing_is_known_nothing_is_outside(seen) -> None:
    unknown = pl.DataFrame({"a": np.full(3, np.nan, np.float32)})
    assert shares(count(unknown, seen)).row(0) == ("a", 1.0, 0.0)
