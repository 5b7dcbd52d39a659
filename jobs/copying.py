"""Hands the views of the schema `mart` to another store."""

import re
import secrets
import shutil
from pathlib import Path

import duckdb

from jobs.casts import quoted
from jobs.errors import ResourceError
from jobs.publish import open_scores

# What holds at the time of a query only; a copy has what it is computed from.
_PASSING = {"freshness_v1": "exclude (age_hours, stale)"}


def to_parquet(current: Path, folder: Path) -> dict[str, int]:
    """Write `folder/mart-<run_id>-<number>/<view>.parquet`, then swap `folder/current` to it.

    Older copies go, but for the one before, whose readers may not be done.

    Returns:
        Rows by view.
    """
    rows = {}
    with open_scores(current) as connection:
        run_id = connection.sql("select run_id from runs").fetchall()[0][0]
        finished = folder / f"mart-{run_id}-{secrets.token_hex(2)}"
        finished.mkdir(parents=True)
        for view, select in _selects(connection, "mart").items():
            target = quoted(str(finished / f"{view}.parquet"))
            told = connection.execute(f"copy ({select}) to {target} (compression zstd)").fetchall()
            rows[view] = told[0][0]
    link, swapped = folder / "current", folder / ".current"
    before = link.resolve()
    swapped.unlink(missing_ok=True)
    swapped.symlink_to(finished.name)
    swapped.replace(link)
    for old in folder.glob("mart-*"):
        if old.name not in (finished.name, before.name):
            shutil.rmtree(old)
    return rows


def to_postgres(current: Path, address: str) -> dict[str, int]:
    """Replace the rows of the schema `mart` of a Postgres database, in one transaction.

    Returns:
        Rows by view.

    Raises:
        ResourceError: DuckDB's extension `postgres` cannot be had, or the database refuses.
    """
    open_scores(current).close()  # whether anything is published is told first
    with duckdb.connect() as connection:
        try:
            connection.execute("install postgres; load postgres")
            connection.execute(f"attach {quoted(address)} as target (type postgres)")
            return fill(connection, current)
        except duckdb.Error as error:
            told = str(error).replace(address, re.sub("//.*@", "//...@", address))
            raise ResourceError(f"nothing is copied, Postgres has what it had: {told}") from None


def fill(connection: duckdb.DuckDBPyConnection, current: Path) -> dict[str, int]:
    """Replace the rows of the schema `mart` of the attached database `target`.

    Tables stay and their rows change, so that grants on them last; readers see the old rows
    until all the new ones are there.

    Returns:
        Rows by view.
    """
    connection.execute(f"attach {quoted(str(current.resolve()))} as night (read_only)")
    rows = {}
    connection.execute("begin")
    connection.execute("create schema if not exists target.mart")
    for view, select in _selects(connection, "night.mart").items():
        table = f"target.mart.{view}"
        connection.execute(f"create table if not exists {table} as {select} limit 0")
        connection.execute(f"delete from {table}")
        rows[view] = connection.execute(f"insert into {table} {select}").fetchall()[0][0]
    connection.execute("commit")
    return rows


def _selects(connection: duckdb.DuckDBPyConnection, mart: str) -> dict[str, str]:
    """What is copied, by view."""
    found = connection.sql(
        f"select distinct table_name from {mart}.data_dictionary "
        "where table_schema = 'mart' order by table_name"
    )
    return {
        view: f"select * {_PASSING.get(view, '')} from {mart}.{view}"
        for (view,) in found.fetchall()
    }
