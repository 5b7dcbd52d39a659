"""The person to be erased, and what of a table is theirs."""

import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from jobs.casts import quoted
from jobs.ledger import write_parquet
from jobs.manifest import Damaged

# A row with the person in one of these columns goes.
THEIRS = ("user_id", "exported_as")
# Where the person is what another's reason rests on, that row stays without these.
AUTHOR = "evidence_user_id"
EVIDENCE = (AUTHOR, "evidence_at")
# What stood in a cell or line that broke its contract cannot be told apart by persons, so that
# of all sources of people goes; where and why it was wrong stays.
_BAD = {"rule", "value", "row"}


class Removed(NamedTuple):
    """What was taken away where: rows (vectors, lines) of one file, or files that went whole."""

    kind: str
    path: str
    rows: int


@dataclass(frozen=True)
class Person:
    """Somebody as they may be called: by the id of the sources, as text, and as lists call them.

    Attributes:
        names: the id, and each HMAC of it that a list has.
    """

    names: frozenset[str]

    def without(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """The rows without the person; how many are gone or changed."""
        theirs = self._any_of(rows, THEIRS)
        quotes = self._any_of(rows, [AUTHOR])
        bad = _is_quoted(rows.columns)
        unclear = pl.lit(False) if bad is None else pl.sql_expr(bad)
        touched = rows.select((theirs | quotes | unclear).sum()).item() if len(rows) else 0
        blank = {name: quotes for name in EVIDENCE if name in rows.columns}
        blank |= {"value": unclear} if bad else {}
        cleared = rows.with_columns(
            pl.when(~where).then(pl.col(name)).alias(name) for name, where in blank.items()
        )
        return cleared.filter(~theirs), int(touched)

    def _any_of(self, rows: pl.DataFrame, columns: Iterable[str]) -> pl.Expr:
        names = pl.Series(sorted(self.names), dtype=pl.String).implode()
        tests = [
            pl.col(name).cast(pl.String).is_in(names).fill_null(False)
            for name in columns
            if name in rows.columns
        ]
        return pl.any_horizontal(tests) if tests else pl.lit(False)

    def sql(self, columns: Iterable[str]) -> tuple[str, str, str]:
        """The same of a table of DuckDB: select list, condition that stays, condition touched."""
        columns = list(columns)
        names = ", ".join(quoted(name) for name in sorted(self.names))

        def is_named(name: str) -> str:
            return f"coalesce({name}::varchar in ({names}), false)"

        theirs = [is_named(name) for name in THEIRS if name in columns]
        gone = f"({' or '.join(theirs)})" if theirs else "false"
        blank = {}
        if AUTHOR in columns:
            blank = {name: is_named(AUTHOR) for name in EVIDENCE if name in columns}
        if bad := _is_quoted(columns):
            blank["value"] = bad
        replaced = ", ".join(f"if({w}, null, {name}) as {name}" for name, w in blank.items())
        selected = f"* replace ({replaced})" if blank else "*"
        return selected, f"not {gone}", " or ".join([gone, *dict.fromkeys(blank.values())])

    def in_text(self, text: str) -> bool:
        """Whether one of the names stands in a page, as it is or as HTML or JSON write it."""
        ways = {way for name in self.names for way in _written(name)}
        return any(re.search(rf"(?<!\w){re.escape(way)}(?!\w)", text) for way in ways)


def _is_quoted(columns: Iterable[str]) -> str | None:
    """SQL: whether a row holds what a source of people said; None, if no row of the table does."""
    if not set(columns) >= _BAD:
        return None
    of_people = "source <> 'items' and " if "source" in columns else ""
    return f"({of_people}value is not null)"


def _written(name: str) -> set[str]:
    escaped = html.escape(name)
    markup = escaped.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    told = [json.dumps(name, ensure_ascii=ascii)[1:-1] for ascii in (True, False)]
    return {name, escaped, html.escape(name, quote=False), markup, *told}


def read(path: Path) -> pl.DataFrame:
    """A Parquet file.

    Raises:
        Damaged: it cannot be read.
    """
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Damaged(f"{path} cannot be read") from error


def rewrite(path: Path, person: Person) -> int:
    """Take the person out of a Parquet file, by one rename; how many rows that concerned."""
    rows, touched = person.without(read(path))
    if touched:
        write_parquet(rows, path)
    return touched


def total(removed: Iterable[Removed]) -> Mapping[str, int]:
    """Rows by kind."""
    counts: dict[str, int] = {}
    for one in removed:
        counts[one.kind] = counts.get(one.kind, 0) + one.rows
    return counts
