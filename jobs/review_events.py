"""Events from reviews: one for every review for which a behaviour's condition holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import duckdb
import polars as pl

from jobs.connections import connect
from jobs.errors import ConfigError, DataRefused

# What a condition may name.
COLUMNS = ("user_id", "item_id", "ts", "title", "text", "rating")


def events_of(
    reviews: pl.DataFrame, conditions: Mapping[str, str], *, as_of: datetime
) -> pl.DataFrame:
    """The events that reviews stand for, behaviour by behaviour, in the order of the reviews.

    A condition is about one review alone, so an event says nothing of later ones.

    Args:
        reviews: the good ones before `as_of`: `COLUMNS` and `item`.
        conditions: by behaviour, SQL that is true or false of a review; null is false.
        as_of: named in messages.

    Returns:
        user_id, item, ts, behaviour, value (null: a rating is no amount).

    Raises:
        ConfigError: DuckDB rejects a condition, or it asks for other rows.
        DataRefused: a condition holds for none of the reviews.
    """
    rows = reviews.select(*COLUMNS).with_row_index("row").to_arrow()
    found = []
    with connect() as connection:
        relation = connection.from_arrow(rows)
        for behaviour, condition in conditions.items():
            key = f"events.from_reviews.{behaviour} = {condition!r}"
            _check(connection, condition, key)
            try:
                kept = relation.filter(condition).select("row").pl().get_column("row")
            except duckdb.Error as error:
                raise ConfigError(f"{key}: DuckDB rejects it: {error}") from None
            if kept.is_empty():
                raise DataRefused(
                    f"{key} holds for none of the {len(reviews)} reviews before "
                    f"{as_of:%Y-%m-%d %H:%M} UTC: mend the condition, or leave it out"
                )
            found.append(_events(reviews[kept], behaviour))
    return pl.concat(found)


def _check(connection: duckdb.DuckDBPyConnection, condition: str, key: str) -> None:
    """Refuse a query inside of the condition; `filter` refuses aggregates and windows itself."""
    query = f"select 1 from reviews where {condition}"
    ((parsed,),) = connection.execute("select json_serialize_sql(?)", [query]).fetchall()
    if '"class":"SUBQUERY"' in parsed:
        raise ConfigError(
            f"{key}: asks for other rows; it must be about one review alone, by its columns "
            + ", ".join(COLUMNS)
        )


def _events(reviews: pl.DataFrame, behaviour: str) -> pl.DataFrame:
    return reviews.select(
        "user_id",
        "item",
        "ts",
        behaviour=pl.lit(behaviour),
        value=pl.lit(None, pl.Float64),
    )
