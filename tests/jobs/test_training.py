"""Calibration of what is published, and champion against challenger."""

import gc
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from nights import AS_OF, SHOP, make_material, write_night
from polars.testing import assert_frame_equal

from embed import Encoder
from index.snapshot import Snapshot
from jobs import models, nightly
from jobs.examples import examples_of
from jobs.judging import _ordered
from jobs.outcomes import outcomes_of
from jobs.propensity import people_of
from jobs.state import Material, State
from jobs.training import SCRATCH, Trained, train_models
from rank.examples import joined
from rank.labels import labels
from rank.windows import training_windows

EARLIER = AS_OF - timedelta(days=14)
POOR = {"max_rounds": 1, "learning_rate": 0.001}
FEW_ROUNDS = SHOP.replace("max_rounds = 60", "max_rounds = 20")


def limited(material: Material, **options: float) -> Material:
    training = material.config.training.model_copy(update=options)
    return replace(material, config=material.config.model_copy(update={"training": training}))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, static_encoder: Encoder) -> Material:
    night = write_night(tmp_path_factory.mktemp("training"), FEW_ROUNDS)
    return make_material(night, static_encoder)


@pytest.fixture(scope="module")
def champion(material: Material) -> Trained:
    return train_models(material, EARLIER)


def trees(trained: Trained) -> list[str]:
    return [model.classifier.text + model.ranker.text for model in trained.models]


def test_the_published_probabilities_add_up_to_what_happened_in_the_test_window(
    material: Material, champion: Trained, tmp_path: Path
) -> None:
    test = training_windows(EARLIER, horizon_days=14, train=2).test
    state = State(material, test, champion.projection)
    outcomes = outcomes_of(state, champion.models, {}, {}, folder=tmp_path / "outcomes")
    told = champion.metrics.filter(
        pl.col("model") == "nightrank",
        pl.col("segment") == "all",
        pl.col("metric") == "predicted_over_observed",
    )
    for outcome, reported in zip(outcomes, told.get_column("value"), strict=True):
        expected, happened = outcome.select("probability", "happened").sum().collect().row(0)
        assert expected == pytest.approx(happened, rel=1e-4)
        assert abs(reported - 1) > 1e-3  # the metrics are of the window before


def test_a_calibration_of_another_behaviour_does_not_add_up(
    material: Material, champion: Trained, tmp_path: Path
) -> None:
    """What the test above holds is broken by that fault, however near the two calibrations."""
    test = training_windows(EARLIER, horizon_days=14, train=2).test
    click, purchase = champion.models
    mixed_up = [
        click.calibrated(purchase.calibration, purchase.threshold),
        purchase.calibrated(click.calibration, click.threshold),
    ]
    state = State(material, test, champion.projection)
    for outcome in outcomes_of(state, mixed_up, {}, {}, folder=tmp_path / "outcomes"):
        expected, happened = outcome.select("probability", "happened").sum().collect().row(0)
        assert expected != pytest.approx(happened, rel=0.02)


def test_the_order_follows_what_ordered_the_calibration_window_better(
    material: Material, champion: Trained
) -> None:
    state = State(material, AS_OF - timedelta(days=14), champion.projection)
    targets = material.targets("click", state.as_of)
    pairs = state.candidates(state.users).select("user", "item")
    told = labels(pairs, targets).astype(float)
    (model,) = (replace(m, ordered_by="ranker") for m in champion.models if m.behaviour == "click")
    for order, score, chosen in ((told, -told, "ranker"), (-told, told, "classifier")):
        outcome = pairs.with_columns(order=pl.Series(order), score=pl.Series(score))
        assert _ordered(model, outcome.lazy(), state).ordered_by == chosen
    even = pairs.with_columns(order=pl.Series(told), score=pl.Series(told))
    assert _ordered(model, even.lazy(), state) == model


def test_one_and_two_threads_train_the_same_models(material: Material) -> None:
    """The two-tower model, which the shop does without, has such a test of its own."""
    versions = []
    for threads in (1, 2):
        quick = limited(material, max_rounds=8)
        scoring = quick.config.scoring.model_copy(update={"threads": threads})
        config = quick.config.model_copy(update={"scoring": scoring})
        trained = train_models(replace(quick, config=config), EARLIER)
        versions.append((trained.version, trees(trained), trained.models, trained.propensities))
    assert versions[0] == versions[1]


def test_a_sample_teaches_the_order_where_a_window_holds_too_many_pairs(
    material: Material, champion: Trained
) -> None:
    start = AS_OF - timedelta(days=14)
    buyers = material.targets("purchase", start).get_column("user").n_unique()
    half = limited(material, order_pairs=buyers * material.config.candidates.per_user // 2)
    states = [State(m, start, champion.projection) for m in (material, half)]
    whole, some = (joined(examples_of(state)["purchase"]) for state in states)
    for name in ("features", "users", "happened", "weight"):
        again = getattr(joined(examples_of(states[1], whole=True)["purchase"]), name)
        assert np.array_equal(getattr(whole, name), again, equal_nan=name == "features")
    assert some.happened.sum() == whole.happened.sum()
    for name in ("users", "happened", "weight"):  # the probability is learnt from the same
        one, other = (getattr(e, name)[e.rows("binary")] for e in (whole, some))
        assert np.array_equal(one, other)
    rows = {name: e.rows("lambdarank") for name, e in (("whole", whole), ("some", some))}
    assert set(some.users[rows["some"]]) == set(whole.users[rows["whole"]])
    negatives = [(e.rows("lambdarank") & ~e.happened).sum() for e in (some, whole)]
    assert negatives[0] / negatives[1] == pytest.approx(0.5, abs=0.05)


def test_examples_in_files_are_those_in_memory(
    material: Material, champion: Trained, tmp_path: Path
) -> None:
    state = State(material, AS_OF - timedelta(days=14), champion.projection)
    inside, outside = examples_of(state), examples_of(state, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == sum(map(len, inside.values()))
    for behaviour, parts in inside.items():
        assert all(isinstance(part.features, pl.LazyFrame) for part in outside[behaviour])
        one, other = joined(parts), joined(outside[behaviour])
        assert_frame_equal(one.read(), other.read(), check_exact=True)
        for name in ("users", "happened", "weight"):
            assert np.array_equal(getattr(one, name), getattr(other, name))


def test_one_window_at_a_time_is_held_and_nothing_is_left(
    material: Material, champion: Trained, tmp_path: Path
) -> None:
    files, held = [], []
    before = matrices()

    def look(_: str) -> None:
        files.append(len(list(tmp_path.glob(f"{SCRATCH}*/*.arrow"))))
        held.append(matrices() - before)

    quick = limited(material, max_rounds=2)
    train_models(quick, EARLIER, champion=champion, scratch=tmp_path, on_progress=look)
    # As the windows begin: two to learn from, to stop on, to calibrate on, to test on.
    assert files[:5] == [0, 6, 12, 18, 18]  # three shards for each of two behaviours
    assert held[:5] == [0, 1, 1, 0, 0]  # the last of those learnt from went before trees grew
    assert matrices() == before
    assert list(tmp_path.iterdir()) == []


def matrices() -> int:
    """The number of snapshots in memory."""
    gc.collect()
    return sum(type(found) is Snapshot for found in gc.get_objects())


def test_a_window_whose_horizon_is_not_over_gives_no_labels(
    material: Material, champion: Trained
) -> None:
    over = AS_OF - timedelta(days=14)
    assert material.targets("click", over).height > 100
    for start in (over + timedelta(microseconds=1), AS_OF):
        state = State(material, start, champion.projection)
        for learn in (examples_of, people_of):
            with pytest.raises(ValueError, match=r"horizon ends at 2025-06-.*before 2025-06-01"):
                learn(state)


def test_without_a_champion_there_is_no_contest(champion: Trained) -> None:
    assert champion.contest.is_empty()


def test_new_trees_that_are_worse_leave_the_champion_in_place(
    material: Material, champion: Trained
) -> None:
    trained = train_models(limited(material, **POOR), AS_OF, champion=champion)
    assert trained.contest["worse"].any()
    assert trained.contest["champion"].unique().to_list() == [champion.version]
    assert trees(trained) == trees(champion)
    assert trained.as_of == AS_OF
    assert trained.models[0].calibration != champion.models[0].calibration


def test_new_trees_that_are_better_replace_the_champion(material: Material) -> None:
    poor = train_models(limited(material, **POOR), EARLIER)
    trained = train_models(material, AS_OF, champion=poor)
    assert not trained.contest["worse"].any()
    assert (trained.contest["high"] < 0).any()
    assert set(trees(trained)).isdisjoint(trees(poor))


def test_a_champion_against_itself_stays_the_same_in_every_metric(
    material: Material, champion: Trained
) -> None:
    """Both sides are calibrated and tested on the same windows by the same code."""
    again = train_models(material, EARLIER, champion=champion)
    assert again.contest["difference"].to_list() == [0.0, 0.0]
    assert_frame_equal(again.metrics, champion.metrics)
    assert trees(again) == trees(champion)


def test_the_champion_is_the_newest_model_before(tmp_path, champion: Trained) -> None:
    for days, made_for in ((9, "a"), (3, "a"), (1, "b"), (0, "a")):
        kept = replace(champion, as_of=AS_OF - timedelta(days=days))
        models.save(kept, tmp_path, trained_for=made_for)
    found = models.champion(tmp_path, AS_OF, trained_for="a")
    assert found.as_of == AS_OF - timedelta(days=3)
    assert_frame_equal(found.contest, champion.contest)
    assert models.champion(tmp_path, AS_OF - timedelta(days=9), trained_for="a") is None


def test_the_second_training_of_a_home_has_a_contest(tmp_path) -> None:
    night = write_night(tmp_path, FEW_ROUNDS)
    first = replace(night, as_of=EARLIER)
    trained = nightly.train(first, nightly.prepare(first))
    later = nightly.train(night, nightly.prepare(night))
    assert later.contest["champion"].unique().to_list() == [trained.version]
    assert np.isfinite(later.contest.select("difference", "low", "high").to_numpy()).all()
