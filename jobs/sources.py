"""Reads one source through DuckDB: Parquet, CSV and NDJSON files, or SQL.

Every file of a pattern is read by itself, so that each row keeps its file and row number, and
files whose columns differ in order or type still fit together. CSV and NDJSON cells are read
as text: what a cell means never depends on the other rows of its file.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from jobs.casts import VALUE_CHARACTERS, cast_sql, check_columns, named, quoted, said_of
from jobs.config_inputs import source_format
from jobs.connections import connect
from jobs.contracts import Row, cells
from jobs.errors import ConfigError, InputMissing, ResourceError
from jobs.textfiles import (
    BROKEN,
    breaks_in_cells,
    check_all_read,
    csv_rows,
    ndjson_rows,
    reason,
    rejected_lines,
    scan,
)


@dataclass(frozen=True)
class SourceRows:
    """What a source holds.

    Attributes:
        rows: Every row that could be read, in the source's order: the contract's columns, and
            file (null for SQL), row and raw as in `jobs.contracts.Row`. Rows of SQL and
            Parquet are numbered from 1; those of CSV and NDJSON by line, the header being
            line 1, a row over several lines being one, and blank lines of CSV not counting.
        broken: Lines of CSV or NDJSON that are no row: file, row and value (the line).
        ignored: Columns that are not part of the contract.
        erased: How many rows were left out, as their users were erased.
    """

    rows: pl.DataFrame
    broken: pl.DataFrame
    ignored: list[str]
    erased: int = 0


def read_source(
    text: str, *, source: str, contract: type[Row], root: Path, attach: dict[str, str]
) -> SourceRows:
    """Read a source and cast its columns to the contract's types.

    Args:
        text: A path or glob, relative to `root`, or SQL.
        source: The source's name in messages, such as 'items'.
        contract: Says which columns to read, and how.
        root: Folder that relative paths, also those in SQL, start from.
        attach: DuckDB ATTACH targets by name, opened read-only.

    Raises:
        InputMissing: A pattern matches no file, or a file or database cannot be read.
        ConfigError: DuckDB rejects the SQL.
        DataRefused: A required column is missing, a column is of a type that cannot be cast, or
            a text file has no readable header, loses lines or is a decompression bomb.
        ResourceError: The source does not fit into memory.
    """
    root = root.resolve()
    where = f"sources.{source}"
    with _connection(root, attach) as con:
        if source_format(text) == "sql":
            parts = [_read_sql(con, text, contract, where)]
        else:
            files = _files(con, text, root, where)
            parts = [_read_file(con, file, contract, root, where) for file in files]
    frames = [part.rows for part in parts]
    for cell in cells(contract):
        if cell.kind in ("id", "attribute"):
            frames = same_type(frames, cell.name)
    ignored = sorted({name for part in parts for name in part.ignored})
    return SourceRows(pl.concat(frames), pl.concat([part.broken for part in parts]), ignored)


def same_type(frames: Sequence[pl.DataFrame], column: str) -> list[pl.DataFrame]:
    """The frames with `column` of one type: text, unless it has one type everywhere.

    Frames without the column stay as they are; frames without rows have no say.
    """
    found = {frame[column].dtype for frame in frames if column in frame.columns and frame.height}
    cast = pl.col(column).cast(found.pop() if len(found) == 1 else pl.String())
    return [frame.with_columns(cast) if column in frame.columns else frame for frame in frames]


@contextmanager
def _connection(root: Path, attach: dict[str, str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database that reads paths from `root` and keeps times in UTC."""
    con = connect()
    try:
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"set file_search_path = {quoted(str(root))}")
        for name, target in attach.items():
            _attach(con, name, target, root)
        yield con
    finally:
        con.close()


def _attach(con: duckdb.DuckDBPyConnection, name: str, target: str, root: Path) -> None:
    is_file = not re.match(r"[A-Za-z0-9_]{2,}:", target)
    place = str(root / target) if is_file else target
    if is_file and not Path(place).is_file():
        raise InputMissing(f"sources.attach.{name}: there is no database file {place}")
    try:
        con.execute(f"attach {quoted(place)} as {named(name)} (read_only)")
    except duckdb.Error as error:
        message = re.sub(r"(?i)(password\s*=\s*)\S+", r"\1***", str(error))
        raise InputMissing(f"sources.attach.{name}: cannot be opened: {message}") from None


def _files(con: duckdb.DuckDBPyConnection, pattern: str, root: Path, where: str) -> list[str]:
    """The absolute paths (or URLs) that a pattern matches, sorted."""
    is_absolute = "://" in pattern or pattern.startswith("/")
    place = pattern if is_absolute else f"{glob.escape(str(root))}/{pattern}"
    shown = pattern if is_absolute else f"{root}/{pattern}"
    try:
        found = con.execute("select file from glob(?) order by file", [place]).fetchall()
    except duckdb.Error as error:
        raise InputMissing(f"{where}: {shown} cannot be listed: {error}") from None
    if not found:
        raise InputMissing(f"{where}: no file matches {shown}")
    return [file for (file,) in found]


def _read_sql(
    con: duckdb.DuckDBPyConnection, text: str, contract: type[Row], where: str
) -> SourceRows:
    try:
        statements = con.extract_statements(text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise ConfigError(f"{where}: the SQL must be a single select statement")
        relation = con.sql(_without_end(text))
        read, ignored = _cast(relation, contract, where)
        rows = read.pl()
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        raise InputMissing(f"{where}: the SQL cannot read its input: {said_of(error)}") from None
    except duckdb.OutOfMemoryException as error:
        raise ResourceError(f"{where}: does not fit into memory: {error}") from None
    except duckdb.Error as error:
        raise ConfigError(f"{where}: DuckDB rejects the SQL: {said_of(error)}") from None
    return _placed(rows, contract, ignored)


def _without_end(text: str) -> str:
    """SQL without closing semicolons and comments, which could not stand in a larger query."""
    code = text.encode()
    for start, kind in reversed(duckdb.tokenize(text)):
        if kind != duckdb.token_type.comment and code[start : start + 1] != b";":
            break
        code = code[:start]
    return code.decode()


def _read_file(
    con: duckdb.DuckDBPyConnection, file: str, contract: type[Row], root: Path, where: str
) -> SourceRows:
    place = file.removeprefix(f"{root}/")
    where = f"{where} ({place})"
    path = quoted(file if "://" in file else glob.escape(file))
    try:
        if source_format(file) == "parquet":
            read, ignored = _cast(con.sql(f"from read_parquet({path})"), contract, where)
            return _placed(read.pl(), contract, ignored, place=place)
        return _read_text(con, file, path, contract, place=place, where=where)
    except duckdb.OutOfMemoryException as error:
        raise ResourceError(f"{where}: does not fit into memory: {reason(error)}") from None
    except duckdb.Error as error:
        raise InputMissing(f"{where}: {file} cannot be read: {reason(error)}") from None


def _read_text(
    con: duckdb.DuckDBPyConnection,
    file: str,
    path: str,
    contract: type[Row],
    *,
    place: str,
    where: str,
) -> SourceRows:
    """The rows of a CSV or NDJSON file."""
    is_csv = source_format(file) == "csv"
    lines, header = (0, None) if "://" in file else scan(Path(file), where=where)
    others: list[str] = []
    if is_csv:
        delimiter = "\t" if ".tsv" in file.lower() else ","
        relation = csv_rows(con, path, header=header, delimiter=delimiter, where=where)
    else:
        relation, others = ndjson_rows(con, path, contract)
    read, ignored = _cast(relation, contract, where)
    rows = read.pl()
    rejected = rejected_lines(con)
    found = rows.filter(pl.col(BROKEN).ne_missing("")).height + is_csv
    if is_csv and found + len(rejected) < lines:
        found += breaks_in_cells(relation)
        rejected_lines(con)  # which this has rejected again
    check_all_read(lines=lines, read=found, rejected=rejected, where=where)
    first = 2 if is_csv else 1
    return _placed(rows, contract, ignored + others, place=place, rejected=rejected, first=first)


def _cast(
    relation: duckdb.DuckDBPyRelation, contract: type[Row], where: str
) -> tuple[duckdb.DuckDBPyRelation, list[str]]:
    """The relation with the contract's columns, raw and broken line; and its other columns."""
    wanted = cells(contract)
    columns = [name for name in relation.columns if name != BROKEN]
    types = dict(zip(columns, relation.types, strict=False))  # the broken line comes last
    by_name = {name.lower(): name for name in columns}
    found = {key: (types[name].id, str(types[name])) for key, name in by_name.items()}
    check_columns(wanted, found, where=where)
    values, raws = [], []
    for cell in wanted:
        type_id = found[cell.name][0] if cell.name in found else None
        value, raw = cast_sql(cell, type_id, named(by_name.get(cell.name, "")))
        values.append(f"{value} as {named(cell.name)}")
        if cell.kind != "text":  # which is always understood
            raws.append(f"{named(cell.name)} := {raw}")
    broken = named(BROKEN) if BROKEN in relation.columns else "cast(null as varchar)"
    read = relation.query(
        "source",
        f"select {', '.join(values)}, struct_pack({', '.join(raws)}) as raw, "
        f"{broken} as {named(BROKEN)} from source",
    )
    assert read is not None  # a select always gives a relation
    ignored = [name for key, name in by_name.items() if key not in {cell.name for cell in wanted}]
    return read, ignored


def _placed(
    rows: pl.DataFrame,
    contract: type[Row],
    ignored: list[str],
    *,
    place: str | None = None,
    rejected: pl.DataFrame | None = None,
    first: int = 1,
) -> SourceRows:
    """Number the rows from `first`, past the rejected lines, and set broken lines apart."""
    if rejected is None:
        rejected = pl.DataFrame(schema={"row": pl.Int64, "value": pl.String})
    lines = np.arange(first, first + rows.height + rejected.height)
    numbers = np.setdiff1d(lines, rejected["row"].to_numpy())[: rows.height]
    types = contract.columns()
    rows = rows.with_columns(
        pl.lit(place, pl.String).alias("file"),
        pl.Series("row", numbers, pl.Int64),
        *(pl.col(c.name).cast(types[c.name].dtype) for c in cells(contract) if c.choices),
    )
    value = pl.col("value").str.strip_chars().str.head(VALUE_CHARACTERS)
    unread = rows.select("row", value=BROKEN).filter(pl.col("value") != "")
    broken = pl.concat([rejected, unread]).select(
        pl.lit(place, pl.String).alias("file"), "row", value
    )
    good = rows.filter(pl.col(BROKEN).is_null()).drop(BROKEN)
    return SourceRows(good, broken.sort("row"), ignored)
