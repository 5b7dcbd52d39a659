"""Clusters of items whose texts are alike."""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index.rows import ROWS_PER_BLOCK, blocks
from index.store import Vectors

MOST_CLUSTERS = 64
ITEMS_PER_CLUSTER = 20
# More items than this do not move the centres by much, and cost time.
FITTED_PER_CLUSTER = 256
NO_CLUSTER = -1


def clusters(
    vectors: Vectors, known: NDArray[np.bool_], fitted_on: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """(n,) number of each known row's cluster, -1 without text and for rows not known.

    k-means (Lloyd, Least squares quantization in PCM, 1982) from the centres of k-means++ (Arthur
    and Vassilvitskii, SODA 2007), with a fixed seed: one cluster for every 20 rows fitted on, at
    most 64.

    Args:
        vectors: (n, d) unit length; zero rows stand for "no text".
        known: (n,) the rows that are given a cluster; what the others hold changes nothing.
        fitted_on: (n,) the known rows that centres are taken from.
    """
    from sklearn.cluster import KMeans

    present = vectors.any(axis=1) & known
    fitting = np.flatnonzero(present & fitted_on)
    found = np.full(len(vectors), NO_CLUSTER, dtype=np.int32)
    count = min(MOST_CLUSTERS, len(fitting) // ITEMS_PER_CLUSTER)
    if count == 0:
        return found
    every = -(-len(fitting) // (count * FITTED_PER_CLUSTER))
    # The sums of several threads are added up in any order, and round differently.
    with threadpool_limits(limits=1):
        model = KMeans(count, n_init=1, random_state=0).fit(vectors[fitting[::every]])
        rows = np.flatnonzero(present)
        for part in blocks(len(rows), ROWS_PER_BLOCK):
            found[rows[part]] = model.predict(vectors[rows[part]])
    return found
