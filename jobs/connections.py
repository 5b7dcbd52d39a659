"""Connections to DuckDB that say nothing."""

from pathlib import Path

import duckdb


def connect(
    path: Path | None = None, *, read_only: bool = False, **config: str
) -> duckdb.DuckDBPyConnection:
    """A connection to a file, or to nothing but memory.

    Where a statement takes two seconds DuckDB draws a bar on standard output, which is for the
    one line that a run ends with.
    """
    connection = duckdb.connect(str(path or ":memory:"), read_only=read_only, config=dict(config))
    connection.execute("set enable_progress_bar_print = false")
    return connection
