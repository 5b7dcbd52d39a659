"""What proposes rows where a corpus is too large to be searched through: faster, and not exact."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index.library import import_faiss

Kind = Literal["ivf", "hnsw", "quantised"]

# How hard is searched, in steps: each finds more than the one before and takes longer.
EFFORTS = (1, 2, 4, 8, 16, 32)
# Exact search proposes so many more than it is asked for, as the matrix product and the similarity
# of a pair are rounded differently.
SPARE = 16
LISTS_PER_ROOT = 4
VECTORS_PER_LIST = 40
VECTORS_TRAINED_PER_LIST = 64
LEAST_TRAINED = 65536
PROBES = 8
EXPLORED = 64


class Choice(NamedTuple):
    """How a corpus is searched.

    Attributes:
        kind: `exact`, or the kind that proposes.
        effort: how hard that searches, one of `EFFORTS`; 0 for exact search.
        recall: share of the 100 nearest that it finds, mean of the sample.
        sample: number of queries that this was measured on; 0 for exact search.
        refused: kinds that were tried before and found too little.
    """

    kind: Literal["exact"] | Kind
    effort: int
    recall: float
    sample: int
    refused: tuple[str, ...] = ()


EXACT = Choice("exact", effort=0, recall=1.0, sample=0)


def make(kind: Kind, vectors: NDArray[np.float32]) -> Any:
    """A FAISS index whose row r holds, roughly, `vectors[r]`.

    `ivf`: k-means lists of product codes of 4 bits for two dimensions, looked up in registers
    (André et al., Quicker ADC, 2019), after a random rotation that evens out the dimensions.
    `quantised`: the same codes, all of them looked through. `hnsw`: Malkov and Yashunin, Efficient
    and robust approximate nearest neighbor search using hierarchical navigable small world graphs,
    2016, of bytes.

    Built by one thread with FAISS's fixed seeds, so that it is the same on any number of cores.

    Args:
        kind: which.
        vectors: (n, d) with n >= 100.
    """
    faiss = import_faiss()
    n, d = vectors.shape
    lists = int(min(LISTS_PER_ROOT * n**0.5, n / VECTORS_PER_LIST))
    even = d + d % 2
    recipe = {
        "ivf": f"RR{even},IVF{lists},PQ{even // 2}x4fs",
        "quantised": f"RR{even},PQ{even // 2}x4fs",
        "hnsw": "HNSW32_SQ8",
    }[kind]
    index = faiss.index_factory(d, recipe, faiss.METRIC_INNER_PRODUCT)
    trained = min(n, max(VECTORS_TRAINED_PER_LIST * lists, LEAST_TRAINED))
    with threadpool_limits(limits=1):
        index.train(vectors[np.linspace(0, n - 1, trained).astype(np.int64)])
        index.add(vectors)
    return index


def write(index: Any, path: Path) -> None:
    """Keep an index that `make` gave."""
    import_faiss().write_index(index, str(path))


def read(path: Path) -> Any:
    """The index that `write` kept."""
    return import_faiss().read_index(str(path))


def search_with(index: Any, choice: Choice) -> None:
    """Let an index that `make` gave search as hard as chosen."""
    if choice.kind == "ivf":
        import_faiss().extract_index_ivf(index).nprobe = PROBES * choice.effort
    elif choice.kind == "hnsw":
        index.hnsw.efSearch = EXPLORED * choice.effort


def proposed(choice: Choice, k: int) -> int:
    """So many rows are proposed for the `k` that are asked for."""
    if choice.kind == "exact":
        return k + SPARE
    effort = choice.effort
    return k * {"ivf": max(4, effort // 2), "hnsw": 2, "quantised": 2 * effort}[choice.kind]
