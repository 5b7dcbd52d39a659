"""Several interests of one user, where one mean of the history would lie between them."""

import numpy as np
from numpy.typing import NDArray

from index.rows import PADDING, unit_rows
from index.store import Vectors

# Chosen on the validation items of leave-one-out Beauty; see docs/benchmarks.md.
MOST_INTERESTS = 4
SAME_INTEREST = 0.3


def interests(vectors: Vectors, items: NDArray[np.int32], *, decay: float) -> Vectors:
    """(n, 4, d): directions of the means of each user's clusters of items, zero where fewer.

    Leader clustering (Hartigan, Clustering algorithms, 1975): from the latest item on, each joins
    the cluster of the nearest leader or, where none is near and there is room, leads a new one.

    Args:
        vectors: (n_items, d) unit length; zero rows are in no cluster.
        items: (n, m) a user's items, the latest first, padded with -1.
        decay: weight of each item in its cluster relative to the next later one of the user.
    """
    everybody = np.arange(len(items))
    leaders = np.zeros((len(items), MOST_INTERESTS, vectors.shape[1]), dtype=np.float32)
    sums = np.zeros_like(leaders)
    opened = np.zeros(len(items), dtype=np.int64)
    for place, column in enumerate(items.T):
        vector = np.where((column != PADDING)[:, None], vectors[column], 0.0).astype(np.float32)
        cosine = np.einsum("ncd,nd->nc", leaders, vector)
        cosine[np.arange(MOST_INTERESTS) >= opened[:, None]] = -np.inf
        apart = (cosine.max(axis=1) < SAME_INTEREST) & (opened < MOST_INTERESTS)
        leads = apart & vector.any(axis=1)
        cluster = np.where(leads, opened, cosine.argmax(axis=1))
        leaders[everybody[leads], opened[leads]] = vector[leads]
        sums[everybody, cluster] += np.float32(decay**place) * vector
        opened += leads
    return unit_rows(sums)
