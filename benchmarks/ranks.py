"""Ranks of test items among all items, misses included."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from index.candidates import FUSION_OFFSET
from rank.examples import Example

Floats = NDArray[np.float64]
K = 10


def middle_ranks(users: NDArray[np.int32], happened: NDArray[np.bool_], score: Floats) -> Floats:
    """For each user with a target, its rank among the user's pairs; ties get the middle rank.

    Args:
        users: (n,) ascending; each has exactly one target.
        happened: (n,) whether the pair is the target.
        score: (n,) higher comes first.

    >>> users, happened = np.array([0, 0, 0]), np.array([False, True, False])
    >>> middle_ranks(users, happened, np.array([2.0, 1.0, 1.0])).tolist()
    [2.5]
    """
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    own = np.repeat(score[happened], np.diff(np.append(starts, len(users))))
    before = (score > own) + 0.5 * ((score == own) & ~happened)
    return np.asarray(np.add.reduceat(before, starts) + 1.0)


def hr_and_ndcg(ranks: Floats, targets: int) -> dict[str, float]:
    """HR@10 and NDCG@10 over all targets; those without a rank are misses.

    >>> hr_and_ndcg(np.array([1.0, 3.0, 11.0]), targets=4)
    {'hr@10': 0.5, 'ndcg@10': 0.375}
    """
    listed = ranks[ranks <= K]
    gain = (1.0 / np.log2(listed + 1.0)).sum()
    return {f"hr@{K}": len(listed) / targets, f"ndcg@{K}": float(gain) / targets}


def fused(features: pl.DataFrame) -> Floats:
    """(n,) reciprocal rank fusion of all generators."""
    ranks = features.select(pl.col("^rank_.*$")).to_numpy()
    return np.asarray(np.nansum(1.0 / (FUSION_OFFSET + ranks), axis=1), dtype=np.float64)


def shared(features: pl.DataFrame) -> Floats:
    """(n,) sum over the generators of each score's share of the user's largest."""
    shares = features.select(pl.col("^share_.*$")).to_numpy()
    return np.asarray(np.nansum(shares, axis=1), dtype=np.float64)


def recall_curve(
    example: Example, targets: int, *, budgets: tuple[int, ...]
) -> Mapping[str, float]:
    """The share of targets within the first candidates of each budget, by fused rank."""
    ranks = middle_ranks(example.users, example.happened, fused(example.read()))
    return {f"recall@{k}": float((ranks <= k).sum()) / targets for k in budgets}
