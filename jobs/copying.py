"""`nightrank copy`: hands the views of the schema `mart` to another store."""

import os
import re
import shutil
from pathlib import Path
from typing import Annotated

import duckdb
import typer

from jobs.casts import quoted
from jobs.errors import ConfigError, ResourceError
from jobs.publish import CURRENT, open_scores

# What holds at the time of the query only: a copy has what it is computed from.
_PASSING = {"freshness_v1": "exclude (age_hours, stale)"}
_VIEWS = "select distinct table_name from {mart}.data_dictionary where table_schema = 'mart'"


def copy(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The TOML file.")],
    to: Annotated[
        str, typer.Option(metavar="STORE", help="`postgres://USER@HOST/DATABASE`, or `parquet`.")
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where the Parquet files go.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Where the nights are. Without it: nightrank-home/NAME.")
    ] = None,
) -> None:
    """Copy the views of the current night, earlier nights included, to another store."""
    from jobs.config import load_config

    current = (home or Path("nightrank-home") / load_config(config).name) / CURRENT
    if to == "parquet" and folder is not None:
        rows = to_parquet(current, folder)
    elif re.match(r"postgres(ql)?://", to) and folder is None:
        rows = to_postgres(current, to)
    else:
        raise ConfigError(
            "write `--to parquet DIR` or `--to postgres://USER@HOST/DATABASE`; passwords belong "
            "into ~/.pgpass or PGPASSWORD"
        )
    for view, count in rows.items():
        typer.echo(f"{view} {count:,}")


def to_parquet(current: Path, folder: Path) -> dict[str, int]:
    """Write `folder/mart-<run_id>/<view>.parquet`, then swap the link `folder/current` to it.

    Older copies go, but for the one before: its readers may not be done. What a killed copy left
    goes too.

    Returns:
        Rows by view.
    """
    building = folder / ".building"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    rows = {}
    with open_scores(current) as connection:
        run_id = connection.sql("select run_id from runs").fetchall()[0][0]
        for view in _views(connection, "mart"):
            target = quoted(str(building / f"{view}.parquet"))
            select = f"select * {_PASSING.get(view, '')} from mart.{view}"
            done = connection.execute(
                f"copy ({select}) to {target} (format parquet, compression zstd)"
            )
            rows[view] = done.fetchall()[0][0]
    finished, link = folder / f"mart-{run_id}", folder / "current"
    before = os.readlink(link) if link.is_symlink() else None
    if finished.exists():  # the same night again: its copy makes room for an equal one
        shutil.rmtree(finished)
    building.rename(finished)
    swapped = folder / ".current"
    swapped.unlink(missing_ok=True)
    swapped.symlink_to(finished.name)
    swapped.replace(link)
    for old in folder.glob("mart-*"):
        if old.name not in (finished.name, before):
            shutil.rmtree(old)
    return rows


def to_postgres(current: Path, url: str) -> dict[str, int]:
    """Replace the rows of the schema `mart` of a Postgres database, in one transaction.

    Raises:
        ResourceError: DuckDB's extension `postgres` cannot be loaded, or the database refuses.
    """
    with open_scores(current), duckdb.connect() as connection:
        try:
            connection.execute("install postgres; load postgres")
            connection.execute(f"attach {quoted(url)} as target (type postgres)")
            return fill(connection, current)
        except duckdb.Error as error:
            hidden = str(error).replace(url, re.sub(r"//.*@", "//...@", url))
            raise ResourceError(f"nothing was copied, Postgres holds what it held: {hidden}") from None


def fill(connection: duckdb.DuckDBPyConnection, current: Path) -> dict[str, int]:
    """Replace the rows of the schema `mart` of the attached database `target`.

    Tables stay and only their rows change, so that grants and views on them last; readers see
    the old rows until all is there.

    Returns:
        Rows by view.
    """
    connection.execute(f"attach {quoted(str(current.resolve()))} as night (read_only)")
    rows = {}
    connection.execute("begin")
    connection.execute("create schema if not exists target.mart")
    for view in _views(connection, "night.mart"):
        select = f"select * {_PASSING.get(view, '')} from night.mart.{view}"
        connection.execute(f"create table if not exists target.mart.{view} as {select} limit 0")
        connection.execute(f"delete from target.mart.{view}")
        done = connection.execute(f"insert into target.mart.{view} {select}")
        rows[view] = done.fetchall()[0][0]
    connection.execute("commit")
    return rows


def _views(connection: duckdb.DuckDBPyConnection, mart: str) -> list[str]:
    return [name for (name,) in connection.sql(f"{_VIEWS.format(mart=mart)} order by 1").fetchall()]
