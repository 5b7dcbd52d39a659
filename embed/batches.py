"""Texts cut into batches of like length, tokenised ahead of the model that takes them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Texts tokenised at once, and how many such pieces may wait for the model.
PIECE = 512
AHEAD = 2

Features = dict[str, Any]  # tensors, and what else the first module of a model tells the others


class Batch(NamedTuple):
    """Texts for one forward pass: their rows in the whole list, and what the model reads."""

    rows: NDArray[np.int64]
    features: Features


def token_batches(
    texts: Sequence[str], transformer: "SentenceTransformer", *, prompt: str, budget: int
) -> Iterator[Batch]:
    """All texts, the longest first, in batches of at most `budget` tokens.

    Sorted by characters over the whole list, and by tokens within a piece, of which each batch has
    texts of one length, at least one. A piece is tokenised once, while the model is at work on
    those before. What a static model reads is not padded, and its pieces are its batches.
    """
    order = np.argsort([-len(text) for text in texts], kind="stable")
    pieces = [order[start : start + PIECE] for start in range(0, len(order), PIECE)]

    def tokenised(rows: NDArray[np.int64]) -> Batch:
        return Batch(rows, transformer.preprocess([texts[row] for row in rows], prompt=prompt))

    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting: deque[Future[Batch]] = deque()
        for rows in pieces:
            waiting.append(thread.submit(tokenised, rows))
            if len(waiting) > AHEAD:
                yield from _cut(waiting.popleft().result(), budget)
        while waiting:
            yield from _cut(waiting.popleft().result(), budget)


def cuts(lengths: NDArray[np.int64], budget: int) -> Iterator[slice]:
    """Runs of texts of one length whose tokens are within the budget.

    Of one length, so that nothing is padded: padding costs time and moves the last bits of a
    vector, which would depend on what else was new in the night that met its text first.

    Args:
        lengths: (n,) tokens of each text, descending.
        budget: tokens; a text that is longer stands alone.

    >>> [(cut.start, cut.stop) for cut in cuts(np.array([9, 4, 3, 3, 3, 1]), budget=8)]
    [(0, 1), (1, 2), (2, 4), (4, 5), (5, 6)]
    """
    ends = np.flatnonzero(np.diff(lengths, append=-1)) + 1
    start = 0
    for end in ends.tolist():
        size = max(1, budget // max(1, int(lengths[start])))
        yield from (slice(first, min(first + size, end)) for first in range(start, end, size))
        start = end


def _cut(piece: Batch, budget: int) -> Iterator[Batch]:
    mask = piece.features.get("attention_mask")
    if mask is None:
        yield piece
        return
    lengths = mask.sum(dim=1).numpy()
    order = np.argsort(-lengths, kind="stable")
    for cut in cuts(lengths[order], budget):
        picked = order[cut]
        # Padding is where nobody of the batch has a token: on the right, for some models the left.
        held = mask[picked].any(dim=0)
        features = {
            name: value[picked][:, held] if _is_padded(value, mask) else value
            for name, value in piece.features.items()
        }
        yield Batch(piece.rows[picked], features)


def _is_padded(value: Any, mask: Any) -> bool:
    return bool(getattr(value, "shape", None) == mask.shape)
