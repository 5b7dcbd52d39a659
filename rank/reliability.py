"""Predicted against observed by bins: where probabilities hold, and where they do not."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rank.calibrate import Floats
from rank.metrics import BINS, Labels

CONFIDENCE = 0.95
SCHEMA = {
    "bins": pl.String,
    "bin": pl.Int32,
    "pairs": pl.Int64,
    "positives": pl.Int64,
    "predicted": pl.Float64,
    "observed": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}

Rows = NDArray[np.int64]
# A bin's ratio is judged from so many positives on: chance moves that of 50 by some 14%.
LEAST_POSITIVES = 50


def reliability(happened: Labels, probability: Floats, *, bins: int = BINS) -> pl.DataFrame:
    """Two ways of cutting the pairs, least probable first, ties in the order given.

    `pairs` makes bins of equal size, those of `rank.metrics.calibration_error`. Where little
    happens, the last of them holds most of it; `expected` makes bins of equal sums of
    probabilities, which look closer there. A pair goes where the middle of its share falls.

    Args:
        happened: (n,) outcomes.
        probability: (n,) aligned.
        bins: how many of each; those that get no pair are left out.

    Returns:
        `bins` (`pairs` or `expected`), `bin` from 1, `pairs`, `positives`, `predicted` (mean
        probability), `observed` (share that happened), and from `low` to `high` its interval of
        95% by `binomial_interval`.
    """
    columns = []
    for name, parts in _cuts(probability, bins).items():
        for number, part in enumerate(parts, 1):
            if len(part):
                predicted = float(probability[part].mean())
                columns.append((name, number, len(part), int(happened[part].sum()), predicted))
    frame = pl.DataFrame(columns, dict(list(SCHEMA.items())[:5]), orient="row")
    pairs, positives = (frame.get_column(n).to_numpy() for n in ("pairs", "positives"))
    low, high = binomial_interval(positives, pairs)
    observed = pl.col("positives") / pl.col("pairs")
    return frame.with_columns(observed=observed, low=pl.Series(low), high=pl.Series(high))


def bin_ratios(bins: pl.DataFrame, *, least: int = LEAST_POSITIVES) -> dict[str, float]:
    """How far the worst bins are off.

    Args:
        bins: as `reliability` gives them, of both ways of cutting.
        least: bins with fewer positives are left out.

    Returns:
        bin_ratio_low and bin_ratio_high: least and most of predicted over observed; NaN where no
        bin is left.
    """
    judged = bins.filter(pl.col("positives") >= least)
    ratio = (judged.get_column("predicted") / judged.get_column("observed")).to_numpy()
    low, high = (ratio.min(), ratio.max()) if len(ratio) else (np.nan, np.nan)
    return {"bin_ratio_low": float(low), "bin_ratio_high": float(high)}


def _cuts(probability: Floats, bins: int) -> dict[str, list[Rows]]:
    order = np.argsort(probability, kind="stable")
    half = probability[order]
    middle = np.cumsum(half)
    total = middle[-1] if len(middle) else 0.0
    half /= 2.0  # in place: there may be ten million
    middle -= half
    edges = np.searchsorted(middle, total * np.arange(1, bins) / bins)
    return {"pairs": np.array_split(order, bins), "expected": np.split(order, edges)}


def binomial_interval(
    positives: NDArray[np.int64], pairs: NDArray[np.int64], *, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """(n,) lower and (n,) upper bounds of the shares that (n,) counts are draws of.

    Clopper and Pearson, Biometrika 1934: holds with at least this confidence, few positives
    included, for independent pairs. Those of one user are not quite, so the truth is wider.

    >>> low, high = binomial_interval(np.array([0]), np.array([100]))
    >>> low.round(4).tolist(), high.round(4).tolist()
    ([0.0], [0.0362])
    """
    from scipy.special import betaincinv

    tail, others = (1 - confidence) / 2, pairs - positives
    low = betaincinv(np.maximum(positives, 1), others + 1, tail)
    high = betaincinv(positives + 1, np.maximum(others, 1), 1 - tail)
    return np.where(positives > 0, low, 0.0), np.where(others > 0, high, 1.0)
