"""The interval of a difference between two models."""

import numpy as np
import pytest

from rank.bootstrap import loss_difference
from rank.metrics import log_loss


def some(n: int, users: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.05, 0.6, n)
    return rng.integers(0, users, n).astype(np.int32), rng.random(n) < truth, truth


def test_a_model_against_itself_makes_no_difference() -> None:
    users, happened, truth = some(500, 50)
    assert loss_difference(users, happened, truth, truth, seed=0) == (0.0, 0.0, 0.0)


def test_the_difference_is_that_of_the_log_losses_and_lies_in_its_interval() -> None:
    users, happened, truth = some(3000, 300)
    new = np.clip(truth + 0.2, 0, 0.99)
    difference, low, high = loss_difference(users, happened, new, truth, seed=0)
    assert difference == pytest.approx(log_loss(happened, new) - log_loss(happened, truth))
    assert 0 < low < difference < high


def test_the_interval_is_that_of_the_linearised_ratio_for_many_users() -> None:
    users, happened, truth = some(40_000, 4_000)
    new = np.full(len(truth), truth.mean())
    difference, low, high = loss_difference(users, happened, new, truth, seed=1)
    p, q = np.where(happened, truth, 1 - truth), np.where(happened, new, 1 - new)
    excess = np.log(p) - np.log(q) - difference
    by_user = np.bincount(users, weights=excess)
    error = np.sqrt((by_user**2).sum()) / len(truth)
    assert [low, high] == pytest.approx(
        [difference - 1.96 * error, difference + 1.96 * error], rel=0.05
    )


def test_users_are_drawn_and_not_pairs() -> None:
    users, happened, truth = some(400, 40)
    new = np.clip(truth + 0.1, 0, 0.99)
    once = loss_difference(users, happened, new, truth, seed=0)
    tenfold = loss_difference(*(np.tile(x, 10) for x in (users, happened, new, truth)), seed=0)
    assert tenfold == pytest.approx(once)


def test_one_user_has_no_interval() -> None:
    _, happened, truth = some(50, 2)
    _, low, high = loss_difference(np.zeros(50, np.int32), happened, truth, 1 - truth, seed=0)
    assert np.isnan([low, high]).all()
