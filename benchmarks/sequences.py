"""Reads a folder of items and interactions, whatever of their columns is there."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import typer

LIKED_FROM = 4
FEWEST_EVENTS = 3
DESCRIPTIONS = ("description", "plot")
CATEGORIES = ("categories", "genres")
UNKNOWN_BRAND = "Unknown"


class NoTimesError(typer.BadParameter):
    """A folder says in which order things happened, not when."""


@dataclass(frozen=True)
class Sequences:
    """Who acted on what, in order.

    Attributes:
        items: item_id, title, brand, category, description; null where a folder has none.
        events: user_id, item_id, from_last (1 = the user's last), ts (naive, null where unknown);
            sorted by user, then as they happened.
    """

    items: pl.DataFrame
    events: pl.DataFrame


def read_sequences(folder: Path) -> Sequences:
    """Items and events of `items.parquet` and `interactions.parquet`.

    The order of a user's events is `pos` where it is given, else `timestamp`, ties as in the
    file. Ratings under 4 are no events. A user with fewer than three events is left out.
    """
    items = pl.read_parquet(folder / "items.parquet")
    rows = pl.read_parquet(folder / "interactions.parquet")
    if "rating" in rows.columns:
        rows = rows.filter(pl.col("rating") >= LIKED_FROM)
    order = "pos" if "pos" in rows.columns else "timestamp"
    seconds = pl.col("timestamp") if "timestamp" in rows.columns else pl.lit(None, pl.Int64)
    events = rows.sort("user_id", order, maintain_order=True).select(
        "user_id",
        "item_id",
        from_last=pl.int_range(pl.len(), 0, -1).over("user_id"),
        ts=pl.from_epoch(seconds, time_unit="s"),
    )
    return Sequences(_items(items), events.filter(pl.len().over("user_id") >= FEWEST_EVENTS))


def shuffled_days(sequences: Sequences, *, seed: int, spared: int = 2) -> Sequences:
    """The same with each user's neighbouring events of one day in any order.

    A user without any time keeps the order of the file.

    Args:
        sequences: what to shuffle; untouched.
        seed: of the order.
        spared: so many of each user's last events stay where they are.

    Raises:
        NoTimesError: the folder has no times.
    """
    events = _filled(sequences.events)
    day, spare = pl.col("ts").dt.date(), pl.col("from_last") <= spared
    chance = pl.Series(np.random.default_rng(seed).random(len(events)))
    mixed = (
        events.with_columns(
            run=day.ne_missing(day.shift()).over("user_id").cum_sum(),
            chance=pl.when(~spare, day.is_not_null()).then(chance),
            spare=spare,
        )
        .sort("user_id", "spare", "run", "chance", maintain_order=True)
        .select(pl.all().exclude("run", "chance", "spare"))
        .with_columns(events.get_column("from_last"))
    )
    return Sequences(sequences.items, mixed)


def with_times(sequences: Sequences) -> Sequences:
    """The same with an event that has no time at that of its user's event before, else after.

    Users without any time are left out.

    Raises:
        NoTimesError: the folder has no times.
    """
    events = _filled(sequences.events).drop_nulls("ts")
    return Sequences(sequences.items, events)


def _filled(events: pl.DataFrame) -> pl.DataFrame:
    if events.get_column("ts").is_null().all():
        raise NoTimesError("interactions.parquet has no `timestamp`: its days are not known")
    return events.with_columns(pl.col("ts").forward_fill().backward_fill().over("user_id"))


def _items(items: pl.DataFrame) -> pl.DataFrame:
    """The columns of the contract. `brand_categories` holds both, separated by bars."""
    if "brand_categories" in items.columns:
        parts = pl.col("brand_categories").str.split(" | ")
        items = items.with_columns(
            brand=parts.list.first().replace(UNKNOWN_BRAND, None),
            categories=parts.list.slice(1).list.join(", "),
        )
    return items.select(
        "item_id",
        title=_first_of(items, ("title",)),
        brand=_first_of(items, ("brand",)),
        category=_first_of(items, CATEGORIES),
        description=_first_of(items, DESCRIPTIONS),
    )


def _first_of(items: pl.DataFrame, names: tuple[str, ...]) -> pl.Expr:
    present = [name for name in names if name in items.columns]
    return pl.col(present[0]) if present else pl.lit(None, pl.String)
