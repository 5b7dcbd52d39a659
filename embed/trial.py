"""Backends and precisions side by side: how fast they are, and how true to float32 of torch."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embed.batches import token_batches
from embed.encoder import Encoder

Vectors = NDArray[np.float32]

K = TypeVar("K")

NEIGHBOURS = 10


@dataclass(frozen=True)
class Fidelity:
    """How near vectors are to those of a reference.

    Attributes:
        mean: mean cosine to the reference.
        least: the smallest one.
        overlap: share of each text's ten nearest among the others that stay among its ten.
    """

    mean: float
    least: float
    overlap: float


@dataclass(frozen=True)
class Trial:
    """What one way of encoding took, and gave.

    Attributes:
        seconds: of the clock, for each round.
        cpu_seconds: of all threads of this process, for each round.
        vectors: (n, d) of the last round.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    vectors: Vectors


def compare(
    ways: Mapping[K, Callable[[Sequence[str]], Vectors]], texts: Sequence[str], *, rounds: int
) -> dict[K, Trial]:
    """Encode `texts` by each way in turn, `rounds` times, after a round that does not count.

    Turns are what makes the ways comparable on a machine that does other work as well.
    """
    clock: dict[K, list[float]] = {name: [] for name in ways}
    spent: dict[K, list[float]] = {name: [] for name in ways}
    vectors = {name: encode(texts) for name, encode in ways.items()}
    for _ in range(rounds):
        for name, encode in ways.items():
            began, cpu = time.perf_counter(), time.process_time()
            vectors[name] = encode(texts)
            clock[name].append(time.perf_counter() - began)
            spent[name].append(time.process_time() - cpu)
    return {name: Trial(tuple(clock[name]), tuple(spent[name]), vectors[name]) for name in ways}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of how many times as long theirs took.

    >>> ratio([1.0, 2.0, 1.0], [3.0, 5.0, 4.0])
    3.0
    """
    return median(b / a for a, b in zip(ours, theirs, strict=True))


def fidelity(vectors: Vectors, reference: Vectors) -> Fidelity:
    """Hold vectors against those of the same texts, both of length 1."""
    cosine = np.einsum("ij,ij->i", vectors.astype(np.float64), reference.astype(np.float64))
    ours, theirs = _nearest(vectors), _nearest(reference)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(ours, theirs, strict=True)]
    return Fidelity(float(cosine.mean()), float(cosine.min()), sum(shared) / ours.size)


def count_tokens(texts: Sequence[str], encoder: Encoder) -> int:
    """Tokens that the encoder's model reads of the texts, without padding."""
    total = 0
    for _, features in token_batches(texts, encoder._model, prompt=encoder._prompt, budget=2**20):
        read = features.get("attention_mask")
        total += len(features["input_ids"]) if read is None else int(read.sum())
    return total


def _nearest(vectors: Vectors) -> NDArray[np.int64]:
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    wanted = min(NEIGHBOURS, len(vectors) - 1)
    return np.argpartition(-similar, wanted - 1, axis=1)[:, :wanted]
