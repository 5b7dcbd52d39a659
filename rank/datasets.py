"""What LightGBM makes of examples: a byte for each number, of one shard of users after another."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import lightgbm
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rank.examples import Example, Objective
from rank.metrics import Labels


def dataset(
    examples: Sequence[Example],
    objective: Objective,
    options: dict[str, object],
    reference: lightgbm.Dataset | None = None,
) -> lightgbm.Dataset:
    """What an objective learns from.

    The features of one of the examples at a time are read, and let go when they are taken over.

    Args:
        examples: one at least.
        objective: decides the rows, and whether they are weighted or lists.
        options: LightGBM's parameters of both.
        reference: whose bins are taken.
    """
    rows = [example.rows(objective) for example in examples]
    kept = list(zip(examples, rows, strict=True))
    happened = np.concatenate([e.happened[r] for e, r in kept]).astype(np.float32)
    groups, weight = None, None
    if objective == "lambdarank":
        groups = np.concatenate([_run_lengths(e.users[r]) for e, r in kept])
    else:
        weight = np.concatenate([e.weight[r] for e, r in kept])
    made = _Dataset if reference is None else lightgbm.Dataset
    try:
        return made(
            [_Rows(e, r) for e, r in kept],
            happened,
            group=groups,
            weight=weight,
            feature_name=examples[0].columns,
            reference=reference,
            params=options,
        ).construct()
    finally:
        _matrix.cache_clear()


class _Dataset(lightgbm.Dataset):
    """One whose bins are those of a matrix of the same rows.

    LightGBM draws the sample that bins are made from by the seed, and leaves out features that no
    split can use by the least rows of a leaf; without this it would know neither of a sequence.
    """

    is_made = False

    def get_params(self) -> dict[str, Any]:
        return super().get_params() if self.is_made else dict(self.params or {})

    def construct(self) -> lightgbm.Dataset:
        made = super().construct()
        self.is_made = True
        return made


class _Rows(lightgbm.Sequence):
    """The rows that are learnt from, in memory only while LightGBM asks for them."""

    def __init__(self, example: Example, rows: Labels) -> None:
        self.example, self.rows = example, rows
        self.batch_size = int(rows.sum())  # all at once: they are in memory together

    def __len__(self) -> int:
        return self.batch_size

    def __getitem__(self, index: int | slice | list[int]) -> NDArray[np.floating]:
        found = _matrix(self)[index]
        # LightGBM bins a sample of rows, one by one, as doubles; a view would keep all in memory.
        return found.astype(np.float64) if found.ndim == 1 else found


@lru_cache(maxsize=1)  # LightGBM asks for row after row, then for all
def _matrix(rows: _Rows) -> NDArray[np.floating]:
    """(n, f) one row after another, as LightGBM takes them."""
    features = rows.example.read().filter(pl.Series(rows.rows))
    kind = pl.Float32 if set(features.dtypes) == {pl.Float32} else pl.Float64
    return features.cast(kind).to_numpy(order="c")


def _run_lengths(values: NDArray[np.int32]) -> NDArray[np.int64]:
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return np.diff(np.append(starts, len(values)))
