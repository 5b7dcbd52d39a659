"""Frees text vectors of what all of them share, so that near means near in what differs."""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index.rows import unit_rows
from index.store import Vectors

DIMENSIONS = 256
VECTORS_PER_DIMENSION = 4
SMALLEST = 1e-6


def whitened(vectors: Vectors, fitted_on: NDArray[np.bool_]) -> Vectors:
    """Centred, decorrelated and scaled to equal spread, then of unit length.

    Su et al., Whitening sentence representations for better semantics, 2021. The dimensions of
    least spread are dropped.

    Args:
        vectors: (n, d) float32; zero rows stand for "no text" and stay zero.
        fitted_on: (n,) the rows that mean and spread are taken from.
    """
    present = vectors.any(axis=1)
    fitting = vectors[present & fitted_on].astype(np.float64)
    if len(fitting) < 2 * VECTORS_PER_DIMENSION:
        return vectors
    mean = fitting.mean(axis=0)
    with threadpool_limits(limits=1):  # several threads would round differently
        spread, directions = np.linalg.eigh(np.cov(fitting, rowvar=False))
        kept = min(DIMENSIONS, len(fitting) // VECTORS_PER_DIMENSION, len(spread))
        del fitting  # as large as what comes next
        kept = min(kept, int((spread > SMALLEST * spread[-1]).sum()))
        scaled = directions[:, ::-1][:, :kept] / np.sqrt(spread[::-1][:kept])
        moved = ((vectors - mean) @ scaled).astype(np.float32)
    moved[~present] = 0.0
    return unit_rows(moved)
