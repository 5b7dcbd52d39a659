"""Rates of a world in which nothing changes, before and after a filter that sees its end."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.cores import GROUPS, rates, read

CORE, DAYS = 5, 30


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    """2,000 users who do one thing in fifty days, on any of 200 items, for a year."""
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(360), 40)
    return pl.DataFrame(
        {
            "user_id": rng.integers(0, 2_000, len(day)),
            "item_id": rng.integers(0, 200, len(day)),
            "date": (np.datetime64("2020-01-01") + day).astype("datetime64[ms]"),
        }
    ).with_columns(pl.col("date").cast(pl.Date))


def of(events: pl.DataFrame, group: str) -> list[float]:
    return [found[group] for _, found in rates(events, core=CORE, days=DAYS, windows=6)]


def test_without_a_filter_the_rate_of_a_user_is_that_of_the_world(events: pl.DataFrame) -> None:
    expected = 40 * DAYS / 2_000
    for group in ("users, fewer", "users, enough"):
        assert of(events, group) == pytest.approx([expected] * 6, rel=0.25)


def test_a_filter_by_the_number_in_the_end_lets_it_rise(events: pl.DataFrame) -> None:
    kept = events.filter(pl.len().over("user_id") >= CORE)
    fewer, enough = of(kept, "users, fewer"), of(kept, "users, enough")
    assert fewer[-1] > 2 * fewer[0]
    assert enough == pytest.approx([enough[0]] * 6, rel=0.25)


def test_groups_by_hand(tmp_path: Path) -> None:
    """One window, the last two days; before it user 1 had two events, 2 one, 3 none."""
    rows = [(1, 1, 1), (1, 1, 2), (2, 1, 2), (1, 2, 3), (2, 1, 3), (2, 3, 4), (3, 1, 4)]
    frame = pl.DataFrame(rows, ["user_id", "item_id", "day"], orient="row")
    day = pl.date(2020, 1, pl.col("day"))
    frame.select("user_id", "item_id", timestamp=day.dt.epoch("s")).write_parquet(tmp_path / "e")
    ((start, found),) = rates(read(tmp_path / "e"), core=2, days=2, windows=1)
    assert start == date(2020, 1, 3)
    assert [found[group] for group in GROUPS[:3]] == [2.0, 1.0, 1.0]  # items 2 and 3 once each
    assert np.isnan(found["items, fewer"])  # item 1 alone was seen, three times
    assert found["items, enough"] == 1.0  # by user 2; nobody knew user 3
