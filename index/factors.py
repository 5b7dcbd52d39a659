"""Matrix factorisation: items as short vectors, from who used what."""

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index.store import Vectors

# Chosen on the validation items of leave-one-out Beauty; see docs/benchmarks.md.
FACTORS = 64
USER_DAMPING = 0.5
ITEM_DAMPING = 0.3
OVERSAMPLES = 16
ITERATIONS = 4


def item_factors(latest: pl.DataFrame, n_items: int, *, factors: int = FACTORS) -> Vectors:
    """(n_items, factors): V S of the truncated singular value decomposition U S V' of the users.

    A user's row holds, for each item used, (items of the user) ** -0.5 * (users of the item) **
    -0.3. The inner product of two items is their entry in the best approximation of rank
    `factors` to the product of the columns. As in Cremonesi et al., Performance of recommender
    algorithms on top-N recommendation tasks, RecSys 2010; the decomposition is that of Halko et
    al., SIAM Review 2011, with a fixed seed.

    Args:
        latest: as `index.neighbours.latest_first` gives it.
        n_items: number of rows of the result; those of items without users are zero.
        factors: length of the vectors.
    """
    from sklearn.utils.extmath import randomized_svd

    # Users and items without events are left out: their number must not move the random start.
    users, row, of_user = _numbered(latest, "user")
    items, column, of_item = _numbered(latest, "item")
    found = np.zeros((n_items, factors), dtype=np.float32)
    rank = min(factors, len(users), len(items))
    if rank > 0:
        values = of_user[row] ** -USER_DAMPING * of_item[column] ** -ITEM_DAMPING
        matrix = sp.csr_array((values, (row, column)), shape=(len(users), len(items)))
        with threadpool_limits(limits=1):  # several threads would round differently
            _, strength, directions = randomized_svd(
                matrix, rank, n_oversamples=OVERSAMPLES, n_iter=ITERATIONS, random_state=0
            )
        found[items, :rank] = directions.T * strength
    return found


def _numbered(
    latest: pl.DataFrame, name: str
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]]:
    """The distinct values of a column, the place of each row's value in them, and their counts."""
    values = latest.get_column(name).to_numpy()
    distinct, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return distinct, place, count.astype(np.float64)
