"""A logistic head on text vectors alone: the plain model that trees are measured against."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rank.calibrate import Floats
from rank.examples import Example


@dataclass(frozen=True)
class Logistic:
    """Log-odds = w x + b of a pair's compressed vectors.

    x holds the principal components of the item and of the user's profile, their products one by
    one, the cosine of the two, and whether any of it is not known; from the features `item_pc_*`,
    `user_pc_*` and `cosine_profile`, as far as they are there.

    Attributes:
        centre: (p,) subtracted first; what is not known is then 0.
        weights: (p,) per unit of x.
        intercept: b.
    """

    centre: Floats
    weights: Floats
    intercept: float

    @classmethod
    def fit(cls, train: Sequence[Example]) -> "Logistic":
        """Maximum likelihood with a unit L2 penalty on standardised x, of sample and positives.

        The same for any number of threads.
        """
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        rows = [example.rows("binary") for example in train]
        kept = list(zip(train, rows, strict=True))
        happened = np.concatenate([e.happened[r] for e, r in kept])
        weight = np.concatenate([e.weight[r] for e, r in kept])
        x = np.concatenate([_inputs(e.read().filter(pl.Series(r))) for e, r in kept])
        known = ~np.isnan(x)
        count = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, x, 0.0).sum(axis=0) / count
        x = np.where(known, x - centre, 0.0)
        spread = np.sqrt((x**2).sum(axis=0) / count)
        spread[spread == 0] = 1.0
        with threadpool_limits(limits=1):
            fitted = LogisticRegression(max_iter=1000).fit(x / spread, happened, weight)
        return cls(centre, fitted.coef_[0] / spread, float(fitted.intercept_[0]))

    def score(self, features: pl.DataFrame, *, threads: int) -> Floats:
        """(n,) log-odds of `features` (n, f), before any correction; of one thread always."""
        x = _inputs(features)
        x = np.where(np.isnan(x), 0.0, x - self.centre)
        return np.asarray((x * self.weights).sum(axis=1) + self.intercept)


def _inputs(features: pl.DataFrame) -> NDArray[np.float64]:
    patterns = (r"item_pc_\d+", r"user_pc_\d+", "cosine_profile")
    item, user, cosine = (_columns(features, pattern) for pattern in patterns)
    x = np.hstack([item, user, item * user, cosine])
    return np.hstack([x, np.isnan(x).any(axis=1, keepdims=True)])


def _columns(features: pl.DataFrame, pattern: str) -> NDArray[np.float64]:
    names = [name for name in features.columns if re.fullmatch(pattern, name)]
    if not names:  # a frame without columns would have no rows
        return np.empty((len(features), 0))
    return features.select(names).to_numpy().astype(np.float64)
