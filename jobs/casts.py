"""How a column of a source is checked and cast: DuckDB types against the contract's kinds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

import duckdb

from jobs.contracts import Cell, Kind
from jobs.errors import DataRefused, table

VALUE_CHARACTERS = 200

_TEXT = {"varchar", "enum", "uuid", "null"}
_SIGNED = {"tinyint", "smallint", "integer", "bigint", "hugeint"}
_INTEGER = _SIGNED | {f"u{name}" for name in _SIGNED}
_NUMBER = _INTEGER | {"float", "double", "decimal"}
_ZONED = "timestamp with time zone"
_TIME = {"date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", _ZONED}
_ACCEPTED: dict[Kind, tuple[str, set[str]]] = {
    "id": ("integer or text", _INTEGER | _TEXT),
    "text": ("text", _INTEGER | _TEXT),
    "behaviour": ("text", _TEXT),
    "time": ("date, timestamp or text", _TIME | _TEXT),
    "number": ("number, or text that holds one", _NUMBER | _TEXT),
    "flag": ("boolean, or 0 and 1", {"boolean"} | _INTEGER | _TEXT),
    "attribute": ("number, boolean or text", {"boolean"} | _NUMBER | _TEXT),
}


def said_of(error: duckdb.Error) -> str:
    """What DuckDB said, without the cell that it could not convert, which may tell of a person."""
    of_a_cell = (
        duckdb.ConversionException,
        duckdb.InvalidInputException,
        duckdb.OutOfRangeException,
    )
    text = str(error)
    if not isinstance(error, of_a_cell):
        return text
    first = text.split("\n", 1)[0]  # the next ones may quote the line, or the SQL
    return re.sub(r"(with value) \S+", r"\1 ...", re.sub(r"(['\"]).*\1", "'...'", first))


def check_columns(
    wanted: Sequence[Cell], found: Mapping[str, tuple[str, str]], *, where: str
) -> None:
    """Refuse a source that lacks a required column or has one of a type that cannot be cast.

    Args:
        wanted: The contract's columns.
        found: Type id (such as 'bigint') and full type of every column, by name in lower case.
        where: Names the source, and the file if it has one.

    Raises:
        DataRefused: With a line for every such column.
    """
    unused = [name for name in found if name not in {cell.name for cell in wanted}]
    lines = []
    for name, kind, required, _ in wanted:
        expected, accepted = _ACCEPTED[kind]
        if name not in found:
            if required:
                near = difflib.get_close_matches(name, unused, n=1, cutoff=0.4)
                hint = f"in SQL: {near[0]} as {name}" if near else ""
                lines.append([name, expected, "no such column", hint])
        elif found[name][0] not in accepted:
            lines.append([name, expected, found[name][1], _hint(name, kind, found[name][0])])
    if lines:
        header = ["column", "expected", "found", "hint"]
        names = ", ".join(found) or "none"
        raise DataRefused(
            f"{where} does not fit its contract:\n{table(header, lines)}\n"
            f"  columns found: {names}; docs/data.md tells how to map them with SQL"
        )


def cast_sql(cell: Cell, found: str | None, column: str) -> tuple[str, str]:
    """SQL for the value of a cell, null unless understood, and for the raw text if it was not.

    Args:
        cell: The contract's column.
        found: The type id of the source's column; None if the source has no such column.
        column: The quoted name of that column.
    """
    if found is None:
        return f"cast(null as {_target(cell)})", "cast(null as varchar)"
    plain = f"cast({column} as varchar)"
    given = f"nullif(trim({plain}), '')" if found in _TEXT else column
    value = _value(cell, found, given, plain)
    raw = f"case when {given} is not null and {value} is null then {plain}[:{VALUE_CHARACTERS}] end"
    return value, raw


def _value(cell: Cell, found: str, given: str, plain: str) -> str:
    """SQL for the value of a column that exists."""
    match cell.kind:
        case "time" if found in _TEXT:
            return _dated(f"(try_cast({given} as timestamptz) at time zone 'UTC')")
        case "time" if found == _ZONED:
            return _dated(f"({given} at time zone 'UTC')")
        case "time":
            return _dated(f"try_cast({given} as timestamp)")
        case "number":
            return _finite(f"try_cast({given} as double)")
        case "attribute" if found not in _TEXT:
            return _finite(f"try_cast({given} as double)")
        case "flag":
            return f"try_cast(trim({plain}) as boolean)"
        case "behaviour":
            return f"try_cast({plain} as {_target(cell)})"
        case "id" if found in _INTEGER:
            return f"try_cast({given} as bigint)"
        case "id":
            return f"case when {given} is not null then {plain} end"
        case _:
            return plain


def _dated(time: str) -> str:
    # Infinity, and years that no calendar of Python or Polars holds, are no times.
    bounds = "timestamp '0001-01-01' and timestamp '9999-12-31 23:59:59.999999'"
    return f"case when {time} between {bounds} then {time} end"


def _finite(value: str) -> str:
    return f"case when isfinite({value}) then {value} end"


def _target(cell: Cell) -> str:
    """The DuckDB type of a column that the source lacks."""
    if cell.choices:
        return "enum(" + ", ".join(quoted(choice) for choice in cell.choices) + ")"
    return {"time": "timestamp", "number": "double", "flag": "boolean"}.get(cell.kind, "varchar")


def _hint(name: str, kind: Kind, found: str) -> str:
    """What to write in SQL instead."""
    if kind == "time" and found in _NUMBER:
        return (
            f"to_timestamp({name}) for seconds, make_timestamp({name}) for microseconds "
            f"since 1970, as {name}"
        )
    if kind == "id" and found in _NUMBER:
        return f"cast({name} as bigint) as {name}"
    if kind in ("text", "attribute") and found in ("list", "array"):
        return f"array_to_string({name}, ' ') as {name}"
    if kind == "number" and found == "boolean":
        return f"cast({name} as integer) as {name}"
    return f"cast({name} as ...) as {name}"


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def named(column: str) -> str:
    """A quoted SQL identifier."""
    return '"' + column.replace('"', '""') + '"'
