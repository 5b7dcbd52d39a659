"""From log-odds of a model to probabilities that hold."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class CannotCalibrate(Exception):
    """The calibration window holds only one outcome."""


@dataclass(frozen=True)
class Calibration:
    """Probability = sigmoid(slope * log-odds + intercept), a function that never falls.

    Platt, Probabilistic outputs for support vector machines, 1999, on the logit scale.
    """

    slope: float
    intercept: float

    @classmethod
    def fit(cls, log_odds: Floats, happened: NDArray[np.bool_]) -> "Calibration":
        """Maximum likelihood on a window of its own; the mean probability is the base rate.

        Log-odds that rank worse than chance there are not turned round: all probabilities are
        then the base rate.

        Args:
            log_odds: (n,) what the model says.
            happened: (n,) what followed.

        Raises:
            CannotCalibrate: all or none happened.
        """
        from sklearn.linear_model import LogisticRegression

        positives = int(happened.sum())
        if positives in (0, len(happened)):
            raise CannotCalibrate(
                f"{positives} of {len(happened)} pairs of the calibration window happened: "
                "both outcomes are needed; choose a longer horizon or a later as_of"
            )
        centre, spread = float(log_odds.mean()), float(log_odds.std()) or 1.0
        scaled = ((log_odds - centre) / spread)[:, None]
        fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(scaled, happened)
        slope = float(fitted.coef_[0, 0]) / spread
        if slope <= 0:
            return cls(slope=0.0, intercept=float(np.log(positives / (len(happened) - positives))))
        return cls(slope=slope, intercept=float(fitted.intercept_[0]) - slope * centre)

    def __call__(self, log_odds: Floats) -> Floats:
        """(n,) probabilities.

        >>> Calibration(slope=1.0, intercept=0.0)(np.array([0.0])).tolist()
        [0.5]
        """
        from scipy.special import expit

        return np.asarray(expit(self.slope * log_odds + self.intercept))


IDENTITY = Calibration(slope=1.0, intercept=0.0)
