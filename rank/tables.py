"""Features of a user or of an item alone, computed once for each `as_of`.

A table is a function `known -> {column: (n_users,) or (n_items,) float32}`. NaN means "not known".
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from rank.known import DAYS, Columns, Known, Values, days_before, minimum_by

Table = Callable[[Known], Columns]

# Rates and means lean on the whole shop's as if this many more events had been seen.
PRIOR_EVENTS = 20.0


def user_activity(known: Known) -> Columns:
    """How often and how lately the user did what, and since when they are known."""
    known_for = days_before(known.users.get_column("known_since"), known.as_of)
    return _activity(known, "user") | {"user_days_known": known_for}


def item_activity(known: Known) -> Columns:
    """How often and how lately users acted on the item, and its age."""
    listed = days_before(known.items.get_column("created_at"), known.as_of)
    first = -minimum_by(known.codes("item"), -known.event_age, len(listed))
    return _activity(known, "item") | {"item_days_listed": listed, "item_days_sold": first}


def user_conversion(known: Known) -> Columns:
    """The user's smoothed rate from each behaviour to the next of the funnel."""
    return _conversion(known, "user")


def item_conversion(known: Known) -> Columns:
    """The item's smoothed rate from each behaviour to the next of the funnel."""
    return _conversion(known, "item")


def user_ratings(known: Known) -> Columns:
    """Number, smoothed mean and recency of the user's reviews."""
    return _ratings(known, "user")


def item_ratings(known: Known) -> Columns:
    """Number, smoothed mean and recency of the item's reviews."""
    return _ratings(known, "item")


def item_price(known: Known) -> Columns:
    """The logarithm of one plus the price."""
    return {"price": known.log_price}


def user_price(known: Known) -> Columns:
    """The mean logarithm of the prices that the user acted on, weighted by affinity."""
    return {"user_price": known.usual_log_price}


def item_attributes(known: Known) -> Columns:
    """Numbers as they are; for a text, all users' affinity for items that share it."""
    columns: Columns = {}
    for name in ("category", "brand", *known.item_attributes):
        if name in known.kinds:
            kind = known.kinds[name]
            popular = np.asarray(kind.affinity.sum(axis=0))[kind.code]
            columns[f"popularity_{name}"] = np.where(kind.code < 0, np.nan, popular)
        else:
            columns[f"item_{name}"] = numbers(known.items.get_column(name))
    return columns


def user_attributes(known: Known) -> Columns:
    """Numbers as they are; for a text, the mean affinity of the known users who share it."""
    since = known.users.get_column("known_since")
    present = since.is_null() | (since < known.as_of)
    columns: Columns = {}
    for name in known.user_attributes:
        values = known.users.get_column(name)
        if values.dtype == pl.String:
            activity = pl.Series(known.affinity.sum(axis=1))
            shared = pl.DataFrame({"value": values, "activity": activity}).filter(present)
            mean = shared.drop_nulls("value").group_by("value").agg(pl.col("activity").mean())
            joined = values.to_frame("value").join(
                mean, on="value", how="left", maintain_order="left"
            )
            values = joined.get_column("activity")
        columns[f"user_{name}"] = numbers(values)
    return columns


USER_TABLES: dict[str, Table] = {
    "user_activity": user_activity,
    "conversion": user_conversion,
    "ratings": user_ratings,
    "price": user_price,
    "attributes": user_attributes,
}
ITEM_TABLES: dict[str, Table] = {
    "item_activity": item_activity,
    "conversion": item_conversion,
    "ratings": item_ratings,
    "price": item_price,
    "attributes": item_attributes,
}


def numbers(values: pl.Series) -> Values:
    """A numeric column as float32, null as NaN."""
    return values.cast(pl.Float32).fill_null(np.nan).to_numpy()


def span(days: float) -> str:
    """How a window of days is called in a column's name.

    >>> span(7), span(float("inf"))
    ('7d', 'all')
    """
    return "all" if np.isinf(days) else f"{days:.0f}d"


def _activity(known: Known, of: str) -> Columns:
    columns: Columns = {}
    for behaviour in known.behaviours:
        for days in (*DAYS, np.inf):
            columns[f"{of}_{behaviour}_{span(days)}"] = known.counts(of, behaviour, days)
        columns[f"{of}_days_since_{behaviour}"] = known.days_since(of, behaviour)
    return columns


def _conversion(known: Known, of: str) -> Columns:
    columns: Columns = {}
    for earlier, later in zip(known.behaviours, known.behaviours[1:], strict=False):
        tries, hits = (known.counts(of, name, np.inf) for name in (earlier, later))
        prior = hits.sum() / max(tries.sum(), 1.0)
        rate = (hits + PRIOR_EVENTS * prior) / (tries + PRIOR_EVENTS)
        columns[f"{of}_{later}_per_{earlier}"] = rate
    return columns


def _ratings(known: Known, of: str) -> Columns:
    who = known.reviews.get_column(of).to_numpy()
    rating = numbers(known.reviews.get_column("rating"))
    rated = ~np.isnan(rating)
    prior = float(rating[rated].mean()) if rated.any() else np.nan
    total = np.bincount(who[rated], weights=rating[rated], minlength=known.size(of))
    count = np.bincount(who[rated], minlength=known.size(of))
    age = days_before(known.reviews.get_column("ts"), known.as_of)
    return {
        f"{of}_reviews": np.bincount(who, minlength=known.size(of)),
        f"{of}_rating": (total + PRIOR_EVENTS * prior) / (count + PRIOR_EVENTS),
        f"{of}_days_since_review": minimum_by(who, age, known.size(of)),
    }
