"""Where torch computes: on one device, or on several with a process for each."""

import multiprocessing
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device

from embed.batches import Batch, Features

Vectors = NDArray[np.float32]

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WAITING = 2  # batches that wait for a device, so that it never waits itself


class Engine(Protocol):
    """What turns batches into vectors."""

    def run(self, batches: Iterable[Batch], out: Vectors) -> None:
        """Write the vectors of each batch, of length 1, to its rows of `out`."""


class TorchEngine:
    """One device, in this process. The transformer is of the precision to compute in."""

    def __init__(self, transformer: SentenceTransformer) -> None:
        self._transformer = transformer

    def run(self, batches: Iterable[Batch], out: Vectors) -> None:
        """As of `Engine`."""
        for rows, features in batches:
            out[rows] = vectors_of(self._transformer, features)


class DevicesEngine:
    """Several devices, each with a process and a copy of the transformer of its own.

    The processes start with the first batch and end with this one. Batches go round, so like
    devices give the same bits.
    """

    def __init__(self, transformer: SentenceTransformer, devices: Sequence[str]) -> None:
        self._transformer = transformer
        self._devices = devices

    @cached_property
    def _pools(self) -> list[ProcessPoolExecutor]:
        spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        return [
            ProcessPoolExecutor(1, spawn, _take_place, (self._transformer, device))
            for device in self._devices
        ]

    def run(self, batches: Iterable[Batch], out: Vectors) -> None:
        """As of `Engine`."""
        waiting: deque[tuple[NDArray[np.int64], Future[Vectors]]] = deque()
        for number, (rows, features) in enumerate(batches):
            pool = self._pools[number % len(self._devices)]
            waiting.append((rows, pool.submit(_compute, features)))
            if len(waiting) > WAITING * len(self._devices):
                done, vectors = waiting.popleft()
                out[done] = vectors.result()
        for done, vectors in waiting:
            out[done] = vectors.result()


def vectors_of(transformer: SentenceTransformer, features: Features) -> Vectors:
    """(n, d) vectors of length 1."""
    with torch.inference_mode():
        features = batch_to_device(features, transformer.device)
        vectors: Vectors = unit_vectors(transformer, features).cpu().numpy()
    return vectors


def unit_vectors(transformer: SentenceTransformer, features: Features) -> torch.Tensor:
    """What `SentenceTransformer.encode` makes of features, at length 1, in float32."""
    vectors = transformer(features)["sentence_embedding"][:, : transformer.truncate_dim]
    return torch.nn.functional.normalize(vectors.float(), dim=1)


_in_this_process: SentenceTransformer


def _take_place(transformer: SentenceTransformer, device: str) -> None:
    global _in_this_process
    _in_this_process = transformer.to(device).eval()


def _compute(features: Features) -> Vectors:
    return vectors_of(_in_this_process, features)
