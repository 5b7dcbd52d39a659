"""Builds the night's DuckDB file and makes it current by one atomic rename."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TypedDict, Unpack

import duckdb
import polars as pl

from jobs import manifest, mart
from jobs.config_sections import MartConfig
from jobs.connections import connect
from jobs.errors import GateRefused, InputMissing
from jobs.ingest import Inputs
from jobs.links import CURRENT as CURRENT  # these, too, belong to publishing
from jobs.links import make_current as make_current
from jobs.links import manifest_of as manifest_of
from jobs.links import remove as remove

Derive = Callable[[duckdb.DuckDBPyConnection], Mapping[str, pl.DataFrame]]

# BI tools bundle engines older than the one that writes: DuckDB 1.5 can open this version.
STORAGE_VERSION = "v1.5.0"
# DuckDB holds all rows that it has seen to tell whether one comes again: some so many at a time.
ROWS_CHECKED = 1_000_000


@dataclass(frozen=True)
class Run:
    """One execution of the night."""

    run_id: str
    as_of: datetime
    started_at: datetime
    model_version: str


class Contents(TypedDict):
    """What a night's file is made of.

    Attributes:
        shards: sealed folder of Parquet files with the scored users.
        reasons: likewise, with what the first of their rows owe to what.
        inputs: what the night read; becomes the tables items, users, user_behaviours.
        tables: further tables by name; `run_id` is put before their columns.
        derive: gives more such tables from those that are written.
        options: how much of earlier nights the file holds.
    """

    shards: Path
    reasons: Path
    inputs: Inputs
    tables: Mapping[str, pl.DataFrame]
    derive: Derive
    options: MartConfig


def build(home: Path, run: Run, **contents: Unpack[Contents]) -> Path:
    """Write, check and finish `scores-<run_id>.duckdb` with its manifest; it is not yet current.

    It is built under a temporary name. `scores-<run_id>.json` has its SHA-256, the rows of each
    table, and what the run was.

    Args:
        home: the folder that holds the files of all nights.
        run: identifies the rows.
        contents: see `Contents`.

    Returns:
        The path of the finished file, read-only.

    Raises:
        Damaged: a shard is not what was scored.
        GateRefused: the predictions are not what the shards hold.
    """
    finished = home / f"scores-{run.run_id}.duckdb"
    with draft(home, run, **contents) as (building, rows):
        _finish(building, finished, run, rows)
    return finished


@contextmanager
def draft(
    home: Path, run: Run, **contents: Unpack[Contents]
) -> Iterator[tuple[Path, dict[str, int]]]:
    """The file of `build` under its temporary name and the rows of its tables, for the body.

    What the body does not rename is removed.
    """
    for folder in (contents["shards"], contents["reasons"]):
        manifest.verify(folder / manifest.MANIFEST)
    building = home / f".build-{run.run_id}.duckdb"
    try:
        yield building, _build(building, run, contents)
    finally:
        discard(building)


def _build(building: Path, run: Run, contents: Contents) -> dict[str, int]:
    """Write all tables and check them; rows by table."""
    discard(building)
    with connect(temp_directory=f"{building}.tmp") as connection:
        connection.execute("set TimeZone = 'UTC'")
        target = str(building).replace("'", "''")
        connection.execute(f"attach '{target}' as scores (storage_version '{STORAGE_VERSION}')")
        connection.execute("use scores")
        write_predictions(connection, run, contents["shards"])
        _write_reasons(connection, run, contents["reasons"])
        _write_inputs(connection, run, contents["inputs"])
        for name, frame in contents["tables"].items():
            _write(connection, name, frame, run)
        _write_run(connection, run)
        _check_predictions(connection, contents["shards"])
        for name, frame in contents["derive"](connection).items():
            _write(connection, name, frame, run)
        mart.write(connection, last=building.parent / CURRENT, options=contents["options"])
        rows = rows_of(connection)
        connection.execute("use memory")
        connection.execute("checkpoint scores")
        connection.execute("detach scores")
    return rows


def _finish(building: Path, finished: Path, run: Run, rows: Mapping[str, int]) -> None:
    """The manifest comes before the name, so that no finished file is without one."""
    settle(building)
    manifest.write(
        manifest_of(finished),
        {finished.name: manifest.sha256(building)},
        run_id=run.run_id,
        as_of=run.as_of.isoformat(),
        started_at=run.started_at.isoformat(),
        model_version=run.model_version,
        rows=rows,
    )
    building.rename(finished)
    manifest.sync(finished.parent)


def settle(building: Path) -> None:
    """Make a file that DuckDB has closed one that is only read."""
    if Path(f"{building}.wal").exists():
        raise OSError(f"{building} was not closed cleanly: its .wal file is still there")
    manifest.sync(building)
    building.chmod(0o444)


def discard(building: Path) -> None:
    """Remove an unfinished file and all that DuckDB left beside it."""
    for path in building.parent.glob(f"{building.name}*"):
        remove(path)


def open_scores(path: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to a night's file, or to the current one through its link.

    Raises:
        InputMissing: nothing has been published there yet.
    """
    if not path.exists():
        raise InputMissing(f"{path} does not exist: nothing is published yet; use `nightrank run`")
    return connect(path.resolve(), read_only=True)


def write_predictions(connection: duckdb.DuckDBPyConnection, run: Run, shards: Path) -> None:
    """Create the table `predictions`, in the order of the files: of the users and their lists.

    DuckDB keeps that order; to sort it again would hold every row in memory.
    """
    connection.execute(
        """
        create table predictions as
        select $run_id as run_id, $as_of::timestamp as as_of, user_id, item_id, behaviour,
               horizon_days, position, score, probability, generators, reason,
               $model_version as model_version, $scored_at::timestamp as scored_at
        from read_parquet($shards)
        """,
        {
            "run_id": run.run_id,
            "as_of": run.as_of,
            "model_version": run.model_version,
            "scored_at": run.started_at,
            "shards": str(shards / "*.parquet"),
        },
    )


def _write_reasons(connection: duckdb.DuckDBPyConnection, run: Run, reasons: Path) -> None:
    """In the order of the files: that of the users, and of each user's list."""
    connection.execute(
        "create table reasons as select $run_id as run_id, * from read_parquet($reasons)",
        {"run_id": run.run_id, "reasons": str(reasons / "*.parquet")},
    )


def _write_inputs(connection: duckdb.DuckDBPyConnection, run: Run, inputs: Inputs) -> None:
    """What SQL needs beside the predictions: names and prices, consent, and who did what when."""
    _write(connection, "items", inputs.items.drop("description"), run)
    _write(connection, "users", inputs.users, run)
    by_user = inputs.events.group_by("user", pl.col("behaviour").cast(pl.String)).agg(
        events=pl.len(), last_at=pl.col("ts").max()
    )
    ids = inputs.users.get_column("user_id").gather(by_user.get_column("user"))
    columns = by_user.select(ids, "behaviour", "events", "last_at").sort("user_id", "behaviour")
    _write(connection, "user_behaviours", columns, run)


def _write_run(connection: duckdb.DuckDBPyConnection, run: Run) -> None:
    connection.execute(
        """
        create table runs as
        select $run_id as run_id, $as_of::timestamp as as_of, $started_at::timestamp as started_at,
               now()::timestamp as finished_at, $model_version as model_version,
               (select count(*) from predictions) as predictions
        """,
        {
            "run_id": run.run_id,
            "as_of": run.as_of,
            "started_at": run.started_at,
            "model_version": run.model_version,
        },
    )


def _check_predictions(connection: duckdb.DuckDBPyConnection, shards: Path) -> None:
    """Refuse what a reader would stumble over.

    Raises:
        GateRefused: rows are missing, twice there, or without a probability.
    """
    scored = connection.execute(
        "select count(*) from read_parquet($shards)", {"shards": str(shards / "*.parquet")}
    ).fetchall()[0][0]
    rows, bad = connection.sql(
        "select count(*), count(*) filter (probability between 0 and 1 is not true) "
        "from predictions"
    ).fetchall()[0]
    distinct = _distinct(connection)
    problems = {
        f"{rows:,} rows in the table, {scored:,} in {shards}": rows != scored,
        f"{bad:,} of {rows:,} rows without a probability from 0 to 1": bad > 0,
        f"{rows - distinct:,} rows with a user, item and behaviour of another": distinct != rows,
    }
    if found := [problem for problem, holds in problems.items() if holds]:
        raise GateRefused(
            f"not published, the last good night stays current: {'; '.join(found)} "
            "(table predictions). Run again; if it stays, report it with the log"
        )


def _distinct(connection: duckdb.DuckDBPyConnection) -> int:
    """Number of different (user, item, behaviour), of some users at a time by their ids."""
    starts = connection.execute(
        "select distinct user_id from predictions where rowid % $rows = 0 order by user_id",
        {"rows": ROWS_CHECKED},
    ).fetchall()
    edges = [None, *(user for (user,) in starts), None]
    return sum(
        connection.execute(
            """
            select count(*) from (
                select distinct user_id, item_id, behaviour from predictions
                where ($start is null or user_id >= $start) and ($end is null or user_id < $end)
            )
            """,
            {"start": start, "end": end},
        ).fetchall()[0][0]
        for start, end in pairwise(edges)
    )


def rows_of(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Exact counts of the tables of the attached `scores`; `duckdb_tables()` has estimates."""
    names = connection.sql(
        "select table_name from duckdb_tables() where database_name = 'scores' "
        "and schema_name = 'main' order by all"
    ).fetchall()
    return {
        name: connection.sql(f'select count(*) from "{name}"').fetchall()[0][0] for (name,) in names
    }


def _write(connection: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame, run: Run) -> None:
    connection.register("rows", frame.to_arrow())
    connection.execute(
        f'create table "{name}" as select $run_id as run_id, * from rows', {"run_id": run.run_id}
    )
    connection.unregister("rows")
