"""What a night costs by how much has changed since the one before, each a process of its own.

OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 python -m benchmarks.change [--encoder packaged/wordllama]

A first night on an empty home trains. Then, from copies of that home, nights of the next day: with
0, 1, 10 and 100% of texts reworded and of users active once more, and one with `--full` of the same
rows as that with 1%, whose tables are held against it.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from jobs.console import show_table
from jobs.demo import AS_OF, write_demo
from jobs.publish import CURRENT, open_scores

FIRST = datetime.combine(AS_OF, time())
NEXT = FIRST + timedelta(days=1)
SHARES = (0.0, 0.01, 0.1, 1.0)
AGAINST_FULL = 0.01
EVENTS_A_USER = 3
SOURCES = ("items", "reviews", "events", "users")
STAGES = ("embed", "train", "index", "score")
OF_THE_RUN = ("run_id", "started_at", "finished_at", "scored_at", "encoded", "cached")

Sources = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Cost:
    """What a night took.

    Attributes:
        texts: texts encoded.
        seconds: of each stage, by the clock.
        process: of the whole process and by the processor: imports, reading and writing too.
    """

    texts: int
    seconds: dict[str, float]
    process: float


def main(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Sources and demo.toml, as `nightrank demo` writes them; else a shop."),
    ] = None,
    users: Annotated[int, typer.Option(help="Of the invented shop.", min=200)] = 2000,
    items: Annotated[int, typer.Option(help="Of the invented shop.", min=50)] = 1000,
    encoder: Annotated[str, typer.Option(help="Model.")] = "packaged/all-MiniLM-L6-v2",
    seed: Annotated[int, typer.Option(help="Of the shop and of what changes.")] = 0,
) -> None:
    """Print what each night took, and which tables of two are not the same."""
    os.environ["NIGHTRANK__ENCODER__MODEL"] = encoder
    with tempfile.TemporaryDirectory() as place:
        given = folder or write_demo(Path(place), users=users, items=items, seed=seed).parent
        shop = Path(place) / "sources"
        shutil.copytree(given, shop)
        sources = known(shop)
        _write(sources, shop)
        nights = dict(measured(sources, shop, Path(place), seed=seed))
        _show(nights)
        differing = different(*(Path(place) / name for name in ("1%", "1%, full")))
        typer.echo(f"--full differs from the night with the same rows in: {differing or 'nothing'}")


def measured(sources: Sources, shop: Path, place: Path, *, seed: int) -> Iterator[tuple[str, Cost]]:
    """The name of each night, which its home in `place` has too, and what it took."""
    yield "first", night(shop, place / "first", FIRST)
    for share in SHARES:
        _write(changed(sources, share, seed=seed), shop)
        for name, options in (("", ()), (", full", ("--full",))):
            if not options or share == AGAINST_FULL:
                home = place / f"{share:.0%}{name}"
                shutil.copytree(place / "first", home, symlinks=True)
                yield home.name, night(shop, home, NEXT, *options)


def night(shop: Path, home: Path, as_of: datetime, *options: str) -> Cost:
    """Do a night in a process of its own."""
    before = _children()
    subprocess.run(
        [
            *(sys.executable, "-m", "jobs.cli", "run", str(shop / "demo.toml")),
            *("--as-of", as_of.isoformat(), "--root", str(shop), "--home", str(home)),
            *("--force", "benchmark: invented changes may look like drift", *options),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process = _children() - before
    with open_scores(home / CURRENT) as scores:
        seconds = dict(scores.sql("select stage, seconds from stages").fetchall())
        ((texts,),) = scores.sql("select sum(encoded)::int from texts").fetchall()
    return Cost(texts, seconds, process)


def known(shop: Path) -> Sources:
    """The rows of the sources before the first night, so that on the next day nothing is new."""
    frames = {name: pl.read_parquet(shop / f"{name}.parquet") for name in SOURCES}
    before = {name: frames[name].filter(pl.col("ts") < FIRST) for name in ("events", "reviews")}
    return frames | before


def changed(sources: Sources, share: float, *, seed: int) -> Sources:
    """A share of items and reviews with another text, and of users with events of the next day."""
    rng = np.random.default_rng(seed)
    reworded = {
        name: sources[name].with_columns(_reworded(sources[name], column, share, rng))
        for name, column in (("items", "description"), ("reviews", "text"))
    }
    events = sources["events"]
    active = events.get_column("user_id").drop_nulls().unique().sort()
    chosen = active.sample(round(share * len(active)), seed=seed).implode()
    latest = events.filter(pl.col("user_id").is_in(chosen)).group_by("user_id", maintain_order=True)
    again = latest.tail(EVENTS_A_USER).select(events.columns)
    seconds = pl.Series(rng.uniform(0, 86_400e6, len(again)).astype(np.int64))
    moments = pl.lit(FIRST).cast(events.schema["ts"]) + seconds.cast(pl.Duration("us"))
    return sources | reworded | {"events": pl.concat([events, again.with_columns(ts=moments)])}


def different(one: Path, other: Path) -> str:
    """Tables of two homes' current nights that differ in more than when and at what cost."""
    frames = []
    for home in (one, other):
        with open_scores(home / CURRENT) as scores:
            names = scores.sql(
                "select table_name from duckdb_tables() where schema_name = 'main' order by all"
            ).fetchall()
            tables = {name: scores.sql(f'from "{name}"').pl() for (name,) in names}
        frames.append({n: f.drop(OF_THE_RUN, strict=False) for n, f in tables.items()})
    left, right = frames
    same = {name for name in left.keys() & right.keys() if left[name].equals(right[name])}
    return ", ".join(sorted((left.keys() | right.keys()) - same - {"stages"}))


def _reworded(rows: pl.DataFrame, column: str, share: float, rng: np.random.Generator) -> pl.Series:
    chosen = pl.Series(rng.permutation(len(rows)) < round(share * len(rows)))
    texts = pl.col(column).fill_null("")
    return rows.select(
        pl.when(chosen).then(pl.format("{} Now improved.", texts)).otherwise(column).alias(column)
    ).to_series()


def _write(sources: Sources, shop: Path) -> None:
    for name, rows in sources.items():
        rows.write_parquet(shop / f"{name}.parquet")


def _show(nights: dict[str, Cost]) -> None:
    columns = ["night", "texts", *STAGES, "processor", "of the first", "of a full one"]
    first, full = nights["first"].process, nights["1%, full"].process
    rows = [
        (
            name,
            cost.texts,
            *(cost.seconds.get(stage, 0.0) for stage in STAGES),
            cost.process,
            cost.process / first,
            cost.process / full,
        )
        for name, cost in nights.items()
    ]
    show_table("texts encoded, seconds by the clock, seconds of the processor", columns, rows)


def _children() -> float:
    """Seconds that processes which have ended computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    typer.run(main)
