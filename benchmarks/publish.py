"""Writing a night's predictions to DuckDB: in batches, as the night does, and without order.

All ways read the same Parquet shards. A look-up reads all rows of one user. Times are of the
processor, all threads together; peak memory is that of a process of its own for each way.
"""

import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import polars as pl
import typer

from benchmarks.measured import Clock, in_child
from jobs.connections import connect
from jobs.console import show_table
from jobs.publish import STORAGE_VERSION, Run, write_predictions

RUN = Run("benchmark", datetime(2024, 6, 1), datetime(2024, 6, 1, 3), "20240601-benchmark")
PER_USER, BATCHES, LOOK_UPS = 100, 100, 30
GENERATORS = ["nearest", "cooccurrence", "popular"]
COLUMNS = ["way", "seconds", "of plain", "peak MiB", "MiB on disk", "look-up, ms"]
COPY = "limit: the shards copied, in one Parquet file"

Way = Callable[[Path, Path], None]


def main(
    rows: Annotated[int, typer.Option(min=PER_USER, help="Predictions.")] = 2_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="The median of so many is shown.")] = 5,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, too.")] = True,
) -> None:
    """Print seconds, ratios, memory, and the time of one user's look-up."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        shards = folder / "shards"
        write_rows(folder, rows)
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        peaks = {way: in_child(peak, way, folder) if memory else 0.0 for way in WAYS}
        for _ in range(repeats):
            for way, times in taken.items():
                times.append(timed(way, shards, target_of(folder, way), rows // PER_USER))
        plain = median(seconds for seconds, _ in taken[next(iter(WAYS))])
        table = []
        for way, times in taken.items():
            seconds, look_up = (median(column) for column in zip(*times, strict=True))
            size = round(target_of(folder, way).stat().st_size / 2**20)
            table.append((way, f"{seconds:.2f}", f"{plain / seconds:.2f}",
                          round(peaks[way]), size, f"{1000 * look_up:.2f}"))  # fmt: skip
    show_table(f"{rows:,} rows, median of {repeats}", COLUMNS, table)


def write_rows(folder: Path, rows: int, *, seed: int = 0) -> None:
    """Shards as the night writes them, 100 files of users with 100 rows each.

    Those in `mixed` hold the same rows in any order, as workers without an order among them would.
    """
    rng = np.random.default_rng(seed)
    users = rows // PER_USER
    items = rng.permuted(np.tile(np.arange(2 * PER_USER), (users, 1)), axis=1)[:, :PER_USER]
    score = np.sort(rng.normal(-4, 1.5, (users, PER_USER)))[:, ::-1].ravel()
    position = np.tile(np.arange(1, PER_USER + 1, dtype=np.int32), users)
    frame = pl.DataFrame(
        {"user_id": 10_000 + 3 * np.repeat(np.arange(users), PER_USER), "item": items.ravel()}
    ).select(
        "user_id",
        item_id=pl.format("I{}", pl.col("item").cast(pl.String).str.zfill(5)),
        behaviour=pl.lit("purchase"),
        horizon_days=pl.lit(14, pl.Int32),
        position=pl.Series(position),
        score=pl.Series(score),
        probability=pl.Series(1 / (1 + np.exp(-score))),
        generators=pl.lit(pl.Series([GENERATORS])).first(),
        reason=pl.when(pl.Series(position) <= 5).then(pl.lit("Popular now: 90 events of all.")),
    )
    size = -(-len(frame) // BATCHES)
    for name in ("shards", "mixed"):
        (folder / name).mkdir()
        for number, start in enumerate(range(0, len(frame), size)):
            frame[start : start + size].write_parquet(folder / name / f"{number:06d}.parquet")
        frame = frame.sample(fraction=1, shuffle=True, seed=seed)


def in_batches(shards: Path, target: Path, *, key: str = "") -> None:
    """An insert for each shard, as the scores of one are there."""
    with connect(target) as connection:
        connection.execute(
            "create table predictions (run_id varchar, as_of timestamp, user_id bigint, "
            "item_id varchar, behaviour varchar, horizon_days integer, position integer, "
            "score double, probability double, generators varchar[], reason varchar, "
            f"model_version varchar, scored_at timestamp{key})"
        )
        for shard in sorted(shards.glob("*.parquet")):
            connection.execute(f"insert into predictions {SELECT}", facts_of(shard))


def in_any_order(shards: Path, target: Path) -> None:
    """The same with rows in any order."""
    in_batches(shards.with_name("mixed"), target)


def with_key(shards: Path, target: Path) -> None:
    """The same, and DuckDB refuses a pair that is there twice."""
    in_batches(shards, target, key=", primary key (user_id, item_id, behaviour)")


def ours(shards: Path, target: Path) -> None:
    """As the night does."""
    with connect(temp_directory=f"{target}.tmp") as connection:
        connection.execute(f"attach '{target}' as scores (storage_version '{STORAGE_VERSION}')")
        connection.execute("use scores")
        write_predictions(connection, RUN, shards)
        connection.execute("use memory")
        connection.execute("checkpoint scores")
        connection.execute("detach scores")


def as_they_come(shards: Path, target: Path) -> None:
    """One statement, in whatever order DuckDB's threads read."""
    with connect(target) as connection:
        connection.execute("set preserve_insertion_order = false")
        connection.execute(f"create table predictions as {SELECT}", facts_of(shards / "*.parquet"))


def copied(shards: Path, target: Path) -> None:
    """The rows alone, decoded and encoded again."""
    pl.scan_parquet(shards / "*.parquet").sink_parquet(target, compression="zstd")


SELECT = """
select $run_id as run_id, $as_of::timestamp as as_of, user_id, item_id, behaviour, horizon_days,
       position, score, probability, generators, reason, $model_version as model_version,
       $scored_at::timestamp as scored_at
from read_parquet($shards)
"""

WAYS: dict[str, Way] = {
    "plain: 100 inserts": in_batches,
    "plain: 100 inserts, rows in any order": in_any_order,
    "plain: 100 inserts, primary key": with_key,
    "nightrank": ours,
    "limit: create table as, any order": as_they_come,
    COPY: copied,
}


def facts_of(shards: Path) -> dict[str, object]:
    """The parameters of `SELECT`."""
    return {
        "run_id": RUN.run_id,
        "as_of": RUN.as_of,
        "model_version": RUN.model_version,
        "scored_at": RUN.started_at,
        "shards": str(shards),
    }


def target_of(folder: Path, way: str) -> Path:
    """Where a way writes."""
    return folder / f"{list(WAYS).index(way)}.db"


def timed(way: str, shards: Path, target: Path, users: int) -> tuple[float, float]:
    """Seconds of the processor to write, and of one user's look-up in what was written."""
    discard(target)
    started = time.process_time()
    WAYS[way](shards, target)
    written = time.process_time() - started
    rng = np.random.default_rng(0)
    asked = (10_000 + 3 * rng.integers(0, users, LOOK_UPS)).tolist()
    table = "predictions"
    connection = connect(target, read_only=True) if way != COPY else connect()
    if way == COPY:
        table = f"read_parquet('{target}')"
    with connection:
        query = f"select * from {table} where user_id = ?"
        connection.execute(query, [asked[0]]).fetchall()
        started = time.process_time()
        found = [len(connection.execute(query, [user]).fetchall()) for user in asked]
        look_up = (time.process_time() - started) / LOOK_UPS
    assert set(found) == {PER_USER}, f"{way}: {found} rows of a user"
    return written, look_up


def peak(way: str, folder: Path) -> float:
    """Most resident MiB of a process that writes, its imports included."""
    clock, target = Clock(), target_of(folder, way)
    discard(target)
    with clock(way):
        WAYS[way](folder / "shards", target)
    return clock.peak_mib[way]


def discard(target: Path) -> None:
    """Remove what a way wrote, and what DuckDB may have left beside it."""
    for path in target.parent.glob(f"{target.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    typer.run(main)
