"""Scores an invented shop by one process and by several, in turns, and compares what they write.

Processor seconds are those of all processes together. Memory is the sum of their proportional
shares (PSS): a page of several counts once. The first process also holds what the stages before
left in it, such as torch.
"""

import hashlib
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import psutil
import typer

from jobs import artefacts, nightly
from jobs.config import Config, load_config
from jobs.console import show_table
from jobs.demo import AS_OF, write_demo
from jobs.ledger import Ledger
from jobs.nightly import Night, Prepared
from jobs.options import parse_as_of
from jobs.shards import save_state, write_shards
from jobs.stages import Stages
from jobs.state import State
from jobs.training import Trained


class Measured(NamedTuple):
    """What scoring took, and a digest of what it wrote."""

    seconds: float
    of_processors: float
    peak_mib: float
    digest: str


def main(
    users: Annotated[int, typer.Option(help="Users of the invented shop.", min=200)] = 20_000,
    items: Annotated[int, typer.Option(help="Its items.", min=50)] = 3_000,
    processes: Annotated[list[int] | None, typer.Option(help="Compared with one.")] = None,
    repeats: Annotated[int, typer.Option(help="Medians are of so many.", min=1)] = 3,
) -> None:
    """Print seconds, processor seconds and peak memory; fail where the files differ."""
    with tempfile.TemporaryDirectory() as home:
        night, ledger, prepared, trained = indexed(Path(home), users, items)
        numbers = [1, *(processes or [2])]
        for number in numbers:  # compiles, and fills the page cache
            scored(night, ledger, prepared, trained, processes=number)
        runs = [
            {n: scored(night, ledger, prepared, trained, processes=n) for n in numbers}
            for _ in range(repeats)
        ]
        shared = sum(path.stat().st_size for path in shared_files(ledger)) / 2**20
    assert len({run[n].digest for run in runs for n in numbers}) == 1, "the files differ"
    rows = [(n, *np.median([run[n][:3] for run in runs], axis=0).tolist()) for n in numbers]
    columns = ["processes", "seconds", "processor seconds", "peak MiB (PSS)"]
    show_table(
        f"{users:,} users, {items:,} items, {shared:,.0f} MiB mapped, median of {repeats}; "
        "equal files",
        columns,
        rows,
    )


def indexed(home: Path, users: int, items: int) -> tuple[Night, Ledger, Prepared, Trained]:
    """The demo's night up to the stage before scoring, with the fast encoder."""
    path = write_demo(home, users=users, items=items, seed=0)
    path.write_text(path.read_text() + '\n[encoder]\nmodel = "packaged/wordllama"\n')
    night = Night(load_config(path), parse_as_of(f"{AS_OF:%Y-%m-%d}"), path.parent, home)
    ledger = nightly.begin(night)
    prepared = nightly.prepare(night, nightly.ingest(night, ledger), ledger)
    trained = nightly.models_of(night, prepared, ledger)
    state = State(prepared.material, night.as_of, trained.projection, now=True)
    ledger.note("index", *save_state(state, ledger.folder))
    return night, ledger, prepared, trained


def scored(
    night: Night, ledger: Ledger, prepared: Prepared, trained: Trained, *, processes: int
) -> Measured:
    """Score all users anew."""
    ledger.forget("score")
    material = replace(prepared.material, config=with_processes(night.config, processes))
    stages, before = Stages(), of_processors()
    with stages("score"):
        state = State(material, night.as_of, trained.projection, now=True)
        write_shards(artefacts.opened(state, ledger.folder / artefacts.FOLDER), trained, ledger)
    seconds, peak = stages.rows["score"]
    return Measured(seconds, of_processors() - before, peak, digest(ledger))


def with_processes(config: Config, number: int) -> Config:
    scoring = config.scoring.model_copy(update={"processes": number})
    return config.model_copy(update={"scoring": scoring})


def of_processors() -> float:
    """Seconds of this process and of those that it has ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = psutil.Process().cpu_times()
    return float(own.user + own.system + ended.ru_utime + ended.ru_stime)


def digest(ledger: Ledger) -> str:
    """Of all that was written of shards."""
    written = [sorted(ledger.written(name).items()) for name in ("shards", "reasons", "health")]
    return hashlib.sha256(repr(written).encode()).hexdigest()


def shared_files(ledger: Ledger) -> list[Path]:
    folders = (ledger.folder / name for name in ("vectors", "state", "index"))
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


if __name__ == "__main__":
    typer.run(main)
