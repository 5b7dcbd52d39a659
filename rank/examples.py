"""Examples to learn from: candidates with their features, and what followed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rank.metrics import Labels

Objective = Literal["binary", "lambdarank"]


@dataclass(frozen=True)
class Example:
    """Candidates of a window, or of some of its users, those of a user together.

    Attributes:
        features: (n, f); lazy where they lie in a file.
        users: (n,) whose candidate a row is.
        happened: (n,) whether the behaviour followed.
        weight: (n,) what a row counts for where the probability is learnt, negatives alike on
            average; 0 where it is not in the sample that stands for all candidates.
    """

    features: pl.DataFrame | pl.LazyFrame
    users: NDArray[np.int32]
    happened: Labels
    weight: NDArray[np.float32]

    @property
    def columns(self) -> list[str]:
        """The names of the features."""
        return self.features.collect_schema().names()

    def read(self) -> pl.DataFrame:
        """(n, f) the features, from the file where they lie in one."""
        return self.features.lazy().collect()

    def in_file(self, path: Path) -> "Example":
        """The same, with its features in a file that must stay as it is."""
        self.read().write_ipc(path, compression="lz4")
        return replace(self, features=pl.scan_ipc(path))

    def rows(self, objective: Objective) -> Labels:
        """(n,) what an objective learns from.

        The probability needs the sample and every positive; the order needs what there is of the
        users with a positive, and nobody else's.
        """
        if objective == "binary":
            return self.weight > 0
        return np.isin(self.users, self.users[self.happened])

    def only(self, kept: Labels) -> "Example":
        """Some of its rows, in memory."""
        features = self.read().filter(pl.Series(kept))
        return Example(features, self.users[kept], self.happened[kept], self.weight[kept])

    def of_followers(self) -> "Example":
        """Only the users with a positive."""
        return self.only(self.rows("lambdarank"))


def joined(parts: Sequence[Example]) -> Example:
    """The examples of several shards of users as one, read from their files."""
    arrays = ("users", "happened", "weight")
    return Example(
        pl.concat(part.read() for part in parts),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in arrays),
    )
