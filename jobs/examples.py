"""The candidates of a window that models learn from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from jobs.state import State
from rank.examples import Example
from rank.labels import labels, weights


def examples_of(
    state: State, *, whole: bool = False, folder: Path | None = None
) -> dict[str, list[Example]]:
    """The candidates to learn from, of one shard of users after another.

    These are the positives, a sample of all, all that were shown within the horizon, and, for the
    order, all of users with a positive: where that may be more than `training.order_pairs`, a
    sample of them, unless it is to be the `whole`.

    Args:
        state: at the start of the window.
        whole: see above.
        folder: where features are kept in files; without it, in memory.

    Returns:
        For each predicted behaviour, an example for each shard.
    """
    material, options = state.material, state.material.config.training
    names = [wanted.behaviour for wanted in material.config.predict]
    targets = {name: material.targets(name, state.as_of) for name in names}
    seen = {name: material.shown(name, state.as_of) for name in names}
    shares = {name: 1.0 if whole else _order_share(state, targets[name]) for name in names}
    examples: dict[str, list[Example]] = {behaviour: [] for behaviour in names}
    for number, users in enumerate(state.shards()):
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
        features = state.describe(pairs.filter(kept))
        for behaviour, happened in followed.items():
            weight = weights(
                happened, drawn=drawn, shown=shown[behaviour], share=options.negative_share
            )
            found = Example(features, asked[kept], happened[kept], weight[kept])
            found = found.only(state.allowed(behaviour, pairs)[kept])
            if folder:
                found = found.in_file(folder / f"{behaviour} {state.as_of:%Y%m%d} {number}.arrow")
            examples[behaviour].append(found)
    return examples


def _order_share(state: State, targets: pl.DataFrame) -> float:
    """The share of the candidates of users with a target that teaches the order."""
    config = state.material.config
    most = targets.get_column("user").n_unique() * config.candidates.per_user
    return min(config.training.order_pairs / max(most, 1), 1.0)


def split_off(
    windows: Sequence[Mapping[str, Sequence[Example]]], behaviour: str
) -> tuple[list[Example], Sequence[Example]]:
    """Examples of a behaviour: of all windows but the last, and of that."""
    *before, last = (window[behaviour] for window in windows)
    return [part for window in before for part in window], last
