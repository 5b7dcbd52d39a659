"""Writes what a run computes from a state: its indexes, and its users, shard after shard."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import polars as pl

from index.store import VectorIndex
from jobs import artefacts, frozen, manifest, models, vectors
from jobs.config import Config
from jobs.console import log, progress
from jobs.errors import Stopped
from jobs.ledger import Ledger, write_parquet
from jobs.memory import give_back
from jobs.propensity import user_table
from jobs.reasons import Reasons
from jobs.scoring import predictions, score_pairs
from jobs.state import State, Users
from jobs.training import Trained
from jobs.workers import Workers
from rank.health import count, seen_range, shares
from rank.model import Model

PROPENSITIES = Path("users", "propensity.parquet")
SEARCHED = "searched.parquet"


def save_indexes(state: State, folder: Path) -> list[Path]:
    """Keep the item and review indexes with their ids, and read them back as a check.

    Returns:
        The files: theirs, and a table of how each corpus is searched.
    """
    inputs, corpora = state.inputs, dict(state.snapshot.indexes)
    ids = {
        "items": inputs.items.select("item_id"),
        "reviews": inputs.reviews.select("user", "item", "ts"),
    }
    for name, rows in ids.items():
        corpora[name].save(folder / name)
        rows.with_row_index("id").write_parquet(folder / name / "rows.parquet")
        VectorIndex.load(folder / name)
    table = pl.DataFrame([_described(*corpus) for corpus in corpora.items()])
    for row in table.iter_rows(named=True):
        log.info("index", **row)
    write_parquet(table, folder / SEARCHED)
    return [path for path in folder.rglob("*") if path.is_file()]


def save_state(state: State, folder: Path) -> list[Path]:
    """Keep all that the shards of a run read, in its folder; see `jobs.artefacts`.

    Returns:
        The files, those of `save_indexes` among them.
    """
    files = save_indexes(state, folder / "index")
    give_back()
    artefacts.compute(state)
    return files + artefacts.save(state, folder / artefacts.FOLDER)


def _described(corpus: str, index: VectorIndex) -> dict[str, object]:
    choice = index.choice
    return {
        "corpus": corpus,
        "kind": choice.kind,
        "vectors": len(index),
        "dimension": index.vectors.shape[1],
        "recall_at_100": choice.recall,
        "sample": choice.sample,
        "refused": ", ".join(choice.refused),
    }


@dataclass(frozen=True)
class Shards:
    """Scores and explains shards of users of a run, in whatever process.

    Attributes:
        state: at the run's `as_of`.
        models: one for each behaviour.
        folder: of the run.
        threads: 0 for all cores.
    """

    state: State
    models: tuple[Model, ...]
    folder: Path
    threads: int

    @classmethod
    def of_run(cls, config: Config, folder: Path, *, threads: int) -> "Shards":
        """From what lies in the folder of a run, whose files have been compared before."""
        ledger = Ledger(folder)
        material = vectors.kept(config, frozen.read(ledger), folder)
        home, version = folder.parents[1], ledger["train"]["version"]
        trained = models.load_again(home / "models" / version)
        state = State(material, material.inputs.as_of, trained.projection, now=True)
        opened = artefacts.opened(state, folder / artefacts.FOLDER)
        return cls(opened, trained.models, folder, threads)

    def __call__(self, number: int, users: Users) -> list[Path]:
        """Score one shard; the files that tell of it."""
        state = self.state
        pairs = state.candidates(users)
        features = state.describe(pairs)
        scored = score_pairs(state, self.models, pairs, features, threads=self.threads)
        reasons, sentences = self._explain(scored, pairs, features)
        shard = predictions(scored, self.models, state).join(
            sentences, on=sentences.columns[:-1], how="left", maintain_order="left"
        )
        parts = {"shards": shard, "reasons": reasons, "health": count(features, self._seen)}
        name = f"{number:06d}.parquet"
        return [write_parquet(frame, self.folder / part / name) for part, frame in parts.items()]

    @cached_property
    def _explain(self) -> Reasons:
        per_user = self.state.material.config.scoring.reasons_per_user
        return Reasons(self.state, self.models, per_user=per_user)

    @cached_property
    def _seen(self) -> dict[str, tuple[float, float]]:
        return seen_range(self.models[0].classifier)


def write_shards(state: State, trained: Trained, ledger: Ledger) -> tuple[int, pl.DataFrame]:
    """Score and explain shard after shard of users; one that is there is left as it is.

    Returns:
        The number of rows; feature, null_share and outside_share, see `rank.health`.

    Raises:
        ResourceError: a process that scored has ended.
    """
    options = state.material.config.scoring
    with progress("score users", len(state.users)) as advance:
        todo = enumerate(state.shards())
        if options.processes == 1:
            score = Shards(state, trained.models, ledger.folder, options.threads)
            for number, users in todo:
                if not ledger.holds(_step(number)):
                    ledger.note(_step(number), *score(number, users))
                advance(len(users))
        else:
            _in_processes(todo, advance, ledger, state.material.config)
    for name in ("shards", "reasons"):
        manifest.write(ledger.folder / name / manifest.MANIFEST, ledger.written(name))
    counts = pl.read_parquet(ledger.folder / "health" / "*.parquet")
    shards = pl.scan_parquet(ledger.folder / "shards" / "*.parquet")
    return shards.select(pl.len()).collect().item(), shares(counts)


def _step(number: int) -> str:
    return f"score:{number:06d}"


def _in_processes(
    todo: Iterable[tuple[int, Users]],
    advance: Callable[[int], None],
    ledger: Ledger,
    config: Config,
) -> None:
    """Let several processes score what is to do; what they have done is noted here alone.

    Where a signal asks for the end, the shards at work are finished.
    """
    number = config.scoring.processes
    threads = max((config.scoring.threads or os.cpu_count() or 1) // number, 1)
    opening = partial(Shards.of_run, config, ledger.folder, threads=threads)
    with Workers(opening, number=number, threads=threads) as workers:

        def note() -> int:
            (shard, users), files = workers.answer()
            ledger.note(_step(shard), *files)
            return len(users)

        try:
            for shard, users in todo:
                if ledger.holds(_step(shard)):
                    advance(len(users))
                    continue
                if workers.all_busy:
                    advance(note())
                workers.ask(shard, users)
            while workers.any_busy:
                advance(note())
        except Stopped:
            while workers.any_busy:
                note()
            raise


def propensities(state: State, trained: Trained, ledger: Ledger) -> pl.DataFrame:
    """Whether each user does it at all, from the run's file where that is there."""
    path = ledger.folder / PROPENSITIES
    if not ledger.holds("score:users"):
        of_users = user_table(state, trained.propensities, model_version=trained.version)
        ledger.note("score:users", write_parquet(of_users, path))
    return pl.read_parquet(path)
