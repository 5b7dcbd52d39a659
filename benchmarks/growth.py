"""How seconds and memory of tonight's part of a night grow with the shop.

POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python -m benchmarks.growth [--largest 10]

Models are trained on the smallest shop and score all. Seconds are of the processor; each shop has
a process of its own. An exponent of 1 is growth in proportion to the users.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from benchmarks.invented import AS_OF, write_shop
from benchmarks.measured import Clock, forget_peak, in_child, peak_mib
from benchmarks.night import SETTINGS
from benchmarks.recommend import keep_material, material_of
from jobs import models
from jobs.config import load_config
from jobs.console import show_table
from jobs.nightly import Night
from jobs.reasons import Reasons
from jobs.scoring import predictions, score_pairs
from jobs.shards import save_indexes
from jobs.state import State
from jobs.training import Trained, train_models

SCALES = (1, 3, 10, 30)
PARTS = ("index", "candidates", "features", "trees", "reasons", "tables")
EVENTS_PER_USER = 25
START = "start"


def main(
    users: Annotated[int, typer.Option(help="Of the smallest shop.")] = 2_000,
    items: Annotated[int, typer.Option(help="Likewise.")] = 1_000,
    largest: Annotated[int, typer.Option(help="Shops up to so many times as large.")] = 10,
    items_grow: Annotated[bool, typer.Option(help="Items become as many times more, too.")] = True,
) -> None:
    """Print a row for each shop, and the fitted exponents over users."""
    scales = [scale for scale in SCALES if scale <= largest]
    with TemporaryDirectory() as name:
        homes = {scale: Path(name) / str(scale) for scale in scales}
        for scale, home in homes.items():
            sizes = (users * scale, items * scale if items_grow else items)
            write_shop(home, users=sizes[0], items=sizes[1], events=EVENTS_PER_USER * sizes[0])
            in_child(keep_material, Night(load_config(SETTINGS), AS_OF, root=home, home=home))
        trained = in_child(train_on, homes[scales[0]])
        clocks = [in_child(score_all, home, trained) for home in homes.values()]
    rows = [
        (f"{scale}x", f"{users * scale:,}", *_figures(clock))
        for scale, clock in zip(scales, clocks, strict=True)
    ]
    sizes_of = np.array(scales, dtype=np.float64)
    rows.append(("exponent", "", *(f"{x:.2f}" for x in exponents(sizes_of, clocks))))
    grown = "users and items" if items_grow else f"users alone, {items:,} items"
    columns = ["shop", "users", *(f"{part} s" for part in PARTS), "all s", "MiB more"]
    show_table(f"growth of {grown}", columns, rows)


def train_on(home: Path) -> Path:
    """Train as the night does; the folder of what is kept."""
    return models.save(train_models(material_of(home), AS_OF), home, trained_for="benchmark")


def score_all(home: Path, trained: Path) -> Clock:
    """All that a night does between vectors and tables, part by part."""
    material, kept = material_of(home), models.load(trained)
    state, clock = State(material, AS_OF, kept.projection, now=True), Clock()
    explain = Reasons(state, kept.models, per_user=material.config.scoring.reasons_per_user)
    forget_peak()
    clock.peak_mib[START] = peak_mib()
    with clock("index"):  # and whatever else is built once: the first user needs all of it
        save_indexes(state, home / "index")
        _score(state, kept, explain, state.users[:1], Clock(), home / "first.parquet")
    for number, users in enumerate(state.shards()):
        _score(state, kept, explain, users, clock, home / f"{number:06d}.parquet")
    return clock


def _score(
    state: State, kept: Trained, explain: Reasons, users: np.ndarray, clock: Clock, target: Path
) -> None:
    """As `jobs.shards.write_shards` does with a shard."""
    with clock("candidates"):
        pairs = state.candidates(users)
    with clock("features"):
        features = state.describe(pairs)
    with clock("trees"):
        scored = score_pairs(state, kept.models, pairs, features, threads=1)
    with clock("reasons"):
        reasons, sentences = explain(scored, pairs, features)
    with clock("tables"):
        rows = predictions(scored, kept.models, state)
        keys = sentences.columns[:-1]
        rows.join(sentences, on=keys, how="left", maintain_order="left").write_parquet(target)
        reasons.write_parquet(target.with_suffix(".reasons"))


def exponents(sizes: np.ndarray, clocks: list[Clock]) -> list[float]:
    """Of each part, all seconds and the memory that came on top, by least squares of logarithms.

    >>> clocks = [Clock({"index": n}, peak_mib={START: 100.0, "index": 100 + n**2}) for n in (1, 3)]
    >>> [round(x, 2) for x in exponents(np.array([1, 3]), clocks)][-2:]
    [1.0, 2.0]
    """
    if len(sizes) < 2:
        return [np.nan] * (len(PARTS) + 2)
    figures = np.array([_numbers(clock) for clock in clocks])
    slopes, _ = np.polyfit(np.log(sizes), np.log(np.maximum(figures, 1e-9)), 1)
    return [float(slope) for slope in slopes]


def _numbers(clock: Clock) -> list[float]:
    seconds = [clock.seconds.get(part, 0.0) for part in PARTS]
    more = max(clock.peak_mib.values()) - clock.peak_mib[START]
    return [*seconds, sum(seconds), more]


def _figures(clock: Clock) -> list[str]:
    *seconds, more = _numbers(clock)
    return [*(f"{taken:.2f}" for taken in seconds), f"{more:,.0f}"]


if __name__ == "__main__":
    typer.run(main)
