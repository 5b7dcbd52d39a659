"""Builds the night's DuckDB file and makes it current by one atomic rename."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl

from jobs import mart
from jobs.config_sections import MartConfig
from jobs.errors import InputMissing
from jobs.ingest import Inputs

# BI tools bundle engines older than the one that writes: DuckDB 1.5 can open this version.
STORAGE_VERSION = "v1.5.0"
CURRENT = "current.duckdb"


@dataclass(frozen=True)
class Run:
    """One execution of the night."""

    run_id: str
    as_of: datetime
    started_at: datetime
    model_version: str


def build(
    home: Path,
    run: Run,
    *,
    shards: Path,
    reasons: Path,
    inputs: Inputs,
    tables: Mapping[str, pl.DataFrame],
    options: MartConfig,
) -> Path:
    """Write `scores-<run_id>.duckdb` under a temporary name, then rename it; not yet current.

    Args:
        home: the folder that holds the files of all nights.
        run: identifies the rows.
        shards: folder of Parquet files with the scored users.
        reasons: likewise, with what the first of their rows owe to what.
        inputs: what the night read; becomes the tables items, users, user_behaviours.
        tables: further tables by name; `run_id` is put before their columns.
        options: how much of earlier nights the file holds.

    Returns:
        The path of the finished file.
    """
    building = home / f".build-{run.run_id}.duckdb"
    finished = home / f"scores-{run.run_id}.duckdb"
    building.unlink(missing_ok=True)
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        target = str(building).replace("'", "''")
        connection.execute(f"attach '{target}' as scores (storage_version '{STORAGE_VERSION}')")
        connection.execute("use scores")
        _write_predictions(connection, run, shards)
        _write_reasons(connection, run, reasons)
        _write_inputs(connection, run, inputs)
        for name, frame in tables.items():
            _write(connection, name, frame, run)
        _write_run(connection, run)
        mart.write(connection, last=home / CURRENT, options=options)
        connection.execute("use memory")
        connection.execute("checkpoint scores")
        connection.execute("detach scores")
    if building.with_suffix(".duckdb.wal").exists():
        raise OSError(f"{building} was not closed cleanly: its .wal file is still there")
    _sync(building)
    building.rename(finished)
    return finished


def make_current(finished: Path) -> None:
    """Point `current.duckdb` beside `finished` at it, in one rename."""
    home = finished.parent
    link = home / f".current-{finished.stem}"
    link.unlink(missing_ok=True)
    link.symlink_to(finished.name)
    link.replace(home / CURRENT)
    _sync(home)


def open_scores(path: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to a night's file, or to the current one through its link.

    Raises:
        InputMissing: nothing has been published there yet.
    """
    if not path.exists():
        raise InputMissing(f"{path} does not exist: nothing is published yet; use `nightrank run`")
    return duckdb.connect(str(path.resolve()), read_only=True)


def _write_predictions(connection: duckdb.DuckDBPyConnection, run: Run, shards: Path) -> None:
    connection.execute(
        """
        create table predictions as
        select $run_id as run_id, $as_of::timestamp as as_of, user_id, item_id, behaviour,
               horizon_days, position, score, probability, generators, reason,
               $model_version as model_version, $scored_at::timestamp as scored_at
        from read_parquet($shards)
        order by user_id, behaviour, position
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


def _write(connection: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame, run: Run) -> None:
    connection.register("rows", frame.to_arrow())
    connection.execute(
        f'create table "{name}" as select $run_id as run_id, * from rows', {"run_id": run.run_id}
    )
    connection.unregister("rows")


def _sync(path: Path) -> None:
    """Wait until the file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
