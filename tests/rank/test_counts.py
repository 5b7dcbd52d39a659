"""Intervals of counts against exact distributions, by convolution and by simulation."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rank.counts import count_interval


def poisson_binomial(probabilities: list[float]) -> np.ndarray:
    """The exact distribution of a sum of unequal coins."""
    mass = np.array([1.0])
    for p in probabilities:
        mass = np.convolve(mass, [1 - p, p])
    return mass


@settings(max_examples=200)
@given(st.lists(st.floats(1e-4, 0.999), min_size=1, max_size=60))
def test_sums_of_unequal_coins_lie_within_as_often_as_promised(probabilities) -> None:
    mass = poisson_binomial(probabilities)
    (low,), (high,) = count_interval(np.array([sum(probabilities)]), np.array([0.0]))
    assert mass[:low].sum() <= 0.025 + 1e-12
    assert mass[high + 1 :].sum() <= 0.025 + 1e-12


def test_a_level_that_is_off_is_covered_too() -> None:
    """4,000 worlds: a factor drawn for each, then 500 coins."""
    random = np.random.default_rng(0)
    chances = random.uniform(0.001, 0.1, 500)
    spread = 0.25
    factors = random.gamma(1 / spread**2, spread**2, 4000)
    sums = np.array([(random.random(500) < chances * factor).sum() for factor in factors])
    (low,), (high,) = count_interval(np.array([chances.sum()]), np.array([spread]))
    inside = ((sums >= low) & (sums <= high)).mean()
    assert 0.95 <= inside <= 0.98
    (narrow,), (wide,) = count_interval(np.array([chances.sum()]), np.array([0.0]))
    assert low < narrow < wide < high
    assert ((sums >= narrow) & (sums <= wide)).mean() < 0.9


def test_nothing_expected_is_nothing_to_come() -> None:
    low, high = count_interval(np.array([0.0, 0.0, 0.01]), np.array([0.0, 0.3, 0.3]))
    assert low.tolist() == [0, 0, 0]
    assert high.tolist() == [0, 0, 1]
