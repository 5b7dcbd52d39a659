import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from growing import PARAMETERS as GROWN
from scipy.special import expit

from rank.examples import Example
from rank.propensity import LEAST, Propensity

PARAMETERS = replace(GROWN, min_rows_per_leaf=50, max_rounds=200)


def people(n: int, seed: int) -> tuple[Example, np.ndarray]:
    """Users whose true probabilities are known; two in ten have never done anything."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, 3)).astype(np.float32)
    idle = rng.random(n) < 0.2
    table[idle, 0] = np.nan
    truth = np.where(idle, 0.01, expit(-2.0 + table[:, 0]))
    features = pl.DataFrame(table, schema=["recency", "noise", "more_noise"])
    everybody = np.ones(n, np.float32)
    return Example(features, np.arange(n, dtype=np.int32), rng.random(n) < truth, everybody), truth


def with_positives(example: Example, count: int) -> Example:
    return replace(example, happened=np.arange(len(example.happened)) < count)


def fitted(examples: list[Example], **changes: int) -> Propensity:
    *train, stop, calibrate = examples
    return Propensity.fit(
        train,
        stop,
        calibrate,
        behaviour="buy",
        horizon_days=7,
        parameters=replace(PARAMETERS, **changes),
    )


@pytest.fixture(scope="module")
def windows() -> list[Example]:
    return [people(30_000, seed)[0] for seed in range(4)]


@pytest.fixture(scope="module")
def model(windows: list[Example]) -> Propensity:
    return fitted(windows)


def test_probabilities_are_near_the_true_ones_those_of_idle_users_too(model: Propensity) -> None:
    test, truth = people(20_000, seed=9)
    probability = model(test.features, threads=1)
    assert np.abs(probability - truth).mean() < 0.1 * truth.mean()
    idle = test.features.get_column("recency").is_nan().to_numpy()
    assert probability[idle].mean() == pytest.approx(0.01, abs=0.005)
    assert probability.mean() == pytest.approx(truth.mean(), rel=0.05)


def test_the_threshold_is_the_best_on_the_calibration_window(
    model: Propensity, windows: list[Example]
) -> None:
    from sklearn.metrics import f1_score

    happened = windows[-1].happened
    probability = model(windows[-1].features, threads=1)
    best = f1_score(happened, probability >= model.threshold)
    others = [f1_score(happened, probability >= t) for t in np.linspace(0.01, 0.9, 90)]
    assert best >= max(others)


def test_trees_are_small_whatever_the_pairs_need(model: Propensity, windows: list[Example]) -> None:
    assert fitted(windows, num_leaves=63) == model
    assert fitted(windows, num_leaves=3) != model


def test_one_and_two_threads_give_the_same(model: Propensity, windows: list[Example]) -> None:
    assert fitted(windows, threads=2) == model
    test = people(500, seed=9)[0].features
    assert np.array_equal(model(test, threads=1), model(test, threads=2))


@pytest.mark.parametrize("window", range(4))
@pytest.mark.parametrize("others", [True, False])
def test_too_few_of_either_outcome_in_a_window_give_everybody_the_base_rate(
    windows: list[Example], window: int, others: bool
) -> None:
    small = [people(300, seed)[0] for seed in range(4)]
    if window < 2:  # the training windows count together
        small[1 - window] = with_positives(small[1 - window], 300 if others else 0)
    few = LEAST - 1
    small[window] = with_positives(small[window], 300 - few if others else few)
    model = fitted(small)
    done = sum(int(example.happened.sum()) for example in small)
    assert model.trees is None
    assert model.base_rate == (done + 0.5) / 1201
    test = people(5, seed=9)[0].features
    assert model(test, threads=1).tolist() == [model.base_rate] * 5
    small[window] = with_positives(small[window], 300 - LEAST if others else LEAST)
    assert fitted(small).trees is not None


def test_nobody_or_everybody_is_never_0_or_1() -> None:
    for count, rate in ((0, 0.5 / 401), (100, 400.5 / 401)):
        always = [with_positives(people(100, seed)[0], count) for seed in range(4)]
        assert fitted(always).base_rate == rate


def test_without_features_there_is_the_base_rate(windows: list[Example]) -> None:
    blank = [replace(e, features=e.features.drop(e.features.columns)) for e in windows]
    model = fitted(blank)
    assert model.trees is None
    done = sum(int(e.happened.sum()) for e in windows)
    assert model.base_rate == (done + 0.5) / (4 * 30_000 + 1)
    assert model(blank[0].features, threads=1).shape == (30_000,)


def test_save_and_load(model: Propensity, tmp_path: Path) -> None:
    base_rate = replace(model, behaviour="größe", trees=None)
    for saved in (model, base_rate):
        saved.save(tmp_path)
        again = Propensity.load(tmp_path, saved.behaviour)
        assert again == saved
        test = people(200, seed=9)[0].features
        assert np.array_equal(again(test, threads=1), saved(test, threads=1))
    assert json.loads((tmp_path / "buy.propensity").read_text())["horizon_days"] == 7
