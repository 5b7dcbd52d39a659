"""How far a count of rare things may lie from its expectation."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95


def count_interval(
    expected: Floats, spread: Floats, *, confidence: float = CONFIDENCE
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) least and (n,) most that counts with these expectations reach.

    A count is a sum of independent things with unequal probabilities (Poisson-binomial) whose
    level is not sure: all probabilities together are off by a factor with a gamma distribution
    of mean 1. The sum is bounded by a Poisson variable of the same mean, whose tails are wider
    (Hoeffding, Annals of Mathematical Statistics 1956; Anderson and Samuels, Berkeley Symposium
    1967: for counts up to `expected - 1` and from `expected` on, hence the least value of the
    upper bound). With the factor it is a negative binomial one of variance
    `expected + (expected * spread) ** 2`.

    Args:
        expected: (n,) sums of probabilities, not negative.
        spread: (n,) standard deviation of the factor; 0: the level is sure.
        confidence: share of counts within, at least; counts are whole, so it is often more.

    >>> low, high = count_interval(np.array([100.0, 100.0]), np.array([0.0, 0.2]))
    >>> low.tolist(), high.tolist()
    ([81, 61], [120, 148])
    """
    from scipy.stats import nbinom, poisson

    variance = np.square(spread)
    sure = variance == 0
    shape = 1 / np.where(sure, 1.0, variance)
    success = shape / (shape + expected)

    def quantile(share: float) -> Floats:
        mixed = nbinom.ppf(share, shape, success)
        return np.where(sure, poisson.ppf(share, expected), mixed)

    tail = (1 - confidence) / 2
    high = np.maximum(quantile(1 - tail), np.ceil(expected))
    return quantile(tail).astype(np.int64), high.astype(np.int64)
