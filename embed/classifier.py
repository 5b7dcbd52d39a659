"""A transformer that reads two texts at once and says how likely they belong together.

BERT's classification of sentence pairs (Devlin et al., BERT, NAACL 2019), from the weights of the
packaged all-MiniLM-L6-v2: small enough to be fine-tuned on a CPU in minutes.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embed.loading import best_device, minilm_folder, quieten

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder

BATCH = 16
EPOCHS = 4
LEARNING_RATE = 1e-4
# Of both texts together; the longer one is cut first.
MAX_TOKENS = 64

Pair = tuple[str, str]


@dataclass(frozen=True)
class Labelled:
    """Pairs of texts with what became of them.

    Attributes:
        pairs: (n) two texts each.
        happened: (n,) flags, aligned.
    """

    pairs: list[Pair]
    happened: NDArray[np.bool_]


class PairClassifier:
    """A fine-tuned transformer.

    Attributes:
        losses: cross-entropy on the stopping pairs, before the first epoch and after each.
    """

    def __init__(self, model: "CrossEncoder", losses: Sequence[float]) -> None:
        self.losses = tuple(losses)
        self._model = model

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """(n,) log-odds, as of the share of pairs that happened in training."""
        return _logits(self._model, pairs)


def fit_classifier(
    train: Labelled, stop: Labelled, *, seed: int, device: str = "auto", epochs: int = EPOCHS
) -> PairClassifier:
    """Fine-tune by cross-entropy until an epoch makes the stopping pairs no better.

    AdamW (Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019) with a
    linearly falling rate; bfloat16 where the device is a GPU. The best epoch's weights are kept.
    The same inputs and seed give the same bits on the same device with as many threads.

    Args:
        train: learnt from.
        stop: later pairs that tell when to stop.
        seed: of the first weights of the head, the order of pairs and the dropout.
        device: as of `embed.load_encoder`.
        epochs: at most so many passes.

    Raises:
        EncoderNotFound: if the packaged model is not installed.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _start(best_device(device))
        losses = [_loss(model, stop)]
        best = copy.deepcopy(model.state_dict())
        for _ in _epochs(model, train, seed=seed, epochs=epochs):
            losses.append(_loss(model, stop))
            if losses[-1] >= min(losses[:-1]):
                break
            best = copy.deepcopy(model.state_dict())
        model.load_state_dict(best)
    return PairClassifier(model, losses)


def _start(device: str) -> "CrossEncoder":
    quieten()
    from sentence_transformers import CrossEncoder

    model: CrossEncoder = CrossEncoder(
        str(minilm_folder()),
        num_labels=1,
        max_length=MAX_TOKENS,
        device=device,
        local_files_only=True,
    )
    return model


def _epochs(model: "CrossEncoder", train: Labelled, *, seed: int, epochs: int) -> Iterator[None]:
    """Passes over the pairs, in a new order each."""
    import torch

    rng = np.random.default_rng(seed)
    batches = -(-len(train.pairs) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: 1 - s / (batches * epochs))
    for _ in range(epochs):
        model.train()
        for rows in np.array_split(rng.permutation(len(train.pairs)), batches):
            logits = _forward(model, [train.pairs[row] for row in rows])
            happened = torch.from_numpy(train.happened[rows]).to(logits)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, happened)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        yield


def _forward(model: "CrossEncoder", pairs: Sequence[Pair]) -> "torch.Tensor":
    import torch
    from sentence_transformers.util import batch_to_device

    features = batch_to_device(model.preprocess(list(pairs)), model.device)
    on_gpu = model.device.type == "cuda"
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=on_gpu):
        scores: torch.Tensor = model(features)["scores"]
    return scores.squeeze(-1).float()


def _logits(model: "CrossEncoder", pairs: Sequence[Pair]) -> NDArray[np.float64]:
    import torch

    if not pairs:
        return np.zeros(0)
    raw = model.predict(list(pairs), activation_fn=torch.nn.Identity(), show_progress_bar=False)
    return np.asarray(raw, dtype=np.float64)


def _loss(model: "CrossEncoder", held: Labelled) -> float:
    """Mean cross-entropy in nats."""
    signed = np.where(held.happened, -1.0, 1.0) * _logits(model, held.pairs)
    return float(np.logaddexp(0.0, signed).mean())
