"""Which kind of search a corpus gets: by its size, and by how much of the nearest it finds."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index import kinds
from index.kinds import EFFORTS, Choice, Kind
from index.store import Ids, VectorIndex, Vectors

RECALL_AT = 100


@dataclass(frozen=True)
class Indexing:
    """What a search has to be like.

    Attributes:
        exact_up_to: a corpus of so many vectors is searched through; at least 100.
        kinds: what is tried for a larger one, in this order.
        least_recall: a kind that finds less of the 100 nearest is refused.
        sample: number of queries that this is measured on.
    """

    exact_up_to: int = 1_000_000
    kinds: tuple[Kind, ...] = ("ivf", "quantised")
    least_recall: float = 0.95
    sample: int = 1000


DEFAULT = Indexing()


def choose(
    ids: Ids,
    vectors: Vectors,
    indexing: Indexing,
    *,
    asked: Callable[[int], Vectors],
    chosen: NDArray[np.bool_] | None = None,
) -> VectorIndex:
    """An index of the chosen vectors that is exact, or the first kind that finds enough.

    Each kind searches harder and harder until it finds enough; where it never does, it is refused
    and the next is tried. Where all are refused, the search is exact.

    Args:
        ids: (n,) the id of each row.
        vectors: (n, d); zero rows are left out.
        indexing: what is enough.
        asked: gives up to so many queries (q, d), such as will be asked; zero rows are left out.
            Where none are left, vectors of the corpus are asked instead.
        chosen: (n,) whether a row takes part; None: all do.
    """
    exact = VectorIndex.build(ids, vectors, chosen)
    if len(exact) <= indexing.exact_up_to:
        return exact
    queries = asked(indexing.sample)
    queries = queries[queries.any(axis=1)]
    if len(queries) == 0:
        queries = vectors[exact.rows[evenly(len(exact), indexing.sample)]]
    nearest = exact.search(queries, RECALL_AT)[1]
    refused: tuple[str, ...] = ()
    for kind in indexing.kinds:
        proposing = kinds.make(kind, vectors[exact.rows])
        for effort in EFFORTS:
            choice = Choice(kind, effort, 0.0, len(queries), refused)
            tried = replace(exact, proposing=proposing, choice=choice)
            found = recall(tried, queries, nearest)
            if found >= indexing.least_recall:
                return replace(tried, choice=choice._replace(recall=found))
        refused += (kind,)
    return replace(exact, choice=exact.choice._replace(refused=refused))


def recall(index: VectorIndex, queries: Vectors, nearest: Vectors) -> float:
    """Share of what exact search finds that the index finds too, mean of the queries.

    Args:
        index: what is measured.
        queries: (q, d).
        nearest: (q, k) similarities that exact search finds for them, best first. An item that is
            as near as the last of them counts as found, whichever of several it is.
    """
    similarities = index.search(queries, nearest.shape[1])[1]
    return float((similarities >= nearest[:, -1:]).mean())


def evenly(n: int, most: int) -> Ids:
    """At most so many of n rows, evenly spaced."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int32)
