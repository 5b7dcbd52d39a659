"""What tables and columns mean: from tables.toml into comments and `mart.data_dictionary`."""

import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import duckdb
import polars as pl

from jobs.casts import named, quoted

_FOUND = """
select schema_name, table_name, column_index, column_name, data_type,
       exists (from duckdb_views() v where v.database_oid = c.database_oid
               and v.schema_name = c.schema_name and v.view_name = c.table_name)
from duckdb_columns() c
where database_name = current_database() and not internal
order by schema_name, table_name, column_index
"""
_TABLE = """
create table mart.data_dictionary (
    table_schema varchar, table_name varchar, column_position integer, column_name varchar,
    data_type varchar, comment varchar, table_comment varchar, grain varchar, keys varchar
)
"""


class Table(NamedTuple):
    """What a table or view is.

    Attributes:
        comment: one sentence.
        grain: what a row stands for.
        keys: columns that no two rows have the same values in; nulls are values here.
        columns: what each column means.
    """

    comment: str
    grain: str
    keys: list[str]
    columns: dict[str, str]


@cache
def tables() -> dict[str, Table]:
    """Every table and view by `schema.name`.

    A column means what its table says, else what the table says that its view is of, else what
    it means everywhere.
    """
    words = tomllib.loads(Path(__file__).with_name("tables.toml").read_text("utf-8"))
    shared = words.pop("columns")
    found = {}
    for schema in ("main", "mart"):
        for name, told in words[schema].items():
            of = words["main"].get(name.removesuffix("_v1"), {}).get("columns", {})
            columns = {**shared, **of, **told.get("columns", {})}
            found[f"{schema}.{name}"] = Table(told["comment"], told["grain"], told["keys"], columns)
    for name in words["main"]:
        comment, grain, keys, columns = found[f"main.{name}"]
        found[f"history.{name}"] = Table(
            f"Of earlier nights; read it through `mart`. {comment}",
            f"night, {grain}",
            ["run_id", *keys],
            columns,
        )
    return found


def write_dictionary(connection: duckdb.DuckDBPyConnection) -> None:
    """Comment on every table, view and column, and list them in `mart.data_dictionary`."""
    connection.begin()  # one write to disk for all of them
    connection.execute(_TABLE)
    lines, comments = [], []
    for schema, name, position, column, kind, is_view in connection.execute(_FOUND).fetchall():
        table = tables().get(f"{schema}.{name}")
        if table is None:  # a table without words is no reason to stop a night
            continue
        other = table.columns["attribute"] if name in ("items", "users") else None
        what = table.columns.get(column, other) or ""
        place = f"{schema}.{named(name)}"
        comments.append(f"comment on column {place}.{named(column)} is {quoted(what)}")
        if position == 1:
            object_type = "view" if is_view else "table"
            comments.append(f"comment on {object_type} {place} is {quoted(table.comment)}")
        keys = ", ".join(table.keys)
        lines.append((schema, name, position, column, kind, what, table.comment, table.grain, keys))
    connection.execute(";".join(comments))
    connection.register("lines", pl.DataFrame(lines, orient="row").to_arrow())
    connection.execute("insert into mart.data_dictionary from lines")
    connection.unregister("lines")
    connection.commit()
