"""The examples on the public data sets, with the fast encoder and few trees."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from nights import read

from jobs import nightly
from jobs.config import load_config
from jobs.nightly import Night

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PER_USER = "NIGHTRANK__CANDIDATES__PER_USER"
QUICK = {
    "NIGHTRANK__ENCODER__MODEL": "packaged/wordllama",
    "NIGHTRANK__TRAINING__WINDOWS": "1",
    "NIGHTRANK__TRAINING__MAX_ROUNDS": "60",
    "NIGHTRANK__SCORING__REASONS_PER_USER": "1",
    # The slower generators take minutes a window here; small shops and the benchmarks' tests
    # cover them.
    **{
        f"NIGHTRANK__CANDIDATES__{name}": "0"
        for name in ("TWO_TOWER", "EASE", "TWO_HOP", "FACTORS", "SIMILAR", "ATTRIBUTES", "KINDS")
    },
}

# Most of Steam's 32,000 games have a review or none; without them this takes minutes less.
REVIEWED = """
select item_id, title, genres as category, developer as brand, tags as description,
       try_cast(price as double) as price
from 'items.parquet' semi join (
    select item_id from 'reviews.parquet' group by item_id having count(*) >= 10
) using (item_id)
"""
FEWER = {"NIGHTRANK__SOURCES__ITEMS": REVIEWED, "NIGHTRANK__SOURCES__MAX_QUARANTINED_SHARE": "0.3"}


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "folder", "as_of", "quarantined", "options"),
    [
        (
            "steam",
            "steam-au",
            datetime(2015, 7, 1),
            {"missing_time", "unknown_item"},
            FEWER | {PER_USER: "25"},
        ),
        ("beauty", "amazon14-beauty", datetime(2013, 2, 1), {"missing_time"}, {PER_USER: "25"}),
    ],
)
def test_the_example_runs_to_the_end_and_beats_popularity(
    name: str,
    folder: str,
    as_of: datetime,
    quarantined: set[str],
    options: dict[str, str],
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in (QUICK | options).items():
        monkeypatch.setenv(variable, value)
    config = load_config(EXAMPLES / f"{name}.toml")
    night = Night(config=config, as_of=as_of, root=shared_data / folder, home=tmp_path)
    outcome = nightly.run(night)
    values = {
        (row["model"], row["metric"]): row["value"]
        for row in outcome.trained.metrics.filter(pl.col("segment") == "all").iter_rows(named=True)
    }
    ours, theirs = (values[m, "normalised_entropy"] for m in ("nightrank", "popularity"))
    assert ours < theirs < 1.02
    assert 0.8 < values["nightrank", "predicted_over_observed"] < 1.25
    assert set(read(night, "select distinct rule from quarantine").to_series()) == quarantined
    rows = read(night, "select count(*) as n, count(distinct user_id) as users from predictions")
    assert rows.get_column("n").item() == outcome.predictions
    assert rows.get_column("users").item() > 10_000
