"""Takes a person out of the nights that are kept: each file is written anew and renamed over.

Rows that are deleted in place stay in the free blocks of a DuckDB file. Readers that have the old
file open keep it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from jobs import manifest, nights, publish
from jobs.casts import named, quoted
from jobs.connections import connect
from jobs.erasing.person import Person, Removed

_TABLES = """
select schema_name, table_name, list(column_name order by column_index)
from duckdb_columns() semi join duckdb_tables() using (database_oid, schema_oid, table_name)
where database_name = 'night' group by all order by all
"""


def erase_from_nights(home: Path, person: Person, *, note: dict[str, str]) -> list[Removed]:
    """Take a person out of every night; `note` is added to the manifest as `erased`.

    Raises:
        Damaged: a night is not the one that was written.
    """
    counts = {scores: _erase(scores, person, note) for scores in nights.kept(home)}
    return [Removed("nights", path.name, rows) for path, rows in counts.items() if rows]


def _erase(scores: Path, person: Person, note: dict[str, str]) -> int:
    """How many rows it concerned, those of earlier nights in the file included."""
    path = publish.manifest_of(scores)
    about = manifest.whole(path)
    building = scores.with_name(f".build-{nights.run_of(scores)}.duckdb")
    publish.discard(building)
    try:
        with connect(temp_directory=f"{building}.tmp") as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"attach {quoted(str(scores))} as night (read_only)")
            tables = _tables(connection)
            touched = sum(
                _count(connection, f"night.{table}", person.sql(columns)[2])
                for table, columns in tables.items()
            )
            if not touched:
                return 0
            rows = _copy(connection, building, tables, person)
        publish.settle(building)
        told = [*about.get("erased", []), note]
        manifest.exchange(path, building, scores, rows=rows, erased=told)
    finally:
        publish.discard(building)
    return touched


def _copy(
    connection: duckdb.DuckDBPyConnection,
    building: Path,
    tables: Mapping[str, Sequence[str]],
    person: Person,
) -> dict[str, int]:
    """Write all but the person, with views and comments, into a new file; rows by table.

    Raises:
        OSError: a table has not the rows that it should have.
    """
    connection.execute(
        f"attach {quoted(str(building))} as scores (storage_version '{publish.STORAGE_VERSION}')"
    )
    connection.execute("copy from database night to scores (schema)")
    for table, columns in tables.items():
        selected, stays, _ = person.sql(columns)
        connection.execute(
            f"insert into scores.{table} select {selected} from night.{table} where {stays}"
        )
        wanted, there = (
            _count(connection, f"night.{table}", stays),
            _count(connection, f"scores.{table}"),
        )
        if wanted != there:
            raise OSError(f"{building}: {table} has {there} rows instead of {wanted}")
    connection.execute("detach night")
    connection.execute("use scores")
    rows = publish.rows_of(connection)
    connection.execute("use memory")
    connection.execute("checkpoint scores")
    connection.execute("detach scores")
    return rows


def _tables(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """The columns of every table of the night, by the table's quoted name."""
    found = connection.sql(_TABLES).fetchall()
    return {f"{named(schema)}.{named(table)}": columns for schema, table, columns in found}


def _count(connection: duckdb.DuckDBPyConnection, table: str, where: str = "true") -> int:
    found = connection.sql(f"select count(*) from {table} where {where}").fetchall()
    return int(found[0][0])
