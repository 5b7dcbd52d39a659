"""Each gate by figures small enough to check by hand."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from nights import read, write_night

from jobs import gates, models, nightly, outcomes, publish
from jobs.config_sections import GatesConfig
from jobs.errors import GateRefused
from jobs.manifest import Damaged
from jobs.nightly import Night
from rank.labels import labels

GOOD = {
    "predicted_over_observed": 1.1,
    "normalised_entropy": 0.9,
    "calibration_error": 0.001,
    "base_rate": 0.01,
    "positives": 100,
}
FEATURES = pl.DataFrame({"feature": ["f"], "null_share": [0.5], "outside_share": [0.1]})


def metrics_of(**changed: float) -> pl.DataFrame:
    values = GOOD | changed
    return pl.DataFrame(
        {
            "behaviour": "buy",
            "model": "nightrank",
            "segment": "all",
            "metric": list(values),
            "value": list(values.values()),
        }
    )


def checked(folder: Path, *, features: pl.DataFrame = FEATURES, **changed: float) -> pl.DataFrame:
    folder.mkdir(exist_ok=True)
    tonight = pl.DataFrame({"behaviour": "buy", "probability": np.linspace(0, 1, 100)})
    tonight.write_parquet(folder / "0.parquet")
    return gates.check(
        GatesConfig(),
        metrics=metrics_of(**changed),
        shards=folder,
        features=features,
        last=folder.parent / "last.duckdb",
    )


def published(folder: Path, probability: np.ndarray, *, null_share: float) -> None:
    before = pl.DataFrame({"behaviour": "buy", "probability": probability}).to_arrow()
    with duckdb.connect(str(folder / "last.duckdb")) as connection:
        connection.register("before", before)
        connection.execute("create table predictions as from before")
        connection.execute(
            f"create table features as select 'f' feature, {null_share}::double null_share,"
            " 0.1::double outside_share"
        )


def refused(frame: pl.DataFrame) -> list[str]:
    return frame.filter(~pl.col("passed")).get_column("gate").to_list()


def test_a_first_good_night_passes_what_can_be_checked(tmp_path) -> None:
    frame = checked(tmp_path / "shards")
    assert frame.get_column("gate").to_list() == [
        "predicted_over_observed",
        "normalised_entropy",
        "calibration_error",
    ]
    assert refused(frame) == []
    assert frame.filter(pl.col("gate") == "calibration_error")["value"].item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("gate", "value"),
    [
        ("predicted_over_observed", 0.69),
        ("predicted_over_observed", 1.41),
        ("predicted_over_observed", np.nan),
        ("normalised_entropy", 1.0),
        ("calibration_error", 0.0051),
    ],
)
def test_a_figure_beyond_its_bound_is_refused(gate: str, value: float, tmp_path) -> None:
    assert refused(checked(tmp_path / "shards", **{gate: value})) == [gate]


def test_few_positives_judge_nothing(tmp_path) -> None:
    assert checked(tmp_path / "shards", predicted_over_observed=9.0, positives=99).is_empty()


def test_features_that_left_their_range_are_refused_by_name(tmp_path) -> None:
    published(tmp_path, np.linspace(0, 1, 100), null_share=0.5)
    odd = FEATURES.with_columns(outside_share=0.31)
    frame = checked(tmp_path / "shards", features=odd).filter(~pl.col("passed"))
    assert frame.select("gate", "subject").rows() == [("outside_share_risen", "f")]


def test_the_same_night_again_passes(tmp_path) -> None:
    published(tmp_path, np.linspace(0, 1, 100), null_share=0.5)
    frame = checked(tmp_path / "shards")
    assert refused(frame) == []
    assert dict(frame.select("gate", "value").rows())["rows_over_last"] == 1.0
    assert dict(frame.select("gate", "value").rows())["score_drift"] == 0.0


def test_lost_rows_shifted_scores_and_lost_values_are_refused(tmp_path) -> None:
    published(tmp_path, np.linspace(0, 0.5, 201), null_share=0.29)
    frame = checked(tmp_path / "shards")
    assert refused(frame) == ["rows_over_last", "score_drift", "null_share_risen"]


def test_a_feature_that_is_new_tonight_is_compared_with_nothing(tmp_path) -> None:
    published(tmp_path, np.linspace(0, 1, 100), null_share=0.5)
    more = pl.concat([FEATURES, FEATURES.with_columns(feature=pl.lit("new"), null_share=1.0)])
    frame = checked(tmp_path / "shards", features=more)
    assert refused(frame) == []
    assert "new" not in frame.get_column("subject").to_list()


def test_a_last_night_that_kept_no_features_still_guards_the_rest(tmp_path) -> None:
    published(tmp_path, np.linspace(0, 1, 100), null_share=0.5)
    with duckdb.connect(str(tmp_path / "last.duckdb")) as connection:
        connection.execute("drop table features")
    compared = set(checked(tmp_path / "shards").get_column("gate"))
    assert "rows_over_last" in compared
    assert "null_share_risen" not in compared


def test_the_stability_index_of_two_halves_by_hand() -> None:
    before = np.arange(10.0)
    # One of ten in each bin before; all of them in the last one now.
    index = gates.stability_index(before, np.full(10, 9.0))
    by_hand = 0.9 * np.log(1 / 0.1) + 9 * (1e-4 - 0.1) * np.log(1e-4 / 0.1)
    assert index == pytest.approx(by_hand)


def test_the_error_says_which_figure_broke_which_bound(tmp_path) -> None:
    frame = checked(tmp_path / "shards", predicted_over_observed=2.0)
    with pytest.raises(GateRefused, match=r"predicted_over_observed of buy is 2, .* 0\.7 to 1\.4"):
        gates.enforce(gates.overridden(frame, override=None))


def test_an_override_names_who_took_it_on_them_where_a_gate_failed(tmp_path) -> None:
    frame = checked(tmp_path / "shards", predicted_over_observed=2.0)
    named = gates.overridden(frame, override="Ada: sale")
    gates.enforce(named)
    assert named.get_column("overridden_by").to_list() == ["Ada: sale", None, None]
    assert named.get_column("overridden_by").dtype == pl.String


def test_what_passes_needs_nobody(tmp_path) -> None:
    frame = gates.overridden(checked(tmp_path / "shards"), override=None)
    gates.enforce(frame)
    assert frame.get_column("overridden_by").null_count() == len(frame)


def shuffled(pairs: pl.DataFrame, targets: pl.DataFrame) -> np.ndarray:
    """As many labels as there are, each on another pair."""
    return np.random.default_rng(len(pairs)).permutation(labels(pairs, targets))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Night, nightly.Outcome]:
    night = write_night(tmp_path_factory.mktemp("gates"))
    return night, nightly.run(night)


def test_a_good_night_says_what_was_checked(done) -> None:
    night, _ = done
    kept = read(night, "select gate, subject, value, passed, overridden_by from gates")
    assert kept.get_column("passed").all()
    assert kept.get_column("overridden_by").null_count() == len(kept)
    told = read(
        night,
        "select metric as gate, behaviour as subject, value from metrics where model = 'nightrank'"
        " and segment = 'all' and metric in ('predicted_over_observed', 'normalised_entropy')",
    )
    assert len(told) == 4
    shown = kept.join(told, on=["gate", "subject", "value"], how="semi")
    assert set(shown.get_column("subject")) >= {"click"}  # the commoner one
    counted = read(night, "select * exclude (run_id) from features")
    assert counted.height > 80
    assert counted.select(pl.col("null_share", "outside_share").is_between(0, 1).all()).row(0) == (
        True,
        True,
    )


def test_a_model_of_shuffled_labels_is_refused_and_the_last_night_stays(
    done, monkeypatch: pytest.MonkeyPatch
) -> None:
    night, outcome = done
    worse = replace(
        night,
        config=night.config.model_copy(
            update={"training": night.config.training.model_copy(update={"seed": 1})}
        ),
        started_at=night.started_at + timedelta(seconds=1),
    )
    monkeypatch.setattr(outcomes, "labels", shuffled)
    with pytest.raises(GateRefused, match=r"normalised_entropy of (click|purchase) is"):
        nightly.run(worse)
    assert (night.home / publish.CURRENT).resolve() == outcome.scores
    assert len(list(night.home.glob("*scores-*.duckdb"))) == 1
    forced = nightly.run(
        replace(worse, started_at=night.started_at + timedelta(seconds=2)),
        override="Ada: to see it",
    )
    assert (night.home / publish.CURRENT).resolve() == forced.scores
    by = read(night, "select distinct overridden_by from gates where not passed")
    assert by.get_column("overridden_by").to_list() == ["Ada: to see it"]


def test_a_calibration_of_another_behaviour_is_refused_when_it_is_loaded(done) -> None:
    night, outcome = done
    folder = night.home / "models" / outcome.trained.version
    described = {n: json.loads((folder / f"{n}.json").read_text()) for n in ("click", "purchase")}
    described["click"]["calibration"] = described["purchase"]["calibration"]
    good = (folder / "click.json").read_text()
    (folder / "click.json").write_text(json.dumps(described["click"], indent=2))
    with pytest.raises(Damaged, match=r"click\.json is damaged"):
        models.load(folder)
    (folder / "click.json").write_text(good)
    assert models.load(folder).version == outcome.trained.version
