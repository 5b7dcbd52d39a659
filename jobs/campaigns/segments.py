"""The segment of a campaign: SQL that is true or false of a user, and can do nothing else."""

import difflib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import duckdb
import polars as pl

from jobs.casts import said_of
from jobs.config import Config
from jobs.config_inputs import USER_COLUMNS
from jobs.connections import connect
from jobs.errors import ConfigError

# What gives another answer when asked again; `as_of` is the only clock.
_UNSTEADY = "select distinct function_name from duckdb_functions() where stability <> 'CONSISTENT'"


def check_segments(config: Config) -> None:
    """Refuse a segment that is no expression over columns of users, before anything is read.

    Raises:
        ConfigError: names the campaign, the segment and what is wrong.
    """
    known = ["as_of", *USER_COLUMNS, *config.users.attributes, *config.users.columns]
    for campaign in config.campaign:
        if campaign.segment is not None:
            _check(campaign.segment, known, campaign.name)


def members(users: pl.DataFrame, segment: str | None, *, as_of: datetime, name: str) -> pl.Series:
    """The user_id of the users for whom a segment is true; of all, if it is None.

    It is evaluated in a database that holds nothing else and cannot reach anything else.

    Args:
        users: as in a night's file.
        segment: SQL over the columns of users, and `as_of`.
        as_of: the night's.
        name: of the campaign, for messages.

    Raises:
        ConfigError: the columns are not of the types that it takes them for.
    """
    if segment is None:
        return users.get_column("user_id")
    with connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("rows", users.with_columns(as_of=pl.lit(as_of)).to_arrow())
        connection.execute("create table users as from rows")
        connection.unregister("rows")
        connection.execute("set enable_external_access = false; set lock_configuration = true")
        try:
            found = connection.table("users").filter(duckdb.SQLExpression(segment))
            users = found.select("user_id").pl()
        except duckdb.Error as error:
            raise _refused(name, segment, f"DuckDB rejects it: {said_of(error)}") from None
    return users.get_column("user_id")


def _check(segment: str, known: list[str], name: str) -> None:
    with connect() as connection:
        unsteady = {function for (function,) in connection.sql(_UNSTEADY).fetchall()}
        try:
            duckdb.SQLExpression(segment)
            (tree,) = connection.execute(
                "select json_serialize_sql(?)", [f"select ({segment}\n)"]
            ).fetchall()[0]
        except duckdb.Error as error:
            raise _refused(name, segment, f"it must be one condition: {error}") from None
    for node in _nodes(json.loads(tree)["statements"][0]["node"]["select_list"]):
        column = node["column_names"][-1] if node["class"] == "COLUMN_REF" else ""
        if node["class"] in ("SUBQUERY", "STAR", "PARAMETER"):
            raise _refused(name, segment, "it may only use columns of the user")
        if node["class"] == "FUNCTION" and node["function_name"] in unsteady:
            raise _refused(
                name,
                segment,
                f"{node['function_name']}() answers differently each time; `as_of` is the night's "
                "time, as in created_at > as_of - interval 30 days",
            )
        if column and column.lower() not in [name.lower() for name in known]:
            near = difflib.get_close_matches(column, known, n=1, cutoff=0)
            raise _refused(
                name,
                segment,
                f"{column!r} is no column of users; the nearest is {near[0]} "
                "(further columns: users.columns)",
            )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression of DuckDB's syntax tree."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part)


def _refused(name: str, segment: str, problem: str) -> ConfigError:
    return ConfigError(f"campaign {name!r}: segment = {segment!r}: {problem}")
