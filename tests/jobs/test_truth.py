"""Calibrated probabilities against true ones, in a world whose chances are known exactly."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from jobs import nightly
from jobs.config import load_config
from jobs.nightly import Night

AS_OF = datetime(2025, 6, 1)
HORIZON, DAYS = 10, 90
USERS, ITEMS, KINDS = 6000, 30, 3
ASLEEP = 0.3  # share of the users who never do anything
# Clicks a day of a user of one country on an item of one category.
RATES = np.array([[0.02, 0.008, 0.002], [0.004, 0.012, 0.006], [0.002, 0.004, 0.03]])

CONFIG = f"""
name = "truth"
[sources]
items = "items.parquet"
events = "events.parquet"
users = "users.parquet"
[users]
attributes = ["group"]
[items]
text = "{{category}}"
[encoder]
model = "packaged/wordllama"
[events]
weights = {{ click = 1.0 }}
[candidates]
nearest = 0
reviews = 0
cooccurrence = 0
history = 0
popular = {ITEMS}
popular_half_life_days = 1000000
[[predict]]
behaviour = "click"
horizon_days = {HORIZON}
repeats = true
[training]
learning_rate = 0.1
num_leaves = 16
min_rows_per_leaf = 500
windows = 5
[scoring]
reasons_per_user = 0
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources: a Poisson process for each pair, of the same rate on every day."""
    folder, rng = tmp_path_factory.mktemp("truth"), np.random.default_rng(0)
    groups, kinds, asleep = people()
    rate = np.where(asleep[:, None], 0.0, RATES[groups][:, kinds])
    counts = rng.poisson(rate * DAYS)
    user, item = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    seconds = rng.integers(0, DAYS * 86_400, len(user))
    start = AS_OF - timedelta(days=DAYS)
    users = {"user_id": range(USERS), "consent": True, "group": groups, "created_at": start}
    items = {"item_id": range(ITEMS), "title": "thing", "category": [f"kind{k}" for k in kinds]}
    events = {"user_id": user, "item_id": item, "behaviour": "click", "seconds": seconds}
    later = pl.lit(start) + pl.duration(seconds="seconds")
    pl.DataFrame(users).write_parquet(folder / "users.parquet")
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    timed = pl.DataFrame(events).with_columns(ts=later).drop("seconds")
    timed.write_parquet(folder / "events.parquet")
    impressions(rng, rate).write_parquet(folder / "impressions.parquet")
    (folder / "truth.toml").write_text(CONFIG)
    return folder


def impressions(rng: np.random.Generator, rate: np.ndarray) -> pl.DataFrame:
    """Things are shown where clicks are likely, and now and then to anybody: it moves no chance."""
    counts = rng.poisson((0.002 + rate) * DAYS)
    user, item = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    shown = {"user_id": user, "item_id": item, "behaviour": "shown"}
    seconds = pl.Series("seconds", rng.integers(0, DAYS * 86_400, len(user)))
    later = pl.lit(AS_OF - timedelta(days=DAYS)) + pl.duration(seconds=seconds)
    return pl.DataFrame(shown).with_columns(ts=later)


def people() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each user's group, each item's kind, and who is asleep."""
    rng = np.random.default_rng(1)
    return rng.integers(0, KINDS, USERS), np.arange(ITEMS) % KINDS, rng.random(USERS) < ASLEEP


@pytest.mark.parametrize(("share", "shown"), [(1.0, False), (0.1, False), (0.1, True)])
def test_probabilities_are_the_true_ones(
    share: float, shown: bool, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a tenth of the base rate on average, also where negatives are sampled at a tenth.

    And where all negatives that were shown, which are not any, are kept beside the sample.
    """
    monkeypatch.setenv("NIGHTRANK__TRAINING__NEGATIVE_SHARE", str(share))
    if shown:
        both = "from 'events.parquet' union all by name from 'impressions.parquet'"
        monkeypatch.setenv("NIGHTRANK__SOURCES__EVENTS", both)
        monkeypatch.setenv("NIGHTRANK__EVENTS__IMPRESSIONS", "shown")
    night = Night(load_config(world / "truth.toml"), AS_OF, world, tmp_path)
    outcome = nightly.run(night)
    rows = pl.read_parquet(tmp_path / "runs" / outcome.run.run_id / "shards" / "*.parquet")
    assert len(rows) == USERS * ITEMS
    groups, kinds, asleep = people()
    user, item = (rows.get_column(n).cast(pl.Int64).to_numpy() for n in ("user_id", "item_id"))
    rate = np.where(asleep[user], 0.0, RATES[groups[user], kinds[item]])
    truth, told = -np.expm1(-rate * HORIZON), rows.get_column("probability").to_numpy()
    error = np.abs(told - truth)
    assert error.mean() < 0.1 * truth.mean()
    assert error[asleep[user]].mean() < 0.1 * truth.mean()
    assert told.sum() == pytest.approx(truth.sum(), rel=0.05)
