"""Nearest vectors: plain FAISS, nightrank's index and the limit, alternately and side by side.

FAISS as its wheel ships runs in a process of its own, as the kernel of a BLAS is chosen once, when
it is loaded. One thread is timed by the processor's seconds, which other work on the machine does
not count in; several are timed by the clock.
"""

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from index.choice import Indexing, choose
from index.library import VARIABLE
from index.store import VectorIndex
from jobs.console import show_table

K = 100
# Spread of the invented vectors' directions: the r-th has r ** -DECAY, about as texts have.
DECAY = 0.4
SMALL_CALL = 32
COLUMNS_PER_PRODUCT = 4096

Vectors = NDArray[np.float32]
Search = Callable[[Vectors], Any]
Sizes = tuple[int, int, int]


def main(
    vectors: Annotated[int, typer.Option(help="Vectors in the corpus.")] = 100_000,
    dimension: Annotated[int, typer.Option(help="Numbers of each.")] = 384,
    queries: Annotated[int, typer.Option(help="Queries of a call.")] = 1024,
    repeats: Annotated[int, typer.Option(help="The median of so many is shown.")] = 5,
    threads: Annotated[int, typer.Option(help="0: one for each core.")] = 1,
    recall: Annotated[float, typer.Option(help="Least recall of what is not exact.")] = 0.999,
) -> None:
    """Print queries per second, times the plain call, and recall of the 100 nearest."""
    sizes = (vectors, dimension, queries)
    threads = threads or os.cpu_count() or 1
    os.environ.pop(VARIABLE, None)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)))
    shipped, ours = (ProcessPoolExecutor(1, get_context("spawn")) for _ in range(2))
    pools = {name: shipped if name.startswith("plain") else ours for name in WAYS}
    made = {name: pool.submit(_made, name, sizes, recall).result() for name, pool in pools.items()}
    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(repeats):
        for name, pool in pools.items():
            speeds[name].append(pool.submit(_speed, name, sizes, recall, threads).result())
    for pool in (shipped, ours):
        pool.shutdown()
    median = {name: statistics.median(found) for name, found in speeds.items()}
    plain = median["plain FAISS"]
    rows = [
        (f"{name}{made[name][0]}", f"{median[name]:,.0f}", f"{median[name] / plain:.2f}",
         made[name][1])
        for name in WAYS
    ]  # fmt: skip
    title = f"{vectors:,} x {dimension}, {queries:,} queries, k = {K}, {threads} threads"
    show_table(title, ["search", "queries/s", "times plain", "recall"], rows)


@cache
def _data(sizes: Sizes) -> tuple[Vectors, Vectors]:
    """Corpus and queries of unit length, whose directions are spread as those of texts."""
    n, dimension, queries = sizes
    rng = np.random.default_rng(0)
    spread = (np.arange(1, dimension + 1) ** -DECAY).astype(np.float32)
    drawn = rng.standard_normal((n + queries, dimension), dtype=np.float32) * spread
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn[:n], drawn[n:]


def _plain(sizes: Sizes, _: float) -> tuple[str, Search]:
    import faiss

    flat = faiss.IndexFlatIP(sizes[1])
    flat.add(_data(sizes)[0])
    return "", lambda asked: flat.search(asked, K)[::-1]


def _exact(sizes: Sizes, _: float) -> tuple[str, Search]:
    corpus = _data(sizes)[0]
    index = VectorIndex.build(np.arange(len(corpus), dtype=np.int32), corpus)
    return "", lambda asked: index.search(asked, K)


def _quantised(sizes: Sizes, recall: float) -> tuple[str, Search]:
    corpus, asked = _data(sizes)
    indexing = Indexing(100, ("quantised",), recall, sample=256)
    ids = np.arange(len(corpus), dtype=np.int32)
    index = choose(ids, corpus, indexing, asked=lambda most: asked[:most])
    return f" (effort {index.choice.effort})", lambda asked: index.search(asked, K)


def _product(sizes: Sizes, _: float) -> tuple[str, Search]:
    corpus, asked = _data(sizes)
    room = np.empty((len(asked), COLUMNS_PER_PRODUCT), dtype=np.float32)

    def products(asked: Vectors) -> None:
        for start in range(0, len(corpus), COLUMNS_PER_PRODUCT):
            block = corpus[start : start + COLUMNS_PER_PRODUCT]
            np.matmul(asked, block.T, out=room[: len(asked), : len(block)])

    return "", products


def _int8_products(sizes: Sizes, _: float) -> tuple[str, Search]:
    corpus, asked = (torch.from_numpy((127 * part).astype(np.int8)) for part in _data(sizes))

    def products(_: Vectors) -> None:
        for start in range(0, len(corpus), COLUMNS_PER_PRODUCT):
            torch._int_mm(asked, corpus[start : start + COLUMNS_PER_PRODUCT].T)

    return "", products


MAKERS: dict[str, Callable[[Sizes, float], tuple[str, Search]]] = {
    "plain FAISS": _plain,
    "nightrank, exact": _exact,
    "nightrank, quantised": _quantised,
    "limit: float32 products alone": _product,
    "limit: int8 products alone": _int8_products,
}
IN_CALLS = f", calls of {SMALL_CALL}"
WAYS = (
    "plain FAISS", f"plain FAISS{IN_CALLS}", "nightrank, exact", f"nightrank, exact{IN_CALLS}",
    "nightrank, quantised", "limit: float32 products alone", "limit: int8 products alone",
)  # fmt: skip


@cache
def _way(maker: str, sizes: Sizes, recall: float) -> tuple[str, Search]:
    return MAKERS[maker](sizes, recall)


def _made(name: str, sizes: Sizes, recall: float) -> tuple[str, str]:
    """What more there is to say of a way, and the recall of its first queries."""
    more, search = _way(name.removesuffix(IN_CALLS), sizes, recall)
    corpus, asked = _data(sizes)
    found = search(asked[:SMALL_CALL])
    if found is None:
        return more, ""
    least = -np.partition(-(asked[:SMALL_CALL] @ corpus.T), K - 1, axis=1)[:, K - 1, None]
    pairs = np.einsum("qd,qkd->qk", asked[:SMALL_CALL], corpus[found[0]])
    return more, f"{(pairs >= least - 1e-6).mean():.5f}"


def _speed(name: str, sizes: Sizes, recall: float, threads: int) -> float:
    """Queries per second of one go."""
    _, search = _way(name.removesuffix(IN_CALLS), sizes, recall)
    asked, call = _data(sizes)[1], sizes[2]
    if name.endswith(IN_CALLS):  # an eighth tells as much, and plain FAISS takes long
        asked, call = asked[: max(len(asked) // 8, SMALL_CALL)], SMALL_CALL
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    for first in range(0, len(asked), call):
        search(asked[first : first + call])
    return len(asked) / (clock() - start)


if __name__ == "__main__":
    typer.run(main)
