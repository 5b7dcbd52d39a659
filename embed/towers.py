"""Learns from what followed what how text vectors of a history point to the next item."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch.nn import functional

Vectors = NDArray[np.float32]

# Chosen on the validation items of leave-one-out Beauty, except FEWEST_STEPS and FIRST_OWN.
DIMENSIONS = 128
BATCH = 512
EPOCHS = 3
FEWEST_STEPS = 600
LEARNING_RATE = 2e-3
DROPOUT = 0.3
OWN_DECAY = 1.0
FIRST_SCALE = 10.0
FIRST_OWN = 0.02
# The softmax of a batch runs over so many items at most: of more, over a sample of them.
MOST_ITEMS = 50_000


@dataclass(frozen=True)
class Towers:
    """Two tables of item vectors: one asks, one answers.

    The log-odds of an item to come next after a history is the inner product of the item's row of
    `answers` with the query: the history's weighted sum of rows of `asks`, at unit length, with a
    one appended.

    Attributes:
        asks: (n_items, d) float32.
        answers: (n_items, d + 1) float32; the last column is the item's own bias.
    """

    asks: Vectors
    answers: Vectors


def fit_towers(
    vectors: Vectors, histories: sp.csr_array, following: NDArray[np.int32], *, seed: int
) -> Towers:
    """Fit on steps of histories, by softmax over the items that occur in them.

    Both rows of an item are a linear map of its text plus a part of its own. An item that does
    not occur has only the first, with the mean bias: it is found by its text. A two-tower model
    (Covington et al., Deep neural networks for YouTube recommendations, RecSys 2016).

    Args:
        vectors: (n_items, w) texts of the items, zero rows without text.
        histories: (n, n_items) weights of the items before each step.
        following: (n,) the item that came next.
        seed: of the first values, the order of steps and the dropout.
    """
    known = np.unique(np.concatenate([histories.indices, following])).astype(np.int64)
    model = _Model(vectors[known], torch.Generator().manual_seed(seed))
    batches = _batches(len(following), seed)
    optimiser = torch.optim.AdamW(model.groups(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: 1 - s / max(len(batches), 1))
    places = torch.from_numpy(np.searchsorted(known, following))
    columns = sp.csr_array(histories[:, known])
    for rows in batches:
        loss = model.loss(columns[rows], places[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model.towers(vectors, known)


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

    def groups(self) -> list[dict[str, object]]:
        return [
            {"params": [*self.maps, self.bias, self.scale], "weight_decay": 0.0},
            {"params": self.own, "weight_decay": OWN_DECAY},
        ]

    def loss(self, histories: sp.csr_array, following: torch.Tensor) -> torch.Tensor:
        asks, answers = (self.texts @ m + own for m, own in zip(self.maps, self.own, strict=True))
        query = functional.normalize(_sums(histories, asks), dim=1)
        kept = torch.rand(query.shape, generator=self.generator) >= DROPOUT
        shown, bias = functional.normalize(answers, dim=1), self.bias
        if len(shown) > MOST_ITEMS:
            drawn = torch.randperm(len(shown), generator=self.generator)[:MOST_ITEMS]
            drawn = torch.unique(torch.cat([drawn, following]))
            shown, bias = shown[drawn], bias[drawn]
            following = torch.searchsorted(drawn, following)
        logits = (query * kept / (1 - DROPOUT)) @ shown.T * self.scale.exp() + bias
        return functional.cross_entropy(logits, following)

    def towers(self, vectors: Vectors, known: NDArray[np.int64]) -> Towers:
        with torch.no_grad():
            texts = torch.from_numpy(vectors)
            asks, answers = (texts @ m for m in self.maps)
            asks[known] += self.own[0]
            answers[known] += self.own[1]
            bias = self.bias.sum().div(max(len(known), 1)).repeat(len(vectors))
            bias[known] = self.bias
            answers = functional.normalize(answers, dim=1) * self.scale.exp()
            return Towers(asks.numpy(), torch.cat([answers, bias[:, None]], dim=1).numpy())


def _batches(n: int, seed: int) -> list[NDArray[np.int64]]:
    """Row numbers of each step of the optimiser: every row once an epoch, in a new order."""
    rng = np.random.default_rng(seed)
    if n == 0:
        return []
    size = -(-n // BATCH)
    epochs = max(EPOCHS, -(-FEWEST_STEPS // size))
    return [part for _ in range(epochs) for part in np.array_split(rng.permutation(n), size)]


def _sums(weights: sp.csr_array, table: torch.Tensor) -> torch.Tensor:
    """`weights @ table`, with a gradient for the table."""
    return functional.embedding_bag(
        torch.from_numpy(weights.indices.astype(np.int64)),
        table,
        torch.from_numpy(weights.indptr[:-1].astype(np.int64)),
        mode="sum",
        per_sample_weights=torch.from_numpy(weights.data),
    )
