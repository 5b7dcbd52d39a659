import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from rank.calibrate import IDENTITY, Calibration, CannotCalibrate


def simulated(slope: float, intercept: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(-3, 1.5, n)
    return log_odds, rng.random(n) < expit(slope * log_odds + intercept)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.6, -0.5), (1.8, 2.0)])
def test_recovers_a_known_distortion(slope: float, intercept: float) -> None:
    log_odds, happened = simulated(slope, intercept, 100_000)
    fitted = Calibration.fit(log_odds, happened)
    assert fitted.slope == pytest.approx(slope, abs=0.05)
    assert fitted.intercept == pytest.approx(intercept, abs=0.12)


def test_meets_both_conditions_of_maximum_likelihood() -> None:
    log_odds, happened = simulated(0.7, -1.0, 5_000)
    probability = Calibration.fit(log_odds, happened)(log_odds)
    assert probability.mean() == pytest.approx(happened.mean(), rel=1e-4)
    residual = probability - happened
    assert abs((residual * log_odds).mean()) < 1e-4


def test_scale_and_place_of_the_scores_do_not_matter() -> None:
    log_odds, happened = simulated(1.0, 0.0, 5_000)
    plain = Calibration.fit(log_odds, happened)(log_odds)
    moved = 1_000 * log_odds - 40_000
    np.testing.assert_allclose(Calibration.fit(moved, happened)(moved), plain, atol=1e-4)


def test_equal_scores_get_the_base_rate() -> None:
    log_odds = np.full(100, -4.0)
    happened = np.arange(100) < 13
    np.testing.assert_allclose(Calibration.fit(log_odds, happened)(log_odds), 0.13, atol=1e-5)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=30, unique=True))
def test_order_is_kept(scores: list[float]) -> None:
    ordered = np.sort(scores)
    probability = Calibration(slope=0.7, intercept=-0.4)(ordered)
    assert (np.diff(probability) >= 0).all()
    assert ((probability > 0) & (probability < 1)).all()


def test_identity_is_the_logistic_function() -> None:
    np.testing.assert_allclose(IDENTITY(np.log([1 / 3, 1, 3])), [0.25, 0.5, 0.75])


@pytest.mark.parametrize("outcome", [True, False])
def test_one_outcome_cannot_be_calibrated(outcome: bool) -> None:
    with pytest.raises(CannotCalibrate, match=f"{8 * outcome} of 8 pairs .* longer horizon"):
        Calibration.fit(np.arange(8.0), np.full(8, outcome))


def test_a_score_worse_than_chance_is_not_turned_round() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=4000)
    happened = rng.uniform(size=4000) < 1 / (1 + np.exp(log_odds + 1))
    calibration = Calibration.fit(log_odds, happened)
    np.testing.assert_allclose(calibration(log_odds), happened.mean())
