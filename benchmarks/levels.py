"""How well the level of the coming window is known from the counts of those before.

The level is the number of first behaviours in a window for each user known before it. Every rule
says by what ratio that of the coming window differs from that of the window that has just ended.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from numpy.typing import NDArray

from jobs.console import show_table
from rank.calibrate import Floats

Days = NDArray[np.int64]
# As_ofs are so many days apart.
STEP = 5
# A year of whole weeks.
YEAR = 364
# Windows looked back on, and the least number of behaviours in one.
PAST, LEAST = 24, 50
# No rule may say more than this ratio, up or down.
MOST = 1.5
# Level, trend, damping; Gardner and McKenzie, Forecasting trends in time series, 1985.
DAMPED = (0.8, 0.3, 0.8)
SAMPLES = 1000


@dataclass(frozen=True)
class Events:
    """The first behaviours of a data set.

    Attributes:
        days: (n,) on which they happened, ascending.
        known: (n,) aligned, the day on which their user was first seen.
        users: (m,) the day on which each user was first seen, ascending.
    """

    days: Days
    known: Days
    users: Days

    def level(self, start: int, length: int) -> float:
        """Log of behaviours per user known before `start`, in `length` days; NaN with too few."""
        low, high = np.searchsorted(self.days, (start, start + length))
        happened = int((self.known[low:high] < start).sum())
        if happened < LEAST:
            return np.nan
        return float(np.log(happened / np.searchsorted(self.users, start)))

    def levels(self, as_of: int, horizon: int) -> Floats:
        """The levels of the windows before, oldest first."""
        starts = as_of - horizon * np.arange(PAST, 0, -1)
        found = np.array([self.level(int(start), horizon) for start in starts])
        return np.asarray(found[~np.isnan(found)])


def read(path: Path) -> Events:
    """Recommendations where there are any, ratings of 4 and 5 of films, else all rows."""
    frame = pl.read_parquet(path)
    if "timestamp" in frame.columns:
        frame = frame.filter(pl.col("timestamp") > 0)
        frame = frame.with_columns(date=pl.from_epoch("timestamp").dt.date())
    wanted = pl.lit(True)
    if "recommend" in frame.columns:
        wanted = pl.col("recommend")
    elif "summary" not in frame.columns and "rating" in frame.columns:
        wanted = pl.col("rating") >= 4
    frame = frame.drop_nulls("date").with_columns(pl.col("date").cast(pl.Int32).cast(pl.Int64))
    seen = frame.group_by("user_id").agg(known=pl.col("date").min())
    first = frame.filter(wanted).group_by("user_id", "item_id").agg(pl.col("date").min())
    joined = first.join(seen, on="user_id").sort("date")
    days, known = (joined.get_column(name).to_numpy() for name in ("date", "known"))
    return Events(days, known, seen.get_column("known").sort().to_numpy())


def damped_trend(levels: Floats) -> float:
    """What exponential smoothing with a damped trend adds to the last level.

    >>> damped_trend(np.zeros(5))
    0.0
    """
    alpha, beta, phi = DAMPED
    level, trend = float(levels[0]), 0.0
    for seen in levels[1:].tolist():
        before, expected = level, level + phi * trend
        level = expected + alpha * (seen - expected)
        trend = beta * (level - before) + (1 - beta) * phi * trend
    return level + phi * trend - float(levels[-1])


def last_part(events: Events, as_of: int, horizon: int) -> float:
    """The last third of the window over all of it, against what that used to be."""
    part = max(horizon // 3, 1)
    ends = [as_of - horizon * n for n in range(7)]
    now, *past = (events.level(e - part, part) - events.level(e - horizon, horizon) for e in ends)
    used = [x for x in past if not np.isnan(x)]
    return now - float(np.mean(used)) if used and not np.isnan(now) else 0.0


def last_year(events: Events, as_of: int, horizon: int) -> float:
    """The change a year ago; none where nothing is known of it."""
    ago = as_of - YEAR
    change = events.level(ago, horizon) - events.level(ago - horizon, horizon)
    return 0.0 if np.isnan(change) else change


def forecasts(events: Events, as_of: int, horizon: int) -> dict[str, float]:
    """By rule, the log of the ratio; from rows before `as_of` alone."""
    levels = events.levels(as_of, horizon)
    change = float(levels[-1] - levels[-2])
    trend = damped_trend(levels)
    part = last_part(events, as_of, horizon)
    year = last_year(events, as_of, horizon)
    return {
        "no change": 0.0,
        "a quarter of the last change": change / 4,
        "half of the last change": change / 2,
        "a quarter of it back": -change / 4,
        "damped trend": trend,
        "last year's change": year,
        "half of it": year / 2,
        "a quarter of it": year / 4,
        "mean of damped trend and half of it": (trend + year / 2) / 2,
        "a quarter of the last third's": part / 4,
        "half of the last third's": part / 2,
        "a quarter each of last third and year": (part + year) / 4,
    }


def errors(events: Events, horizon: int, as_ofs: range) -> dict[str, Floats]:
    """By rule, the absolute log errors at all as_ofs of which enough is known."""
    found: dict[str, list[float]] = {}
    for as_of in as_ofs:
        levels = events.levels(as_of, horizon)
        truth = events.level(as_of, horizon)
        if len(levels) < 6 or np.isnan(truth):
            continue
        for rule, said in forecasts(events, as_of, horizon).items():
            bounded = np.clip(said, -np.log(MOST), np.log(MOST))
            found.setdefault(rule, []).append(abs(truth - levels[-1] - bounded))
    return {rule: np.array(values) for rule, values in found.items()}


def ratio(mine: Floats, other: Floats, *, block: int) -> tuple[float, float, float]:
    """Mean of `mine` over that of `other`, and 95% of a moving-block bootstrap (Künsch, 1989).

    Args:
        mine: (n,) errors in the order of time.
        other: (n,) aligned.
        block: neighbours that overlap, to be drawn together.
    """
    rng = np.random.default_rng(0)
    n = len(mine)
    starts = rng.integers(max(n - block, 1), size=(SAMPLES, -(-n // block)))
    rows = (starts[:, :, None] + np.arange(min(block, n))).reshape(SAMPLES, -1)
    drawn = mine[rows].mean(axis=1) / other[rows].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(mine.mean() / other.mean()), float(low), float(high)


def _days(*when: str) -> range:
    first, last = ((date.fromisoformat(day) - date(1970, 1, 1)).days for day in when)
    return range(first, last, STEP)


Wanted = tuple[str, int, range]
# Data set, horizon, as_ofs: those whose window is over before the as_ofs of docs/benchmarks.md.
WANTED: dict[str, Wanted] = {
    "beauty 30": ("amazon14-beauty/interactions", 30, _days("2012-01-01", "2014-02-01")),
    "beauty 14": ("amazon14-beauty/interactions", 14, _days("2012-01-01", "2014-02-15")),
    "health 30": ("seqrec-amazon14-health/interactions", 30, _days("2012-01-01", "2014-06-20")),
    "health 14": ("seqrec-amazon14-health/interactions", 14, _days("2012-01-01", "2014-07-01")),
    "health 7": ("seqrec-amazon14-health/interactions", 7, _days("2012-01-01", "2014-07-10")),
    "steam 90": ("steam-au/reviews", 90, _days("2013-01-01", "2014-07-06")),
    "steam 30": ("steam-au/reviews", 30, _days("2013-01-01", "2014-09-01")),
    "music 90": ("musical-instruments-reviews/reviews", 90, _days("2012-01-01", "2014-04-20")),
    "films 14": ("ml-100k-plots/interactions", 14, _days("1997-12-01", "1998-04-08")),
}


def rows(root: Path) -> Iterator[tuple[str, str, int, float, float, float, float]]:
    """Rule, data set, as_ofs, mean absolute log error, its ratio to no change, low, high."""
    for name, (path, horizon, as_ofs) in WANTED.items():
        found = errors(read(root / f"{path}.parquet"), horizon, as_ofs)
        none = found["no change"]
        for rule, mine in found.items():
            compared = ratio(mine, none, block=max(2 * horizon // STEP, 1))
            yield rule, name, len(mine), float(mine.mean()), *compared


def main(root: Annotated[Path, typer.Argument(help="Holds a folder for each data set.")]) -> None:
    """Print the error of every rule on every data set."""
    columns = ["rule", "data, days", "as_ofs", "error", "over no change", "low", "high"]
    found = list(rows(root))
    show_table("Mean absolute log error of the level", columns, found)
    rules = dict.fromkeys(row[0] for row in found)
    logs = {rule: [np.log(row[4]) for row in found if row[0] == rule] for rule in rules}
    means = [(r, float(np.exp(np.mean(v))), float(np.exp(max(v)))) for r, v in logs.items()]
    show_table("Over no change, all data sets", ["rule", "geometric mean", "worst"], means)


if __name__ == "__main__":
    typer.run(main)
