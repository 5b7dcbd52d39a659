"""Whether one model is worse than another, by resampling users."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rank.calibrate import Floats
from rank.metrics import Labels, losses

RESAMPLES = 1000
CONFIDENCE = 0.95
# Resampled values held at once.
BLOCK = 10_000_000


def loss_difference(
    users: NDArray[np.int32],
    happened: Labels,
    new: Floats,
    old: Floats,
    *,
    seed: int,
) -> tuple[float, float, float]:
    """How much higher the log loss of `new` is than that of `old`, on the same pairs.

    The pairs of a user are not independent of each other, so users are drawn, not pairs
    (Efron and Tibshirani, An introduction to the bootstrap, 1993, ch. 13: percentiles).

    Args:
        users: (n,) whose pair it is.
        happened: (n,) what followed.
        new: (n,) probabilities.
        old: (n,) probabilities.
        seed: of the draws.

    Returns:
        The mean difference in nats a pair, and the ends of its 95% interval; NaN ends where there
        are fewer than two users.
    """
    from scipy.stats import bootstrap

    excess = losses(happened, new) - losses(happened, old)
    by_user = pl.DataFrame({"user": users, "excess": excess})
    sums = by_user.group_by("user", maintain_order=True).agg(pl.col("excess").sum(), pairs=pl.len())
    data = tuple(sums.get_column(n).to_numpy().astype(np.float64) for n in ("excess", "pairs"))
    difference = float(excess.mean())
    if len(sums) < 2:
        return difference, np.nan, np.nan
    found = bootstrap(
        data,
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, BLOCK // len(sums)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return difference, float(low), float(high)


def _ratio(excess: Floats, pairs: Floats, axis: int) -> Floats:
    return np.asarray(excess.sum(axis=axis) / pairs.sum(axis=axis))
