"""Hands the views of the schema `mart` to another store."""

import re
import secrets
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from jobs.casts import quoted
from jobs.errors import ConfigError, ResourceError
from jobs.publish import open_scores

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

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
        for view, select in _selects(connection).items():
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

    Tables stay and their rows change, so that grants on them last; readers see the old rows
    until all the new ones are there.

    Returns:
        Rows by view.

    Raises:
        ConfigError: the extra `postgres` is not installed.
        ResourceError: the database refuses.
    """
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError:
        raise ConfigError("--to postgres://... needs `pip install nightrank[postgres]`") from None
    with open_scores(current) as night:
        try:
            with dbapi.connect(address) as target, target.cursor() as cursor:
                rows = _fill(cursor, night)
                target.commit()
        except dbapi.Error as error:
            told = str(error).replace(address, re.sub("//.*@", "//...@", address))
            raise ResourceError(f"nothing is copied, Postgres has what it had: {told}") from None
    return rows


def _fill(cursor: "Cursor", night: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Replace the rows of every table of `mart`; rows by view."""
    cursor.execute("create schema if not exists mart")
    rows = {}
    for view, select in _selects(night).items():
        found = night.sql(select).to_arrow_reader()
        ingest = partial(cursor.adbc_ingest, view, db_schema_name="mart")
        ingest(found.schema.empty_table(), mode="create_append")  # a table, where there is none
        cursor.execute(f"delete from mart.{view}")
        rows[view] = ingest(found, mode="append")
    return rows


def _selects(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """What is copied, by view."""
    found = connection.sql(
        "select distinct table_name from mart.data_dictionary "
        "where table_schema = 'mart' order by table_name"
    )
    return {
        view: f"select * {_PASSING.get(view, '')} from mart.{view}" for (view,) in found.fetchall()
    }
