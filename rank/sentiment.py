"""How a review speaks of its item: by its rating, else by what rated reviews of like text say."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rank.calibrate import Floats

NEUTRAL = 0.5
# Of more rated texts, the head learns from the newest.
NEWEST = 50_000


@dataclass(frozen=True)
class Head:
    """Expected sentiment of a text: sigmoid(w x + b) of its vector x.

    Attributes:
        weights: (d,) w.
        intercept: b.
    """

    weights: Floats
    intercept: float

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], sentiment: Floats) -> "Head":
        """Logistic regression on shares: a text of sentiment s counts s glad and 1 - s sorry.

        Papke and Wooldridge, Econometric methods for fractional response variables, Journal of
        Applied Econometrics, 1996; with a unit L2 penalty. The same for any number of threads.

        Args:
            vectors: (n, d) unit length.
            sentiment: (n,) from 0 to 1, not all of them 0 nor all 1.
        """
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        glad, sorry = sentiment > 0, sentiment < 1
        x = np.concatenate([vectors[glad], vectors[sorry]])
        with threadpool_limits(limits=1):
            fitted = LogisticRegression(max_iter=1000).fit(
                x.astype(np.float64),
                np.repeat([True, False], [glad.sum(), sorry.sum()]),
                sample_weight=np.concatenate([sentiment[glad], 1 - sentiment[sorry]]),
            )
        return cls(fitted.coef_[0], float(fitted.intercept_[0]))

    def __call__(self, vectors: NDArray[np.float32]) -> Floats:
        """(n,) expected sentiment of `vectors` (n, d)."""
        from scipy.special import expit

        return np.asarray(expit(vectors.astype(np.float64) @ self.weights + self.intercept))


def sentiments(
    ratings: Floats,
    vectors: NDArray[np.float32],
    *,
    scale: tuple[float, float] | None,
    least_rated: int,
) -> Floats:
    """(n,) from 0 (sorry) to 1 (glad) for each review, `NEUTRAL` where nothing tells.

    Args:
        ratings: (n,) in the order of time, NaN where there is none.
        vectors: (n, d) of the texts, unit length, zero where there is none.
        scale: the worst and the best rating; None takes the least and the greatest there are.
        least_rated: with fewer rated texts than this, no text is judged.
    """
    found = on_scale(ratings, scale)
    rated, written = ~np.isnan(found), vectors.any(axis=1)
    asked, known = written & ~rated, np.flatnonzero(written & rated)[-NEWEST:]
    mean = found[known].mean() if len(known) else NEUTRAL
    if asked.any() and len(known) >= least_rated and 0 < mean < 1:
        found[asked] = Head.fit(vectors[known], found[known])(vectors[asked])
    return np.where(np.isnan(found), NEUTRAL, found)


def on_scale(ratings: Floats, scale: tuple[float, float] | None) -> Floats:
    """(n,) ratings as parts of the way from the worst to the best; NaN where that is not known.

    >>> on_scale(np.array([1.0, 4.0, np.nan, 9.0]), (1.0, 5.0)).tolist()
    [0.0, 0.75, nan, 1.0]
    """
    if np.isnan(ratings).all():
        return ratings.copy()
    worst, best = scale or (np.nanmin(ratings), np.nanmax(ratings))
    if worst == best:  # that everybody gives the same tells nothing
        return np.full_like(ratings, np.nan)
    return np.asarray(np.clip((ratings - worst) / (best - worst), 0.0, 1.0))
