"""Compresses text vectors to a few dimensions that trees can split on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Values = NDArray[np.float32]
# Of the widest spread: what spreads less is rounding, and differs from machine to machine.
SMALLEST = 1e-6
ROWS_PER_BLOCK = 2**13


@dataclass(frozen=True)
class Projection:
    """Principal components of item vectors.

    Attributes:
        mean: (d,) subtracted first.
        components: (dimensions, d) orthonormal rows, the widest spread first.
    """

    mean: Values
    components: Values

    @classmethod
    def fit(cls, vectors: Values, *, dimensions: int) -> "Projection":
        """Fit on the rows of `vectors` (n, d) that are not zero.

        Fewer rows, or directions that they differ in, give fewer dimensions. The same for any
        number of threads. The caller passes only items known before the first label window.
        """
        from sklearn.decomposition import PCA

        present = vectors[vectors.any(axis=1)]
        count = min(dimensions, *present.shape)
        if count == 0:
            width = vectors.shape[1]
            return cls(np.zeros(width, np.float32), np.zeros((0, width), np.float32))
        pca = PCA(n_components=count, svd_solver="covariance_eigh")
        with threadpool_limits(limits=1):  # several threads would round differently
            pca.fit(present.astype(np.float64))
        spread = pca.explained_variance_
        kept = spread > SMALLEST * spread[0]
        return cls(pca.mean_.astype(np.float32), pca.components_[kept].astype(np.float32))

    def __call__(self, vectors: Values) -> Values:
        """(n, dimensions) float32; NaN for zero rows, which stand for "no text".

        A row has the same values whichever others there are.
        """
        columns = np.empty((len(self.components), len(vectors)), dtype=np.float32)
        for start in range(0, len(vectors), ROWS_PER_BLOCK):
            part = slice(start, start + ROWS_PER_BLOCK)
            columns[:, part] = self._compressed(vectors[part]).T
        return columns.T

    def _compressed(self, vectors: Values) -> Values:
        from rank.lookups import products

        rows, whose = np.arange(len(vectors), dtype=np.int32), np.zeros(len(vectors), np.int64)
        asks, latest = self.components, np.arange(len(self.components), dtype=np.int32)[None]
        none = np.empty((1, 0, len(self.mean)), np.float32)
        found = products(none, latest, asks, whose, vectors - self.mean, rows)
        compressed = np.nan_to_num(found.T)  # the mean itself
        compressed[~vectors.any(axis=1)] = np.nan
        return np.asarray(compressed)
