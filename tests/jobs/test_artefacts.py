"""A bit flipped in whatever is kept: noticed, named, and mended where it can be."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from nights import write_night
from prometheus_client.parser import text_string_to_metric_families
from published import flip, night_run, publish_night

from index.store import DamagedIndex, VectorIndex
from jobs import doctor, gates, models, nights, publish
from jobs.campaigns.files import tell
from jobs.config_sections import RetentionConfig
from jobs.errors import GateRefused
from jobs.judging import CONTEST
from jobs.manifest import MANIFEST, Damaged, seal, sha256
from jobs.metrics_file import FILE, reported
from jobs.nightly import Night
from jobs.retention import DAY, removable
from jobs.training import Trained
from rank.calibrate import Calibration
from rank.examples import Example
from rank.model import Model
from rank.projection import Projection
from rank.propensity import Propensity
from rank.trees import Hyperparameters, grow

AS_OF = datetime(2025, 6, 1)


@pytest.fixture(scope="module")
def trained() -> Trained:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400).astype(np.float32)
    users, happened = np.arange(400, dtype=np.int32) // 4, x > rng.normal(size=400)
    example = Example(pl.DataFrame({"x": x}), users, happened, np.ones(400, "f4"))
    parameters = Hyperparameters(
        learning_rate=0.1, num_leaves=4, min_rows_per_leaf=5, min_positives_per_leaf=1.0,
        max_rounds=5, early_stopping_rounds=5, seed=0, threads=1, l2=0.0,
        feature_fraction=0.7, bagging_fraction=0.8, rankers=1,
    )  # fmt: skip
    trees = grow([example], [example], objective="binary", parameters=parameters)
    calibration = Calibration.fit(trees.score(example.features, threads=1), happened)
    nothing = pl.DataFrame(schema=CONTEST)
    return Trained(
        as_of=AS_OF,
        models=(Model("buy", 7, trees, trees, 1.0, calibration),),
        propensities=(Propensity("buy", 7, 0.5, trees),),
        projection=Projection(np.zeros(2, np.float32), np.eye(2, dtype=np.float32)),
        metrics=nothing,
        calibration=nothing,
        importance=nothing,
        misses=nothing,
        contest=nothing,
    )


def places(seed: int, flips: int) -> Iterator[tuple[float, int]]:
    """Random places of a file, and bits."""
    rng = np.random.default_rng(seed)
    yield from zip(rng.random(flips), rng.integers(0, 8, flips).tolist(), strict=True)


def test_a_bit_flipped_in_a_model_is_noticed_and_named(trained: Trained, tmp_path: Path) -> None:
    folder = models.save(trained, tmp_path, trained_for="this")
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    assert {"buy.json", "buy.classifier.txt", "buy.ranker.txt", "buy.propensity"} < {
        path.name for path in files
    }
    for number, path in enumerate(files):
        for place, bit in places(number, 3):
            flip(path, place, bit)
            with pytest.raises(Damaged, match=f"{path.name} is damaged"):
                models.load(folder)
            flip(path, place, bit)
    assert models.load(folder).models == trained.models


def test_a_damaged_model_is_set_aside_and_an_older_one_used(
    trained: Trained, tmp_path: Path
) -> None:
    config = write_night(tmp_path).config
    older = replace(trained, as_of=AS_OF - timedelta(days=1))
    models.save(older, tmp_path, trained_for="this")
    folder = models.save(trained, tmp_path, trained_for="this")

    def version() -> str | None:
        found = models.latest(tmp_path, AS_OF, config, trained_for="this")
        return found.version if found else None

    assert version() == trained.version
    for damaged in ("buy.classifier.txt", MANIFEST):
        flip(folder / damaged, 0.5)
        assert version() == older.version
        assert not folder.exists()
        assert (folder.parent / f".damaged-{folder.name}").exists()
        assert models.save(trained, tmp_path, trained_for="this") == folder
        assert version() == trained.version
    flip(folder / "projection.npz", 0.5)  # saving does not take a damaged one for done
    assert models.save(trained, tmp_path, trained_for="this") == folder
    assert models.load(folder).version == trained.version


def test_trees_that_lightgbm_does_not_load_stop_nothing_but_their_model(
    trained: Trained, tmp_path: Path
) -> None:
    folder = models.save(trained, tmp_path, trained_for="this")
    trees = folder / "buy.ranker.txt"
    trees.write_text(trees.read_text()[:500])
    seal(folder, as_of=AS_OF.isoformat(), behaviours=["buy"], trained_for="this")
    with pytest.raises(Damaged, match="LightGBM cannot load its trees"):
        models.load(folder)


def test_a_damaged_index_is_built_again_with_equal_bytes(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    index = VectorIndex.build(np.arange(30, dtype=np.int32), vectors)
    folder = tmp_path / "items"
    index.save(folder)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    assert len(files) == 4
    for number, path in enumerate(files):
        for place, bit in places(number, 4):
            flip(path, place, bit)
            with pytest.raises(DamagedIndex, match=str(folder)):
                VectorIndex.load(folder)
            index.save(folder)
            assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_a_bit_flipped_in_a_night_is_noticed(tmp_path: Path) -> None:
    scores = publish_night(tmp_path, 1)
    for path in (scores, publish.manifest_of(scores)):
        for place, bit in places(5, 10):
            flip(path, place, bit)
            assert path.name in (nights.problem(scores) or "")
            flip(path, place, bit)
    assert nights.problem(scores) is None


def aged(path: Path, days: float, now: float) -> None:
    for one in (path, *path.rglob("*")):
        os.utime(one, (now - days * DAY,) * 2)


def test_what_may_go_is_old_beyond_the_counts_and_of_no_protected_night(tmp_path: Path) -> None:
    now = time.time()
    scores = [publish_night(tmp_path, number) for number in range(6)]
    for number in range(6):
        run = night_run(number)
        (tmp_path / "models" / run.model_version).mkdir(parents=True)
        for campaign in ("spring", "summer"):
            (tmp_path / "campaigns" / campaign / "delta").mkdir(parents=True, exist_ok=True)
            for ending in ("csv", "parquet"):
                for folder in (tmp_path / "campaigns" / campaign, Path("delta")):
                    place = tmp_path / "campaigns" / campaign / folder
                    (place / f"{run.run_id}.{ending}").write_text("x")
    shards = [tmp_path / "cache" / "f" / f"{n:06d}-aaaa" for n in range(2)]
    for shard in shards:
        (shard).mkdir(parents=True)
        (shard / "vectors.npy").write_bytes(b"x" * 1000)
    keep = RetentionConfig(nights=2, runs=1, models=1, lists=3, days=10, vector_days=50)
    assert removable(tmp_path, keep, now=now) == []

    for path in (tmp_path / "models", tmp_path / "runs", tmp_path / "campaigns", *scores):
        aged(path, 20, now)
    aged(shards[0], 60, now)
    aged(scores[1], 5, now)
    publish.make_current(scores[3])  # so the one before, scores[2], is protected too

    def gone(kind: str) -> list[str]:
        return [one.paths[0].name for one in removable(tmp_path, keep, now=now) if one.kind == kind]

    runs = [night_run(number).run_id for number in range(6)]
    assert gone("night") == [scores[0].name]
    assert gone("run") == [runs[0], runs[1], runs[4]]
    assert gone("model") == [night_run(0).model_version]  # the others are of nights that stay
    assert gone("list") == [f"{runs[n]}.csv" for n in (0, 1)] * 2
    lists = [one for one in removable(tmp_path, keep, now=now) if one.kind == "list"]
    assert [path.parent.name for path in lists[0].paths] == ["spring"] * 2 + ["delta"] * 2
    assert gone("vectors") == [shards[0].name]
    assert sum(one.size for one in removable(tmp_path, keep, now=now) if one.kind == "vectors") == (
        1000
    )


@pytest.mark.parametrize("kernel", ["Prescott", "Sandybridge", "Haswell", "Zen"])
def test_the_doctor_names_a_kernel_older_than_the_processor(kernel: str) -> None:
    early = doctor.kernel_found(kernel, "SKYLAKEX", asked=None)
    assert kernel in early.said
    assert (early.remedy or "").endswith("set OPENBLAS_CORETYPE=SKYLAKEX")
    asked = doctor.kernel_found(kernel, "SKYLAKEX", asked=kernel)
    assert f"OPENBLAS_CORETYPE={kernel} asks for it" in (asked.remedy or "")


@pytest.mark.parametrize(
    ("kernel", "best"),
    [("SkylakeX", "SKYLAKEX"), ("Zen", "HASWELL"), (None, "SKYLAKEX"), ("Neoversev1", None)],
)
def test_the_doctor_has_no_remedy_for_a_kernel_that_is_not_old(kernel, best) -> None:
    assert doctor.kernel_found(kernel, best, asked=None).remedy is None


def test_the_doctor_finds_what_is_broken(trained: Trained, tmp_path: Path) -> None:
    night = write_night(tmp_path)
    night.home.mkdir()
    assert [finding for finding in doctor.examine(night) if finding.remedy] == []
    scores = publish_night(night.home, 1)
    folder = models.save(trained, night.home, trained_for="this")
    index = night.home / "runs" / night_run(1).run_id / "index" / "items"
    vectors = np.eye(3, dtype=np.float32)
    VectorIndex.build(np.arange(3, dtype=np.int32), vectors).save(index)
    shard = night.home / "cache" / "f" / "000000-aaaa"
    network = night.home / "encoders" / "f"
    for made, name in ((shard, "vectors.npy"), (network, "model.bin")):
        made.mkdir(parents=True)
        (made / name).write_bytes(b"abc")
        seal(made)
    campaign = night.home / "campaigns" / "summer"
    campaign.mkdir(parents=True)
    (campaign / "1.csv").write_text("user_id\n1\n")
    manifest = campaign / "1.json"
    tell(manifest, {"sha256": {"1.csv": sha256(campaign / "1.csv")}})
    assert [finding for finding in doctor.examine(night) if finding.remedy] == []
    victims = {
        "nights": scores,
        "models": folder / "buy.json",
        "indexes": index / "ids.npy",
        "vectors": shard / "vectors.npy",
        "encoders": network / "model.bin",
        "lists": campaign / "1.csv",
    }
    for path in victims.values():
        flip(path, 0.7)
    (night.root / "items.parquet").unlink()
    (night.home / publish.CURRENT).unlink()
    (night.home / publish.CURRENT).symlink_to("nowhere")
    broken = {finding.check: finding.said for finding in doctor.examine(night) if finding.remedy}
    assert set(broken) == {*victims, "inputs", "current"}
    for check, path in victims.items():
        assert str(path) in broken[check]
    assert "items.parquet" in broken["inputs"]
    manifest.write_text("{")
    finding = doctor.lists(night.home)
    assert finding.remedy
    assert str(manifest) in finding.said


def exposed(night: Night) -> dict[tuple[str, ...], float]:
    """Samples of the file by name and labels, as Prometheus' own parser reads them."""
    found = {}
    for family in text_string_to_metric_families((night.home / FILE).read_text()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("name") == night.config.name
            found[sample.name.removeprefix("nightrank_"), *labels.values()] = sample.value
    return found


def test_metrics_of_good_and_bad_runs(tmp_path: Path) -> None:
    night = write_night(tmp_path)
    night.home.mkdir()
    refused = pl.DataFrame(
        [
            ("normalised_entropy", "click", 1.5, 0.0, 1.0, False),
            ("predicted_over_observed", "click", float("nan"), 0.7, 1.4, False),
            ("score_drift", "click", 0.1, 0.0, 0.25, True),
        ],
        gates.SCHEMA | {"passed": pl.Boolean},
        orient="row",
    )
    with pytest.raises(GateRefused), reported(night):
        gates.enforce(gates.overridden(refused, override=None))
    found = exposed(night)
    assert found["exit_code",] == 6
    assert found["gate_value", "normalised_entropy", "refused", "click"] == 1.5
    assert found["gate_passed", "normalised_entropy", "refused", "click"] == 0
    assert np.isnan(found["gate_value", "predicted_over_observed", "refused", "click"])
    assert found["gate_passed", "score_drift", "refused", "click"] == 1
    assert not [sample for sample in found if "current" in sample]
    assert ("last_success_timestamp_seconds",) not in found
    with reported(night), night.stages("score"):
        scores = publish_night(night.home, 1)
    good = exposed(night)
    assert good["exit_code",] == 0
    assert good["rows", "predictions"] == 6
    assert good["gate_value", "score_drift", "current", "purchase"] == 0.125
    assert good["gate_passed", "score_drift", "current", "purchase"] == 1
    assert good["gate_passed", "null_share_risen", "current", "price"] == 0
    assert not [sample for sample in good if "refused" in sample]
    assert good["stage_seconds", "score"] > 0
    assert good["last_success_timestamp_seconds",] == pytest.approx(scores.stat().st_mtime)
    with pytest.raises(MemoryError), reported(night):
        raise MemoryError
    bad = exposed(night)
    assert bad["exit_code",] == 5
    assert bad["rows", "predictions"] == 6
    assert bad["last_run_timestamp_seconds",] > good["last_run_timestamp_seconds",]
    assert bad["last_success_timestamp_seconds",] == good["last_success_timestamp_seconds",]
    assert [path.name for path in night.home.glob("metrics*")] == [FILE]
    scores.chmod(0o644)
    scores.write_bytes(b"no night")
    with pytest.raises(Damaged), reported(night):
        nights.check_current(night.home)
    damaged = exposed(night)
    assert damaged["exit_code",] == 5
    assert damaged["rows", "predictions"] == 6
    assert not [sample for sample in damaged if "current" in sample]
