"""CSV and NDJSON as DuckDB relations of text, with every line accounted for."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from jobs.casts import named, quoted
from jobs.contracts import Row, cells
from jobs.errors import DataRefused, InputMissing

BROKEN = "broken line"  # the column of NDJSON lines that are no object

MAX_EXPANSION = 100  # so many times its size may a compressed file unpack to,
ALWAYS_ALLOWED = 256 << 20  # but always to so many bytes
_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
_CHUNK = 4 << 20


def csv_rows(
    con: duckdb.DuckDBPyConnection, path: str, *, header: bytes | None, delimiter: str, where: str
) -> duckdb.DuckDBPyRelation:
    """The rows of a CSV file as text; lines that are none go to reject_errors.

    The dialect is fixed (double quotes, and a comma or, for .tsv, a tab): DuckDB's detection
    fails on a file with broken lines, or settles for a dialect that fits them.

    Args:
        con: A connection.
        path: The file as a SQL literal.
        header: Its first line; None to ask DuckDB, which passes over one that is not UTF-8.
        delimiter: What parts cells.
        where: Names source and file in messages.

    Raises:
        DataRefused: The header cannot be read, or names a column twice.
    """
    if header is None:
        found = con.sql(f"select line from {_lines(path)} limit 1").fetchall()
        rejected_lines(con)
        header = (found[0][0] or "").encode() if found else b""
    names = _names(header, delimiter, where)
    if not names:
        return con.sql('select null as "(no header)" limit 0')
    columns = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names)
    return con.sql(
        f"from read_csv({path}, columns = {{{columns}}}, auto_detect = false, header = true, "
        f"delim = {quoted(delimiter)}, quote = '\"', escape = '\"', store_rejects = true)"
    )


def _names(header: bytes, delimiter: str, where: str) -> list[str]:
    """The names of a CSV file's columns; those without a name are numbered."""
    try:
        line = header.decode("utf-8-sig")
        if "\0" in line:
            raise ValueError("it holds NUL bytes")
        names = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except (ValueError, csv.Error) as error:  # among them what is not UTF-8
        raise DataRefused(
            f"{where}: line 1, the header, is no CSV in UTF-8 ({error}): {header[:80]!r}; "
            "convert the file, or read it with SQL"
        ) from None
    names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    counts = Counter(name.lower() for name in names)
    twice = [name for name in names if counts[name.lower()] > 1]
    if twice:
        raise DataRefused(f"{where}: line 1 names a column twice (case is all one): {twice}")
    return names


def ndjson_rows(
    con: duckdb.DuckDBPyConnection, path: str, contract: type[Row]
) -> tuple[duckdb.DuckDBPyRelation, list[str]]:
    """The objects of an NDJSON file, the contract's values as text; and the other keys.

    Other lines are in a column of their own. The first 10,000 lines tell which keys there are; if
    they hold none, the contract does.
    """
    keys = con.sql(
        "select distinct unnest(json_keys(object)) from (select try_cast(line as json) as object "
        f"from {_lines(path)} limit 10000) where json_type(object) = 'OBJECT'"
    ).fetchall()
    rejected_lines(con)
    wanted = {cell.name: bool(keys) and cell.required for cell in cells(contract)}
    found = {key for (key,) in keys if key.lower() in wanted}
    names = sorted(found | {name for name, required in wanted.items() if not required})
    paths = ", ".join(quoted(f'$."{name}"') for name in names)
    values = "".join(f"v[{n}] as {named(name)}, " for n, name in enumerate(names, start=1))
    relation = con.sql(
        f"select {values}case when v is null then coalesce(line, '') end as {named(BROKEN)} "
        "from (select line, case when json_type(try_cast(line as json)) = 'OBJECT' "
        f"then json_extract_string(line, [{paths}]) end as v from {_lines(path)})"
    )
    return relation, sorted({key for (key,) in keys} - found)


def _lines(path: str) -> str:
    """SQL: the lines of a text file, each a row of the one column `line`; null where blank."""
    return (
        f"read_csv({path}, columns = {{'line': 'VARCHAR'}}, auto_detect = false, header = false, "
        "delim = '\x1f', quote = '', escape = '', strict_mode = false, store_rejects = true)"
    )


def rejected_lines(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """The lines that DuckDB has just rejected: row and value; forgets them.

    An open quote swallows what follows it: such a row has a line here for each of its lines.
    """
    if not con.sql("from duckdb_tables() where table_name = 'reject_errors'").fetchall():
        return pl.DataFrame(schema={"row": pl.Int64, "value": pl.String})
    rejected: pl.DataFrame = con.sql(
        "select cast(line as bigint) as row, first(csv_line) as value "
        "from reject_errors group by line order by line"
    ).pl()
    con.execute("delete from reject_errors")
    return rejected.with_columns(pl.col("value").str.extract_all(r"[^\r\n]+")).explode("value")


def check_all_read(*, lines: int, read: int, rejected: pl.DataFrame, where: str) -> None:
    """Refuse a file of which DuckDB has neither read nor rejected some lines.

    It drops a line longer than its buffer of 32 MB without a word, and so it does what an open
    quote swallows beyond the 10,000 characters that it keeps of a rejected row.

    Args:
        lines: What `scan` says of the file.
        read: Lines of the rows that were read, and of the header if there is one.
        rejected: See `rejected_lines`.
        where: Names source and file.
    """
    missing = lines - read - len(rejected)
    if missing > 0:
        near = f" near line {rejected['row'][0]}" if len(rejected) else ""
        raise DataRefused(
            f"{where}: {missing} of its {lines} lines are lost: look for a quote that is opened "
            f"and never closed{near}, or for a line of more than 32 MB"
        )


def breaks_in_cells(relation: duckdb.DuckDBPyRelation) -> int:
    """How many more lines than rows a CSV file has, its cells holding line breaks."""
    row = ", ".join(named(name) for name in relation.columns)
    ends = f"regexp_extract_all('\"' || concat_ws('\"', {row}) || '\"', '[^\\r\\n][\\r\\n]')"
    found = relation.aggregate(f"cast(coalesce(sum(len({ends})), 0) as bigint)").fetchall()
    return int(found[0][0])


def scan(file: Path, *, where: str) -> tuple[int, bytes]:
    """Count the lines of a text file that are not blank, unpacking it in chunks.

    Returns:
        Their number, and the first line of the file, cut to 4 MB.

    Raises:
        InputMissing: The file cannot be read, or its end is missing.
        DataRefused: A compressed file unpacks to more than it should.
    """
    size, read, lines, after_break, first = file.stat().st_size, 0, 0, True, b""
    compression = _COMPRESSION.get(file.suffix.lower())
    try:
        with pa.input_stream(str(file), compression=compression) as stream:
            while chunk := stream.read(_CHUNK):
                if read == 0:
                    first = re.split(rb"[\r\n]", chunk, maxsplit=1)[0]
                read += len(chunk)
                if compression and read > max(MAX_EXPANSION * size, ALWAYS_ALLOWED):
                    raise DataRefused(
                        f"{where}: unpacks to more than {MAX_EXPANSION} times its {size} bytes: "
                        "if it is no decompression bomb, unpack it yourself"
                    )
                codes = np.frombuffer(chunk, np.uint8)
                breaks = np.concatenate([[after_break], (codes == 10) | (codes == 13)])
                lines += int(np.count_nonzero(breaks[1:] & ~breaks[:-1]))
                after_break = bool(breaks[-1])
    except OSError as error:
        raise InputMissing(f"{where}: {file} cannot be read: {error}") from None
    return lines + (not after_break), first


def reason(error: duckdb.Error) -> str:
    """Why DuckDB cannot read a text file, in a line."""
    if re.search("invalid state", str(error)):
        return r"its lines end in different ways (\n, \r\n or \r): write them all with one"
    return str(error).split("\n", 1)[0]
