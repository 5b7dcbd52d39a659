"""The schema `mart` of a night's file: what business intelligence sees of it and earlier nights."""

from pathlib import Path

import duckdb

from jobs.casts import named, quoted
from jobs.config_sections import MartConfig
from jobs.demand import write_demand
from jobs.dictionary import tables, write_dictionary

# What is carried on of earlier nights, and which of their rows. What tells of models and their
# test window is the same on every night that uses them, so it stays with the newest of those.
_OF_NIGHT = "run_id in (select run_id from kept)"
_OF_MODEL = "run_id in (select run_id from kept where other_model)"
HISTORY = {
    "runs": _OF_NIGHT,
    "predictions": _OF_NIGHT + " and position <= {positions}",
    "user_propensity": _OF_NIGHT,
    "item_demand": _OF_NIGHT,
    "metrics": _OF_MODEL,
    "calibration": _OF_MODEL,
    "candidate_misses": _OF_MODEL,
    "quarantine": _OF_NIGHT,
    "campaign_waterfall": _OF_NIGHT,
}
_KEPT = """
create temp table kept as
select e.run_id, e.model_version <> r.model_version as other_model
from ({earlier}) e, runs r where e.as_of < r.as_of order by e.as_of desc limit {nights}
"""
_SHARED = """
select column_name
from duckdb_columns() old join duckdb_columns() new using (table_name, column_name, data_type)
where old.database_name = 'last' and old.schema_name = $schema and table_name = $table
      and new.database_name = current_database() and new.schema_name = 'main'
order by new.column_index
"""


def write(connection: duckdb.DuckDBPyConnection, *, last: Path, options: MartConfig) -> None:
    """Add `item_demand`, the schemas `history` and `mart`, and comments on all there is.

    Args:
        connection: at a night's file that has all its other tables.
        last: the file of the last good night, whose history is carried on; may be missing.
        options: how much of it.
    """
    write_demand(connection)
    connection.execute("create schema history")
    for table in HISTORY:
        connection.execute(f"create table history.{table} as from {table} limit 0")
    if last.exists():
        connection.execute(f"attach {quoted(str(last.resolve()))} as last (read_only)")
        _carry_on(connection, options)
        connection.execute("detach last")
    connection.execute("create schema mart")
    views = Path(__file__).with_name("mart.sql").read_text("utf-8")
    connection.execute(views.format(stale_after_hours=options.stale_after_hours))
    write_dictionary(connection)


def _carry_on(connection: duckdb.DuckDBPyConnection, options: MartConfig) -> None:
    """Fill `history` from tables and history of the file `last`, newest nights first."""
    schemas = [schema for schema in ("main", "history") if _shared(connection, schema, "runs")]
    earlier = " union all ".join(
        f"select run_id, as_of, model_version from last.{schema}.runs" for schema in schemas
    )
    connection.execute(_KEPT.format(earlier=earlier, nights=options.nights - 1))
    for table, rows in HISTORY.items():
        wanted = rows.format(positions=options.positions)
        for schema in schemas:
            if columns := _shared(connection, schema, table):
                connection.execute(
                    f"insert into history.{table} ({columns}) "
                    f"select {columns} from last.{schema}.{table} where {wanted}"
                )
    connection.execute("drop table kept")


def _shared(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> str:
    """The columns of tonight's table that the last file has with the same type.

    None, if a column of the key is not among them: the history of the table then begins anew.
    """
    found = connection.execute(_SHARED, {"schema": schema, "table": table}).fetchall()
    names = [name for (name,) in found]
    keys = {"run_id", *tables()[f"main.{table}"].keys}
    return ", ".join(map(named, names)) if keys <= set(names) else ""
