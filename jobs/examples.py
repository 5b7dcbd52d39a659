"""The candidates of a window that models learn from."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.state import State
from rank.labels import labels, weights
from rank.metrics import Labels
from rank.trees import Example

# For the pairs of one shard that are learnt from: may the behaviour still come, whose they are,
# did it follow, what they count for.
Chosen = tuple[Labels, NDArray[np.int32], Labels, NDArray[np.float32]]


def examples_of(state: State, *, whole: bool = False) -> dict[str, Example]:
    """The candidates to learn from.

    These are the positives, a sample of all, all that were shown within the horizon, and, for the
    order, all of users with a positive: where that may be more than `training.order_pairs`, a
    sample of them, unless it is to be the `whole`.
    """
    material, options = state.material, state.material.config.training
    names = [wanted.behaviour for wanted in material.config.predict]
    targets = {name: material.targets(name, state.as_of) for name in names}
    seen = {name: material.shown(name, state.as_of) for name in names}
    shares = {name: 1.0 if whole else _order_share(state, targets[name]) for name in names}
    features: list[pl.DataFrame] = []
    chosen: dict[str, list[Chosen]] = {behaviour: [] for behaviour in targets}
    for users in state.shards():
        pairs = state.candidates(users)
        asked = pairs.get_column("user").to_numpy()
        followed = {behaviour: labels(pairs, targets[behaviour]) for behaviour in targets}
        drawn = state.drawn(pairs, options.negative_share)
        shown = {name: labels(pairs, seen[name]) for name in names}
        ordered = [
            happened | (np.isin(asked, asked[happened]) & state.drawn(pairs, shares[behaviour]))
            for behaviour, happened in followed.items()
        ]
        kept = np.logical_or.reduce([drawn, *shown.values(), *ordered])
        features.append(state.describe(pairs.filter(kept)))
        for behaviour, happened in followed.items():
            allowed = state.allowed(behaviour, pairs)
            weight = weights(
                happened, drawn=drawn, shown=shown[behaviour], share=options.negative_share
            )
            columns = (allowed[kept], asked[kept], happened[kept], weight[kept])
            chosen[behaviour].append(columns)
    described = pl.concat(features)
    return {behaviour: _example(described, parts) for behaviour, parts in chosen.items()}


def _order_share(state: State, targets: pl.DataFrame) -> float:
    """The share of the candidates of users with a target that teaches the order."""
    config = state.material.config
    most = targets.get_column("user").n_unique() * config.candidates.per_user
    return min(config.training.order_pairs / max(most, 1), 1.0)


def _example(features: pl.DataFrame, parts: list[Chosen]) -> Example:
    use, users, happened, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Example(features.filter(pl.Series(use)), users[use], happened[use], weight[use])
