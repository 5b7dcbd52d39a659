"""Exact search by products of bytes, of which processors with VNNI do four times as many.

What bytes propose is shown to hold everything that is nearest: the product of two rounded vectors
is off by so much at most, and what lies further than twice that behind the best cannot be one of
them. A query for which that does not come out is for others to answer.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.compiling import compiled
from index.library import CPUINFO, flags, import_faiss
from index.rows import ROWS_PER_BLOCK, blocks

LARGEST = 127
# From so many vectors on that is faster than products of floats. How many queries a call has does
# not decide: a user's answer is the same in every shard, whichever of equal neighbours are found.
LEAST_VECTORS = 20_000
BLOCK = 512
COLUMNS_PER_BLOCK = 2048
# One vector of so many is looked at first, to guess how near the nearest are.
SAMPLED = 48
# A query may have so many times the proposals that were guessed.
ROOM = 8
# What rounding of float32 adds, of the product of both lengths: many times what was ever seen.
FLOATS = np.float32(1e-4)
TINY = np.finfo(np.float32).tiny
CHUNK = 32

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@cache
def is_fast(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor multiplies and adds bytes in one instruction, and torch lets it."""
    if "avx512_vnni" not in flags(cpuinfo):
        return False
    import torch

    return hasattr(torch, "_int_mm")  # not part of what torch promises to keep


def serves(vectors: int, k: int) -> bool:
    """Whether queries for their `k` nearest of so many vectors are answered faster than by floats.

    >>> serves(20_000, 100), serves(20_000, 250), serves(19_999, 100)
    (True, False, False)
    """
    return vectors >= max(LEAST_VECTORS, 2 * SAMPLED * k)


@dataclass(frozen=True)
class Int8Vectors:
    """Vectors whose numbers are rounded to bytes.

    They are first turned by a random rotation, which leaves every inner product as it is and
    spreads the numbers of a vector evenly, and then divided each by its own step.

    Attributes:
        rotation: (d, d).
        codes: (n, d) int8 tensor.
        steps: (n,) row r is about `steps[r] * codes[r]`.
        off: length of the longest difference between a row and that.
        length: that of the longest row.
    """

    rotation: Floats
    codes: Any
    steps: Floats
    off: float
    length: float

    @classmethod
    def of(cls, vectors: Floats, rows: Rows) -> "Int8Vectors":
        """Round the vectors (m, d) of some rows (n,), of any lengths; none is zero."""
        import torch

        n, d = len(rows), vectors.shape[1]
        drawn = np.random.default_rng(0).standard_normal((d, d))
        rotation = np.linalg.qr(drawn)[0].astype(np.float32)
        codes, steps = np.empty((n, d), dtype=np.int8), np.empty(n, dtype=np.float32)
        off = length = 0.0
        for block in blocks(n, ROWS_PER_BLOCK):
            exactly = vectors[rows[block]]
            codes[block], steps[block], differences = _rounded(exactly @ rotation)
            off = max(off, float(differences.max()))
            length = max(length, float(np.linalg.norm(exactly, axis=1).max()))
        return cls(rotation, torch.from_numpy(codes), steps, off, length)

    def nearest(
        self, asked: Floats, k: int, similarities: Callable[[Floats, Rows], Floats]
    ) -> tuple[Rows, NDArray[np.bool_]]:
        """Rows among which the `k` nearest of each query are.

        Args:
            asked: (q, d) queries, none of them zero.
            k: how many are asked for.
            similarities: the inner products (q, p) of queries (q, d) and their rows (q, p).

        Returns:
            (q, p) rows in no order, -1 where there are fewer; (q,) whether the `k` nearest are all
            among them, and all that are as near as the last.
        """
        workers = import_faiss().omp_get_max_threads()
        size = -(-len(asked) // workers)
        parts = list(blocks(len(asked), size))
        with ThreadPoolExecutor(workers) as pool:

            def each(loop: Callable[..., None], *arrays: NDArray[Any]) -> None:
                list(pool.map(lambda part: loop(*(array[part] for array in arrays)), parts))

            return self._proposed(asked, k, similarities, each)

    def _proposed(
        self,
        asked: Floats,
        k: int,
        similarities: Callable[[Floats, Rows], Floats],
        each: Callable[..., None],
    ) -> tuple[Rows, NDArray[np.bool_]]:
        codes, steps, differences = _rounded(asked @ self.rotation)
        lengths = np.linalg.norm(asked, axis=1)
        # |q.x - q'.x'| <= |q| |x - x'| + |q - q'| |x'|, by Cauchy and Schwarz
        bounds = lengths * self.off + differences * (self.length + self.off)
        bounds = (bounds + FLOATS * lengths * self.length) / steps
        rank = _rank(k)
        guesses = np.empty(len(asked), dtype=np.float32)
        sample = slice(None, None, SAMPLED)
        each(partial(_guess, self.steps[sample], rank), self._products(codes, sample), guesses)
        room = (len(asked), ROOM * rank * SAMPLED)
        rows, scores = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.float32)
        counts = np.zeros(len(asked), dtype=np.int64)
        for columns in blocks(len(self.steps), COLUMNS_PER_BLOCK):
            collect = partial(_collect, self.steps[columns], columns.start, k)
            products = self._products(codes, columns)
            each(collect, products, guesses, bounds, counts, rows, scores)
        each(partial(_settle, k), guesses, bounds, counts, rows, scores)
        best = similarities(asked, rows[:, :k].astype(np.int64))
        each(partial(_narrow, k), best.min(axis=1) / steps - bounds, counts, rows, scores)
        return rows[:, : max(counts.max(), k)].astype(np.int64), counts > 0

    def _products(self, codes: NDArray[np.int8], columns: slice) -> NDArray[np.int32]:
        """(q, c): those of the queries' codes (q, d) and the codes of some rows."""
        import torch

        found: NDArray[np.int32] = torch._int_mm(
            torch.from_numpy(codes), self.codes[columns].T
        ).numpy()
        return found


def _rank(k: int) -> int:
    """Of a sample, the place behind which the `k`-th best of all is not, but rarely."""
    share = k / SAMPLED
    return math.ceil(share + 4 * math.sqrt(share) + 2)


def _rounded(vectors: Floats) -> tuple[NDArray[np.int8], Floats, Floats]:
    """Codes (n, d), steps (n,), and the lengths (n,) of what rounding took away."""
    steps = np.maximum(np.abs(vectors).max(axis=1) / np.float32(LARGEST), TINY)
    codes = np.rint(vectors / steps[:, None])
    differences = np.linalg.norm(vectors - codes * steps[:, None], axis=1)
    return codes.astype(np.int8), steps, differences


@compiled()
def _guess(steps: Any, rank: int, products: Any, guesses: Any) -> None:
    """The `rank`-th best score of each query among a sample."""
    scores = np.empty(products.shape[1], dtype=np.float32)
    for query in range(len(products)):
        of = products[query]
        for column in range(len(scores)):
            scores[column] = np.float32(of[column]) * steps[column]
        guesses[query] = np.partition(scores, len(scores) - rank)[len(scores) - rank]


@compiled()
def _raised(k: int, guess: Any, bound: Any, rows: Any, scores: Any) -> tuple[Any, int]:
    """A better guess from what was collected, and how much of that is kept, at the front."""
    last = np.partition(scores, len(scores) - k)[len(scores) - k]
    if last <= guess:
        return guess, len(scores)
    kept = 0
    for place in range(len(scores)):
        if scores[place] >= last - 2 * bound:
            rows[kept], scores[kept] = rows[place], scores[place]
            kept += 1
    return last, kept


@compiled()
def _collect(
    steps: Any,
    first: int,
    k: int,
    products: Any,
    guesses: Any,
    bounds: Any,
    counts: Any,
    rows: Any,
    scores: Any,
) -> None:
    """Append what may be among the nearest; a count beyond the room: there was too much.

    Where room runs out, the k-th best so far is a better guess than the one from the sample.
    """
    queries, columns = products.shape
    room = rows.shape[1]
    for query in range(queries):
        count, bound = counts[query], bounds[query]
        floor = guesses[query] - 2 * bound
        if count > room:
            continue
        for start in range(0, columns, CHUNK):
            of = products[query, start : min(start + CHUNK, columns)]
            by = steps[start : start + len(of)]
            found = np.int32(0)
            for place in range(len(of)):  # a loop without a branch is done in registers
                found += np.int32(np.float32(of[place]) * by[place] >= floor)
            if found == 0:
                continue
            if count + found > room:
                collected = (rows[query, :count], scores[query, :count])
                guesses[query], count = _raised(k, guesses[query], bound, *collected)
                floor = guesses[query] - 2 * bound
            if count + found > room:
                count = room + 1
                break
            for place in range(len(of)):
                score = np.float32(of[place]) * by[place]
                if score >= floor:
                    rows[query, count] = first + start + place
                    scores[query, count] = score
                    count += 1
        counts[query] = count


@compiled()
def _settle(k: int, guesses: Any, bounds: Any, counts: Any, rows: Any, scores: Any) -> None:
    """Keep what may be among the nearest, the `k` best scores first; none where that is unknown.

    The k-th best score is off by the bound at most, and so is any other.
    """
    for query in range(len(counts)):
        count = counts[query]
        known = k <= count <= rows.shape[1]
        last = np.float32(0.0)
        if known:
            last = np.partition(scores[query, :count], count - k)[count - k]
            known = last >= guesses[query]  # whatever is better was collected
        if not known:
            counts[query] = 0
            rows[query, :k] = -1
            continue
        floor = last - 2 * bounds[query]
        kept = front = 0
        for place in range(count):
            score, row = scores[query, place], rows[query, place]
            if score < floor:
                continue
            scores[query, kept], rows[query, kept] = score, row
            if score >= last and front < k:
                scores[query, kept], scores[query, front] = scores[query, front], score
                rows[query, kept], rows[query, front] = rows[query, front], row
                front += 1
            kept += 1
        counts[query] = kept


@compiled()
def _narrow(k: int, floors: Any, counts: Any, rows: Any, scores: Any) -> None:
    """Of all behind the first `k`, keep what reaches the floor; -1 after them."""
    for query in range(len(counts)):
        kept = min(k, counts[query])
        for place in range(k, counts[query]):
            if scores[query, place] >= floors[query]:
                rows[query, kept] = rows[query, place]
                kept += 1
        counts[query] = kept
        rows[query, kept:] = -1
