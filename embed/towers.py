"""Learns from what followed what how text vectors of a history point to the next item."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch.nn import functional

Vectors = NDArray[np.float32]

# Chosen on the validation items of leave-one-out Beauty, FEWEST_STEPS on those of Scientific.
DIMENSIONS = 256
BATCH = 512
EPOCHS = 3
FEWEST_STEPS = 300
LEARNING_RATE = 2e-3
DROPOUT = 0.3
SMOOTHING = 0.1
OWN_DECAY = 2.0
FIRST_SCALE = 10.0
FIRST_OWN = 0.02
# The softmax of a batch runs over its own items and a sample of so many others.
SAMPLED_ITEMS = 250


@dataclass(frozen=True)
class Towers:
    """Tables of item vectors: those that ask, one of each of m models, and one that answers.

    The log-odds of an item to come next after a history is the inner product of the item's row of
    `answers` with the query: for each model the history's weighted sum of rows of its table, at
    unit length, side by side, all at unit length once more, with a one appended.

    Attributes:
        asks: m tables, (n_items, d) float32.
        answers: (n_items, m * d + 1) float32; the last column is the item's own bias.
    """

    asks: tuple[Vectors, ...]
    answers: Vectors


def fit_towers(
    vectors: Vectors, histories: Sequence[sp.csr_array], following: NDArray[np.int32], *, seed: int
) -> Towers:
    """Fit on steps of histories, by softmax over the items that occur in them.

    The mean of models that weigh the same histories differently. In each, both rows of an item are
    a linear map of its text plus a part of its own. An item that does not occur has only the
    first, with the mean bias: it is found by its text. A two-tower model (Covington et al., Deep
    neural networks for YouTube recommendations, RecSys 2016). The same for any number of threads.

    Args:
        vectors: (n_items, w) texts of the items, zero rows without text.
        histories: for each model, (n, n_items) weights of the items before each step; the same
            items in all.
        following: (n,) the item that came next.
        seed: of the first values, the order of steps and the dropout.
    """
    known = np.unique(np.concatenate([histories[0].indices, following])).astype(np.int64)
    places, models = np.searchsorted(known, following), len(histories)

    def one(number: int) -> Towers:
        own_seed = seed * models + number
        model = _Model(vectors[known], torch.Generator().manual_seed(own_seed))
        columns = sp.csr_array(histories[number][:, known])
        model.fit(columns, places, _batches(len(following), own_seed))
        return model.towers(vectors, known)

    with _single_threaded() as threads, ThreadPoolExecutor(threads) as pool:
        return _mean(list(pool.map(one, range(models))))


@contextmanager
def _single_threaded() -> Iterator[int]:
    """Several threads in one operation would round differently: each model has one of its own.

    How many threads there were.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def _mean(fitted: list[Towers]) -> Towers:
    """Towers whose log-odds are the mean of those of several, by their columns side by side."""
    share = np.float32(len(fitted) ** -0.5)
    asks = tuple(table for one in fitted for table in one.asks)
    answers = [share * one.answers[:, :-1] for one in fitted]
    bias = np.mean([one.answers[:, -1:] for one in fitted], axis=0)
    return Towers(asks, np.hstack([*answers, bias]).astype(np.float32))


class _Model:
    """The parameters: for each tower a map of text and the items' own part; bias and scale."""

    def __init__(self, texts: Vectors, generator: torch.Generator) -> None:
        width = texts.shape[1]
        first = torch.randn(width, DIMENSIONS, generator=generator) / max(width, 1) ** 0.5
        self.texts = torch.from_numpy(np.ascontiguousarray(texts, dtype=np.float32))
        self.generator = generator
        self.maps = [first.clone().requires_grad_() for _ in range(2)]
        self.own = [
            (FIRST_OWN * torch.randn(len(texts), DIMENSIONS, generator=generator)).requires_grad_()
            for _ in range(2)
        ]
        self.bias = torch.zeros(len(texts), requires_grad=True)
        self.scale = torch.tensor(float(np.log(FIRST_SCALE)), requires_grad=True)

    def fit(
        self,
        histories: sp.csr_array,
        following: NDArray[np.int64],
        batches: list[NDArray[np.int64]],
    ) -> None:
        if not batches:
            return
        groups = [
            {"params": [*self.maps, self.bias, self.scale], "weight_decay": 0.0},
            {"params": self.own, "weight_decay": OWN_DECAY},
        ]
        optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: 1 - s / len(batches))
        places = torch.from_numpy(following)
        for rows in batches:
            loss = self.loss(histories[rows], places[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()

    def loss(self, histories: sp.csr_array, following: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over the sample; each item of it stands for those that it was drawn for."""
        query = self.queries(histories)
        kept = torch.rand(query.shape, generator=self.generator) >= DROPOUT
        shown, weight = self.sample(following)
        answers = functional.normalize(self.texts[shown] @ self.maps[1] + self.own[1][shown], dim=1)
        logits = (query * kept / (1 - DROPOUT)) @ answers.T * self.scale.exp()
        logits = logits + self.bias[shown] + weight.log()
        places = torch.searchsorted(shown, following)
        return functional.cross_entropy(logits, places, label_smoothing=SMOOTHING)

    def queries(self, histories: sp.csr_array) -> torch.Tensor:
        """Unit rows; the map is linear, so it takes the sum of a history's texts at once."""
        texts = torch.from_numpy(histories @ self.texts.numpy())
        own = functional.embedding_bag(
            torch.from_numpy(histories.indices.astype(np.int64)),
            self.own[0],
            torch.from_numpy(histories.indptr[:-1].astype(np.int64)),
            mode="sum",
            per_sample_weights=torch.from_numpy(histories.data),
        )
        return functional.normalize(texts @ self.maps[0] + own, dim=1)

    def sample(self, following: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Ascending items with all that follow, and how many items each stands for."""
        n = len(self.texts)
        if n <= SAMPLED_ITEMS:
            return torch.arange(n), torch.ones(n)
        drawn = torch.randperm(n, generator=self.generator)[:SAMPLED_ITEMS]
        shown = torch.unique(torch.cat([drawn, following]))
        return shown, torch.where(torch.isin(shown, following), 1.0, n / SAMPLED_ITEMS)

    def towers(self, vectors: Vectors, known: NDArray[np.int64]) -> Towers:
        with torch.no_grad():
            texts = torch.from_numpy(vectors)
            asks, answers = (texts @ m for m in self.maps)
            asks[known] += self.own[0]
            answers[known] += self.own[1]
            bias = self.bias.sum().div(max(len(known), 1)).repeat(len(vectors))
            bias[known] = self.bias
            answers = functional.normalize(answers, dim=1) * self.scale.exp()
            return Towers((asks.numpy(),), torch.cat([answers, bias[:, None]], dim=1).numpy())


def _batches(n: int, seed: int) -> list[NDArray[np.int64]]:
    """Row numbers of each step of the optimiser: every row once an epoch, in a new order."""
    rng = np.random.default_rng(seed)
    if n == 0:
        return []
    size = -(-n // BATCH)
    epochs = max(EPOCHS, -(-FEWEST_STEPS // size))
    return [part for _ in range(epochs) for part in np.array_split(rng.permutation(n), size)]
