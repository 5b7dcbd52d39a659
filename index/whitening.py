"""Frees text vectors of what all of them share, so that near means near in what differs."""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index.rows import ROWS_PER_BLOCK, blocks, unit_rows
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
    present = np.asarray(vectors.any(axis=1))
    fitting = vectors[present & fitted_on].astype(np.float64)
    if len(fitting) < 2 * VECTORS_PER_DIMENSION:
        return vectors
    mean = fitting.mean(axis=0)
    fitting -= mean  # numpy.cov would copy it
    n = len(fitting)
    with threadpool_limits(limits=1):  # several threads would round differently
        spread, directions = np.linalg.eigh(fitting.T @ fitting * (1 / (n - 1)))
        del fitting
        kept = min(DIMENSIONS, n // VECTORS_PER_DIMENSION, len(spread))
        kept = min(kept, int((spread > SMALLEST * spread[-1]).sum()))
        scaled = directions[:, ::-1][:, :kept] / np.sqrt(spread[::-1][:kept])
        moved = np.empty((len(vectors), kept), dtype=np.float32)
        for part in blocks(len(vectors), ROWS_PER_BLOCK):
            block = ((vectors[part] - mean) @ scaled).astype(np.float32)
            block[~present[part]] = 0.0
            moved[part] = unit_rows(block)
    return moved
