"""What models said of the candidates of a window, and what then happened."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from jobs.baselines import Rivals
from jobs.bert import BERT, Readers
from jobs.scoring import score_shard
from jobs.state import State, Users
from rank.labels import labels
from rank.model import Model


def outcomes_of(
    state: State, models: Sequence[Model], rivals: Rivals, readers: Readers, *, folder: Path
) -> list[pl.LazyFrame]:
    """All candidates of all eligible users, scored, with `happened`, in files of the folder.

    Args:
        state: of a window whose horizon is over.
        models: whose probabilities are wanted.
        rivals: simpler models to score beside them.
        readers: of the baseline `bert`, by behaviour.
        folder: is made; holds what is returned.

    Returns:
        For each model the columns of `jobs.scoring.score_pairs` and `happened`, and `bert` where
        there is a reader.
    """
    folder.mkdir()
    behaviours = {model.behaviour for model in models}
    targets = {name: state.material.targets(name, state.as_of) for name in behaviours}
    written: list[list[Path]] = [[] for _ in models]
    for number, users in enumerate(state.shards()):
        for place, outcome in enumerate(_of_shard(state, models, rivals, readers, users, targets)):
            path = folder / f"{place} {number}.arrow"
            outcome.write_ipc(path, compression="lz4")
            written[place].append(path)
    return [pl.scan_ipc(paths) for paths in written]


def _of_shard(
    state: State,
    models: Sequence[Model],
    rivals: Rivals,
    readers: Readers,
    users: Users,
    targets: Mapping[str, pl.DataFrame],
) -> Iterator[pl.DataFrame]:
    threads = state.material.config.scoring.threads
    frames = score_shard(state, models, users, threads=threads, rivals=rivals)
    read: dict[str, pl.Series] = {}  # once for the new model and the champion
    for model, scored in zip(models, frames, strict=True):
        behaviour = model.behaviour
        followed = labels(scored, targets[behaviour])
        if behaviour in readers and behaviour not in read:
            read[behaviour] = pl.Series(BERT, readers[behaviour].score(state, scored))
        beside = [read[behaviour]] if behaviour in read else []
        yield scored.with_columns(pl.Series("happened", followed), *beside)
