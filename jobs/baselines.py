"""Simpler models of the same pairs, to measure the models against; see `training.baselines`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import polars as pl

from jobs.config import Config
from jobs.examples import split_off
from jobs.signals import stop_if_asked
from rank.calibrate import Floats
from rank.examples import Example
from rank.logistic import Logistic
from rank.trees import Hyperparameters, grow

LOGISTIC, NO_EMBEDDINGS = "logistic", "no_embeddings"

TEXT_GROUPS = (
    "similarity", "last_items", "last_steps", "neighbours", "clusters", "vectors", "sentiment",
)  # fmt: skip
TEXT_GENERATORS = (
    "nearest", "last", "last_3", "interests", "reviews", "similar", "two_tower", "new",
)  # fmt: skip


class Scorer(Protocol):
    """Gives (n,) raw log-odds of features (n, f)."""

    def score(self, features: pl.DataFrame, *, threads: int) -> Floats:
        """(n,) raw log-odds."""
        ...


# By behaviour and name. Popularity is none of them: nothing of it is learnt.
Rivals = Mapping[str, Mapping[str, Scorer]]


def fit_rivals(
    config: Config,
    examples: Sequence[Mapping[str, Sequence[Example]]],
    groups: Mapping[str, str],
    *,
    parameters: Hyperparameters,
) -> Rivals:
    """The rivals that the configuration asks for, from the examples of the models themselves.

    Args:
        config: the effective configuration.
        examples: by window and behaviour; the last window is what the growing stops on.
        groups: the group of each feature.
        parameters: how trees are grown.
    """
    kept = without_text(groups)
    rivals: dict[str, dict[str, Scorer]] = {}
    for wanted in config.predict:
        train, stop = split_off(examples, wanted.behaviour)
        mine = rivals[wanted.behaviour] = {}
        if LOGISTIC in config.training.baselines:
            mine[LOGISTIC] = Logistic.fit(train)
        if NO_EMBEDDINGS in config.training.baselines:
            train, stop = (
                [replace(e, features=e.features.select(kept)) for e in part]
                for part in (train, stop)
            )
            mine[NO_EMBEDDINGS] = grow(
                train, stop, objective="binary", parameters=parameters, on_tree=stop_if_asked
            )
    return rivals


def without_text(groups: Mapping[str, str]) -> list[str]:
    """The features that no text vector has a part in.

    >>> groups = {"rank_nearest": "generators", "rank_ease": "generators", "item_pc_0": "vectors"}
    >>> without_text(groups)
    ['rank_ease']
    """
    told = {f"{said}_{name}" for said in ("rank", "score", "share") for name in TEXT_GENERATORS}
    told.add("generators")  # counts those of texts too
    return [name for name, group in groups.items() if group not in TEXT_GROUPS and name not in told]


def rival_scores(
    rivals: Mapping[str, Scorer], features: pl.DataFrame, *, negative_share: float, threads: int
) -> dict[str, pl.Series]:
    """By name, (n,) log-odds corrected for sampled negatives, as `Model.log_odds` are."""
    shift = float(np.log(negative_share))
    return {
        name: pl.Series(rival.score(features, threads=threads) + shift)
        for name, rival in rivals.items()
    }
