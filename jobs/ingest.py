"""Reads the sources as of one time: contracts checked, bad rows set apart, ids made positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl

from jobs.casts import VALUE_CHARACTERS
from jobs.config import Config
from jobs.config_inputs import ITEM_COLUMNS, USER_COLUMNS
from jobs.contracts import Row, Source, cells, column_of, contract
from jobs.erasing.tombstones import Tombstones
from jobs.errors import DataRefused, table
from jobs.review_events import events_of
from jobs.sources import SourceRows, read_source, same_type

_LISTED: tuple[Source, ...] = ("items", "users")
_DATED: tuple[Source, ...] = ("events", "reviews")
SOURCES = _LISTED + _DATED
_TIME = {"items": "created_at", "users": "created_at", "events": "ts", "reviews": "ts"}
_QUARANTINE = {
    "source": pl.String,
    "rule": pl.String,
    "file": pl.String,
    "row": pl.Int64,
    "column": pl.String,
    "value": pl.String,
}
_NAMES = 20  # of ignored columns that are listed

# What a message may quote of people's rows: what they are called or wrote is not for a log.
_SHOWN = ["item_id", "ts", "created_at", "behaviour", "value", "rating", "consent"]

Frames = dict[Source, pl.DataFrame]


@dataclass(frozen=True)
class Inputs:
    """What is known before one time. `user` and `item` are row positions in users and items.

    Attributes:
        as_of: that time: what came at or after it is not here.
        items: item_id, title, description, category, brand, price, available, created_at, and
            the configured attributes; sorted by item_id.
        users: user_id, consent, created_at, known_since (created_at, else the user's first event
            or review, else null: always known), attributes and columns; sorted by user_id.
            Everyone in the users source or in a kept event or review.
        events: user, item, ts, behaviour (Enum), value; sorted by ts, ties in the source's order,
            those from reviews last; impressions are none of them.
        impressions: user, item, ts; likewise.
        reviews: user, item, ts, title, text, rating; likewise.
        quarantine: source, rule, file (null for SQL), row, column (null: the whole row), value;
            a line for every rule that a row breaks.
        report: source, read, kept, quarantined, later, erased, ignored_columns: rows of every
            configured source; read is the sum of the next four. Later rows are those at or after
            the time the sources were read for, and events and reviews of later items; erased
            ones are those of people who were erased, whatever else they are.
    """

    as_of: datetime
    items: pl.DataFrame
    users: pl.DataFrame
    events: pl.DataFrame
    impressions: pl.DataFrame
    reviews: pl.DataFrame
    quarantine: pl.DataFrame
    report: pl.DataFrame

    def before(self, as_of: datetime) -> Inputs:
        """The same with the events and reviews before an earlier time.

        Positions stay: items and users keep their rows, to be masked by created_at and known_since.
        """
        if as_of == self.as_of:
            return self
        is_before = pl.col("ts") < as_of
        return replace(
            self,
            as_of=as_of,
            events=self.events.filter(is_before),
            impressions=self.impressions.filter(is_before),
            reviews=self.reviews.filter(is_before),
        )


def read_inputs(
    config: Config, *, as_of: datetime, root: Path, erased: Tombstones | None = None
) -> Inputs:
    """Read every source of the configuration and keep what holds before `as_of`.

    A row at or after `as_of` (ts, or created_at of items and users), or of a user who was erased,
    is counted and otherwise as if it had not been there.

    Args:
        config: Names the sources.
        as_of: Naive UTC.
        root: Folder that relative paths start from.
        erased: Those of the home that the rows are for.

    Raises:
        InputMissing: A file is missing or cannot be read.
        ConfigError: DuckDB rejects the SQL of a source or of `events.from_reviews`.
        DataRefused: A source lacks a column, holds too many bad rows, or no good ones.
    """
    if as_of.tzinfo is not None:
        raise ValueError(f"as_of = {as_of} must be naive UTC")
    stones = erased or Tombstones()
    read = {source: stones.without(_read(config, source, root=root)) for source in SOURCES}
    early = _before(read, as_of)
    good: Frames = {}
    failures: Frames = {}
    for source in _LISTED:
        good[source], failures[source] = checked(early[source], contract(config, source), source)
    items = good["items"].sort("item_id")
    for source in _DATED:
        rows = _with_positions(early[source], items, "item")
        good[source], failures[source] = checked(rows, contract(config, source), source)
    users = _all_users(good)

    quarantine = pl.concat([_quarantine(read[s], failures[s], s) for s in SOURCES])
    report = _report(config, read, early, good)
    _refuse_bad_shares(config, report, quarantine)
    _refuse_empty(report, as_of)
    events = _in_order(_all_events(config, good, as_of), users)
    shown = pl.col("behaviour").cast(pl.String).eq(config.events.impressions or "")
    behaviours = pl.Enum([*config.events.weights])
    reviews = _in_order(good["reviews"], users)
    return Inputs(
        as_of=as_of,
        items=items.select(
            *ITEM_COLUMNS[:-2],
            pl.col("available").fill_null(True),
            "created_at",
            *config.items.attributes,
        ),
        users=users.select(*USER_COLUMNS, *config.users.attributes, *config.users.columns),
        events=events.filter(~shown).select(
            "user", "item", "ts", pl.col("behaviour").cast(behaviours), "value"
        ),
        impressions=events.filter(shown).select("user", "item", "ts"),
        reviews=reviews.select("user", "item", "ts", "title", "text", "rating"),
        quarantine=quarantine,
        report=report,
    )


def _read(config: Config, source: Source, *, root: Path) -> SourceRows:
    """The rows of a source; none if the configuration does not give it."""
    wanted = contract(config, source)
    nothing = ", ".join(f'null as "{cell.name}"' for cell in cells(wanted))
    text: str = getattr(config.sources, source) or f"select {nothing} limit 0"
    attach = config.sources.attach
    return read_source(text, source=source, contract=wanted, root=root, attach=attach)


def _before(read: Mapping[Source, SourceRows], as_of: datetime) -> Frames:
    """The rows that are not known to be at or after `as_of`, their ids of one type everywhere."""
    early = {
        source: rows.rows.filter((pl.col(_TIME[source]) < as_of).fill_null(True))
        for source, rows in read.items()
    }
    text = pl.col("item_id").cast(pl.String)
    all_items, early_items = read["items"].rows.select(text), early["items"].select(text)
    later_items = all_items.join(early_items, on="item_id", how="anti").get_column("item_id")
    for source in _DATED:
        of_later_item = text.is_in(later_items.implode()).fill_null(False)
        early[source] = early[source].filter(~of_later_item)
    for column in ("item_id", "user_id"):
        early = dict(zip(early, same_type(list(early.values()), column), strict=True))
    return early


def checked(
    rows: pl.DataFrame, wanted: type[Row], source: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that keep their contract, and a quarantine line for every rule a row breaks."""
    good, failure = wanted.filter(rows)
    details = failure.details()
    lines = [pl.DataFrame(schema=_QUARANTINE)]
    for rule in details.columns:
        if rule not in wanted.column_names():
            broken = details.filter(pl.col(rule) == "invalid")
            lines.append(_lines(broken, source, rule, column_of(rule, wanted)))
    return good, pl.concat(lines).sort("file", "row", maintain_order=True)


def _lines(broken: pl.DataFrame, source: str, rule: str, column: str | None) -> pl.DataFrame:
    """Quarantine lines of one rule: with the cell as it was found, if the rule is about one."""
    value = pl.lit(None, pl.String)
    if column is not None:
        found = pl.coalesce(pl.col("raw").struct.field(column), pl.col(column).cast(pl.String))
        value = found.str.head(VALUE_CHARACTERS)
    return broken.select(
        pl.lit(source).alias("source"),
        pl.lit(rule).alias("rule"),
        "file",
        "row",
        pl.lit(column, pl.String).alias("column"),
        value.alias("value"),
    )


def _quarantine(read: SourceRows, failures: pl.DataFrame, source: Source) -> pl.DataFrame:
    """All quarantine lines of a source, broken lines of its files first."""
    broken = read.broken.with_columns(
        pl.lit(source).alias("source"),
        pl.lit("broken_line").alias("rule"),
        pl.lit(None, pl.String).alias("column"),
    )
    return pl.concat([broken.select(*_QUARANTINE), failures])


def _with_positions(rows: pl.DataFrame, known: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows with the position of their item (or user) in `known`; null where it is unknown."""
    places = known.select(f"{name}_id").with_row_index(name).cast({name: pl.Int32})
    return rows.join(places, on=f"{name}_id", how="left", maintain_order="left")


def _all_users(good: Frames) -> pl.DataFrame:
    """Users of the users source and of events and reviews, with known_since, by id."""
    seen = pl.concat([good[source].select("user_id", "ts") for source in ("events", "reviews")])
    first = seen.group_by("user_id").agg(pl.col("ts").min().alias("first"))
    return (
        good["users"]
        .join(first, on="user_id", how="full", coalesce=True)
        .with_columns(pl.coalesce("created_at", "first").alias("known_since"))
        .sort("user_id")
    )


def _all_events(config: Config, good: Frames, as_of: datetime) -> pl.DataFrame:
    """The events of their source, then those that reviews stand for."""
    events = good["events"].select("user_id", "item", "ts", "behaviour", "value")
    if conditions := config.events.from_reviews:
        found = events_of(good["reviews"], conditions, as_of=as_of)
        events = pl.concat([events, found.cast({"behaviour": events.schema["behaviour"]})])
    return events


def _in_order(rows: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    """The rows with their users' positions, in the order of time."""
    return _with_positions(rows, users, "user").sort("ts", maintain_order=True)


def _report(
    config: Config, read: Mapping[Source, SourceRows], early: Frames, good: Frames
) -> pl.DataFrame:
    """Row counts of every source that the configuration gives."""
    rows = []
    for source in SOURCES:
        if getattr(config.sources, source) is not None:
            broken = read[source].broken.height
            rows.append(
                {
                    "source": source,
                    "read": read[source].rows.height + broken + read[source].erased,
                    "kept": good[source].height,
                    "quarantined": early[source].height - good[source].height + broken,
                    "later": read[source].rows.height - early[source].height,
                    "erased": read[source].erased,
                    "ignored_columns": _some(read[source].ignored),
                }
            )
    return pl.DataFrame(rows)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _refuse_bad_shares(config: Config, report: pl.DataFrame, quarantine: pl.DataFrame) -> None:
    """Refuse the night if a source has too many bad rows among those before `as_of`."""
    bound = config.sources.max_quarantined_share
    share = pl.col("quarantined") / (pl.col("kept") + pl.col("quarantined"))
    bad = report.filter(pl.col("quarantined") > 0, share > bound)
    if bad.is_empty():
        return
    shares = "\n".join(
        f"{source}: {quarantined} of {kept + quarantined} rows "
        f"({quarantined / (kept + quarantined):.1%}) break the contract"
        for source, kept, quarantined in bad.select("source", "kept", "quarantined").iter_rows()
    )
    may_be_quoted = (pl.col("source") == "items") | pl.col("column").is_in(_SHOWN)
    shown = pl.when(may_be_quoted).then("value").alias("value")
    counts = (
        quarantine.with_columns(shown)
        .filter(pl.col("source").is_in(bad.get_column("source").implode()))
        .group_by("source", "rule", maintain_order=True)
        .agg(pl.len(), pl.col("file", "row", "value").first())
    )
    rows = [
        [source, rule, count, f"{file or 'row'}:{row} {'' if value is None else repr(value)}"]
        for source, rule, count, file, row, value in counts.iter_rows()
    ]
    raise DataRefused(
        f"{shares}\n{table(['source', 'rule', 'rows', 'first of them'], rows)}\n"
        f"sources.max_quarantined_share allows {bound:.1%}: mend the source, or map or filter it "
        "with SQL (docs/data.md)"
    )


def _refuse_empty(report: pl.DataFrame, as_of: datetime) -> None:
    """Refuse a night without items or events: an export has probably failed."""
    required = pl.col("source").is_in(["items", "events"])
    for row in report.filter(required, pl.col("kept") == 0).iter_rows(named=True):
        raise DataRefused(
            f"{row['source']}: no row before {as_of:%Y-%m-%d %H:%M} UTC is left of the "
            f"{row['read']} read ({row['quarantined']} quarantined, {row['later']} later)"
        )
