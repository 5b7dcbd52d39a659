"""The search for settings: it resumes, it is seeded, and it never looks at the test window."""

import re
import tomllib
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from nights import AS_OF, SHOP, make_material, write_night
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from embed import Encoder
from jobs.cli import app
from jobs.state import Material
from jobs.training import windows_before
from jobs.tuning import JOURNAL, RANGES, SCORE, best_settings, sampled_loss, tune
from rank.examples import Example
from rank.labels import weights
from rank.metrics import log_loss
from rank.model import Model
from rank.trees import Hyperparameters, grow

# The default generators and few trees: each search makes its examples anew.
QUICK = re.sub(r"(?s)\[candidates\].*?\n\n", "[candidates]\nper_user = 40\n\n", SHOP)
QUICK = QUICK.replace("max_rounds = 60", "max_rounds = 6").replace("windows = 2", "windows = 1")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, static_encoder: Encoder) -> Material:
    return make_material(write_night(tmp_path_factory.mktemp("tuning"), QUICK), static_encoder)


@pytest.fixture(scope="module")
def searched(material: Material, tmp_path_factory: pytest.TempPathFactory) -> dict[int, object]:
    """Three trials, then two more with the same journal."""
    folder = tmp_path_factory.mktemp("searched")
    three = tune(material, AS_OF, folder=folder, trials=3)
    return {3: three, 5: tune(material, AS_OF, folder=folder, trials=5), "folder": folder}


def with_events(material: Material, start: datetime, end: datetime) -> Material:
    """Every event from start to before end has moved to the next item, and every third is gone."""
    inputs, n_items = material.inputs, len(material.inputs.items)
    moved = pl.col("ts").is_between(start, end, closed="left")
    events = inputs.events.with_columns(
        item=pl.when(moved).then((pl.col("item") + 1) % n_items).otherwise("item").cast(pl.Int32)
    ).filter(~moved | (pl.int_range(pl.len()) % 3 > 0))
    assert events.height < inputs.events.height
    return replace(material, inputs=replace(inputs, events=events))


def test_the_first_trial_is_the_configuration_itself(searched: dict) -> None:
    first = searched[5].filter(trial=1).select(*RANGES).row(0, named=True)
    assert first == {
        "learning_rate": 0.05, "num_leaves": 31, "min_rows_per_leaf": 50,
        "min_positives_per_leaf": 10.0, "l2": 0.001,
    }  # fmt: skip


def test_every_setting_is_in_its_range_and_the_best_comes_first(searched: dict) -> None:
    found = searched[5]
    assert found[SCORE].is_sorted()
    assert found[SCORE].is_between(0.3, 1.5).all()
    assert sorted(found["trial"]) == [1, 2, 3, 4, 5]
    for name, (low, high) in RANGES.items():
        assert found[name].is_between(low, high).all()
        assert found[name].n_unique() > 3
    assert found.columns[-4:] == [
        "log_loss_click", "ndcg@10_click", "log_loss_purchase", "ndcg@10_purchase",
    ]  # fmt: skip
    assert best_settings(found)["num_leaves"] == found["num_leaves"][0]


def test_a_search_goes_on_where_it_stopped(searched: dict) -> None:
    assert searched[3].sort("trial").equals(searched[5].filter(pl.col("trial") <= 3).sort("trial"))
    (table,) = searched["folder"].glob("*.csv")
    assert_frame_equal(pl.read_csv(table), searched[5], check_dtypes=False)


def test_rows_of_the_test_window_change_no_trial_at_all(
    material: Material, searched: dict, tmp_path: Path
) -> None:
    """Five at once, on other events of the test window, are the five of the resumed search."""
    test = windows_before(material, AS_OF).test
    other = with_events(material, test, AS_OF)
    assert_frame_equal(tune(other, AS_OF, folder=tmp_path, trials=5), searched[5])
    assert [p.name for p in tmp_path.glob("*.csv")] == [
        p.name for p in searched["folder"].glob("*.csv")
    ]


def test_rows_of_the_calibration_window_do(
    material: Material, searched: dict, tmp_path: Path
) -> None:
    windows = windows_before(material, AS_OF)
    other = with_events(material, windows.calibrate, windows.test)
    # Without any time there is still the first trial.
    (row,) = tune(other, AS_OF, folder=tmp_path, trials=9, minutes=0).rows(named=True)
    before = searched[5].row(by_predicate=pl.col("trial") == 1, named=True)
    assert {name: row[name] for name in RANGES} == {name: before[name] for name in RANGES}
    assert row[SCORE] != before[SCORE]
    assert row["log_loss_click"] != before["log_loss_click"]


def test_no_time_leaves_what_there_is(material: Material, searched: dict) -> None:
    found = tune(material, AS_OF, folder=searched["folder"], trials=9, minutes=0)
    assert_frame_equal(found, searched[5])


def test_the_loss_of_a_sample_is_that_of_all() -> None:
    rng = np.random.default_rng(0)
    n, share = 200_000, 0.1
    table = rng.normal(size=(n, 2))
    happened = rng.random(n) < 1 / (1 + np.exp(3 - table[:, 0]))
    whole = Example(
        pl.DataFrame(table, ["a", "b"]),
        np.arange(n, dtype=np.int32) // 20,
        happened,
        np.ones(n, np.float32),
    )
    drawn, shown = rng.random(n) < share, table[:, 0] > 1
    weight = weights(happened, drawn=drawn, shown=shown, share=share)
    sample = replace(whole, weight=weight)
    parameters = Hyperparameters(
        learning_rate=0.1, num_leaves=7, min_rows_per_leaf=20, min_positives_per_leaf=1.0,
        max_rounds=20, early_stopping_rounds=5, seed=0, threads=1, l2=0.0,
        feature_fraction=0.7, bagging_fraction=0.8, rankers=1,
    )  # fmt: skip
    trees = grow([sample], [], objective="binary", parameters=parameters)
    model = Model("buy", 7, trees, trees, negative_share=share)
    loss, entropy = sampled_loss(model, sample, threads=1)
    told = 1 / (1 + np.exp(-model.log_odds(whole.features, threads=1)))
    rate = happened.mean()
    assert loss == pytest.approx(log_loss(happened, told), rel=0.02)
    by_hand = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert entropy == pytest.approx(log_loss(happened, told) / by_hand, rel=0.02)


def test_the_command_prints_settings_to_paste(tmp_path: Path) -> None:
    night = write_night(tmp_path, QUICK)
    where = ["--as-of", "2025-06-01", "--root", str(night.root), "--home", str(night.home)]
    config = str(night.root / "small.toml")
    done = CliRunner().invoke(app, ["tune", config, *where, "--trials", "2"])
    assert done.exit_code == 0, done.output
    printed = tomllib.loads(done.output[done.output.rindex("[training]") :])["training"]
    (table,) = (night.home / "tune").glob("*.csv")
    assert pl.read_csv(table).select(*RANGES).row(0, named=True) == pytest.approx(printed)
    assert (night.home / "tune" / JOURNAL).stat().st_size > 0
