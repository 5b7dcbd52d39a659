from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import levels
from benchmarks.levels import LEAST, YEAR, Events, damped_trend, forecasts, ratio, read

START = date(2020, 1, 1)


def written(folder: Path, counts: list[int]) -> Events:
    """A user who is seen on the first day, and so many new items of theirs on each day."""
    days = np.repeat(np.arange(len(counts)), counts)
    frame = pl.DataFrame(
        {
            "user_id": 1,
            "item_id": np.arange(len(days)),
            "date": [START + timedelta(days=int(day)) for day in days],
        }
    )
    frame.write_parquet(folder / "rows.parquet")
    return read(folder / "rows.parquet")


def day(n: int) -> int:
    return (START - date(1970, 1, 1)).days + n


def test_the_level_is_first_behaviours_of_known_users_for_each_of_them(tmp_path: Path) -> None:
    rows = [(1, item, 0) for item in range(LEAST)]
    rows += [(1, item, 10) for item in range(2 * LEAST)]  # half of them for the second time
    rows += [(2, item, 10) for item in range(LEAST)]  # not known before day 10
    rows += [(3, 0, 5)]
    columns = ["user_id", "item_id", "day"]
    frame = pl.DataFrame(rows, columns, orient="row").select(
        "user_id", "item_id", date=pl.lit(START) + pl.duration(days="day")
    )
    frame.write_parquet(tmp_path / "rows.parquet")
    events = read(tmp_path / "rows.parquet")
    assert events.level(day(10), 5) == pytest.approx(np.log(LEAST / 2))
    assert np.isnan(events.level(day(11), 5))


def test_nothing_at_or_after_as_of_is_used(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(20, 40, YEAR + 200).tolist()
    as_of = day(YEAR + 150)
    before = forecasts(written(tmp_path, counts), as_of, 7)
    others = [n + 50 * (i >= YEAR + 150) for i, n in enumerate(counts)]
    assert forecasts(written(tmp_path, others), as_of, 7) == before
    assert before["last year's change"] != 0.0
    assert before["half of the last third's"] != 0.0


def test_last_years_change_is_that_of_the_same_days(tmp_path: Path) -> None:
    counts = [10] * (YEAR + 100)
    counts[50:57] = [20] * 7  # the week that is a year before the coming one
    found = forecasts(written(tmp_path, counts), day(YEAR + 50), 7)
    assert found["last year's change"] == pytest.approx(np.log(2))
    assert found["a quarter of it"] == pytest.approx(np.log(2) / 4)
    assert found["damped trend"] == pytest.approx(0.0, abs=1e-12)


def test_a_damped_trend_by_hand() -> None:
    alpha, beta, phi = levels.DAMPED
    level = alpha * 1.0
    trend = beta * level
    assert damped_trend(np.array([0.0, 1.0])) == pytest.approx(level + phi * trend - 1.0)


def test_half_the_error_has_a_ratio_of_a_half_whatever_is_drawn() -> None:
    other = np.random.default_rng(0).uniform(0.1, 1.0, 60)
    assert ratio(other / 2, other, block=6) == pytest.approx((0.5, 0.5, 0.5))
