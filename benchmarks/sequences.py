"""Reads a folder of items and interactions, whatever of their columns is there."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

LIKED_FROM = 4
FEWEST_EVENTS = 3
DESCRIPTIONS = ("description", "plot")
CATEGORIES = ("categories", "genres")
UNKNOWN_BRAND = "Unknown"


@dataclass(frozen=True)
class Sequences:
    """Who acted on what, in order.

    Attributes:
        items: item_id, title, brand, category, description; null where a folder has none.
        events: user_id, item_id, place (0 = the user's first), ts (naive, null where unknown);
            sorted by user, then place.
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
        place=pl.int_range(pl.len()).over("user_id"),
        ts=pl.from_epoch(seconds, time_unit="s"),
    )
    return Sequences(_items(items), events.filter(pl.len().over("user_id") >= FEWEST_EVENTS))


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
