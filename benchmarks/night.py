"""A whole night, stage by stage, and recommending beside plain use of the libraries and RecTools.

POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python -m benchmarks.night [FOLDER]

Without a folder, on an invented shop. Texts become vectors by the small packaged encoder, so that
encoding does not outweigh the rest. Seconds are of the processor, peaks those of a process of its
own for each way.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.invented import AS_OF, write_shop
from benchmarks.measured import in_child
from benchmarks.profiled import Seconds, families, profiling
from benchmarks.recommend import TASKS, WAYS, alike, grow_models, keep_material, measure
from index.int8 import LEAST_VECTORS
from jobs.config import load_config
from jobs.console import show_table
from jobs.nightly import Night, run
from jobs.stages import Stages

SETTINGS = Path(__file__).parent / "night.toml"
OVERRIDE = "a benchmark"


def main(
    folder: Annotated[
        Path | None, typer.Argument(help="items.parquet, interactions.parquet.")
    ] = None,
    as_of: Annotated[datetime, typer.Option(help="The night.")] = AS_OF,
    users: Annotated[int, typer.Option(help="Of the invented shop.")] = 20_000,
    items: Annotated[int, typer.Option(help="Likewise.")] = 5_000,
    events: Annotated[int, typer.Option(help="Likewise.")] = 495_000,
    trees: Annotated[int, typer.Option(help="Of each model that recommends.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="The median of so many is shown.")] = 1,
    whole: Annotated[bool, typer.Option(help="Do the whole night, too.")] = True,
    profile: Annotated[bool, typer.Option(help="And show where its time goes.")] = True,
    compare: Annotated[bool, typer.Option(help="Recommend in other ways, too.")] = True,
) -> None:
    """Print the stages, a profile, and recommending in several ways."""
    with TemporaryDirectory() as name:
        home = Path(name)
        if folder is None:
            folder = home / "shop"
            write_shop(folder, users=users, items=items, events=events)
        if whole or profile:
            compile_loops(home / "first")
        if whole:
            show_night(*in_child(whole_night, folder, home, as_of, profile=False))
        if profile:
            *_, seconds = in_child(whole_night, folder, home, as_of, profile=True)
            columns = ["file", "seconds", "share", "most of it"]
            show_table("where a night's time goes", columns, families(seconds))
        if compare:
            in_child(keep_material, night_of(folder, home, as_of))
            in_child(grow_models, home, trees)
            for task in TASKS:
                show_ways(task, home, repeats)


def compile_loops(home: Path) -> None:
    """A night of a small shop in a process of its own: the first of an installation compiles.

    What that takes, some 120 MiB until the process ends, no later night takes.
    """
    write_shop(home / "shop", users=2_000, items=LEAST_VECTORS + 1_000, events=60_000)
    in_child(whole_night, home / "shop", home, AS_OF, profile=False)


@dataclass
class Processor(Stages):
    """Stages with seconds of the processor, too."""

    processor: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the body."""
        started = time.process_time()
        with super().__call__(name):
            yield
        self.processor[name] = time.process_time() - started


def night_of(folder: Path, home: Path, as_of: datetime) -> Night:
    """The night of a folder with the settings of the benchmarks."""
    return Night(load_config(SETTINGS), as_of, root=folder, home=home, stages=Processor())


def whole_night(
    folder: Path, home: Path, as_of: datetime, *, profile: bool
) -> tuple[Processor, int, float, Seconds]:
    """The measured stages, published rows, MiB of vectors, and where the time went."""
    night = night_of(folder, home, as_of)
    profiler: AbstractContextManager[Seconds] = profiling() if profile else nullcontext({})
    with profiler as seconds:
        outcome = run(night, override=OVERRIDE, again=True)
    material = outcome.prepared.material
    vectors = (material.item_vectors.nbytes + material.review_vectors.nbytes) / 2**20
    assert isinstance(night.stages, Processor)
    return night.stages, outcome.predictions, vectors, seconds


def show_night(stages: Processor, rows: int, vectors: float, _: Seconds) -> None:
    """A row for each stage, and the whole."""
    table = [
        (stage, f"{stages.processor[stage]:.1f}", f"{wall:.1f}", round(peak))
        for stage, (wall, peak) in stages.rows.items()
    ]
    most = max(peak for _, peak in stages.rows.values())
    wall = sum(wall for wall, _ in stages.rows.values())
    table.append(("all", f"{sum(stages.processor.values()):.1f}", f"{wall:.1f}", round(most)))
    title = f"whole night, {rows:,} rows, vectors of {vectors:,.0f} MiB"
    show_table(title, ["stage", "processor s", "wall s", "peak MiB"], table)


def show_ways(task: str, home: Path, repeats: int) -> None:
    """A row for each way to do a task, and how many rows of ours the plain way has, too."""
    ways = [way for way in WAYS if _possible(way, task)]
    runs = [{way: in_child(measure, way, task, home) for way in ways} for _ in range(repeats)]
    seconds = {
        way: {part: median(run[way][0].seconds[part] for run in runs) for part in PARTS}
        for way in ways
    }
    mine = seconds["nightrank"]["recommend"]
    table = [
        (
            way,
            f"{runs[0][way][1]:,}",
            f"{seconds[way]['fit']:.1f}",
            f"{seconds[way]['recommend']:.2f}",
            f"{seconds[way]['recommend'] / mine:.1f}",
            *(round(max(run[way][0].peak_mib[part] for run in runs)) for part in PARTS),
        )
        for way in ways
    ]
    rows, scores = alike(home, task)
    title = f"{task}: plain and ours share {rows:.3%} of the pairs, {scores:.3%} of their scores"
    show_table(title, COLUMNS, table)


PARTS = ("fit", "recommend")
COLUMNS = ["way", "pairs", "fit s", "recommend s", "of ours", "fit MiB", "recommend MiB"]


def _possible(way: str, task: str) -> bool:
    if way != "RecTools":
        return True
    return not TASKS[task].probable and all(find_spec(name) for name in ("rectools", "implicit"))


if __name__ == "__main__":
    typer.run(main)
