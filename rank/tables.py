"""Features of a user or of an item alone, computed once for each `as_of`.

A table is a function `known -> {column: (n_users,) or (n_items,) float32}`. NaN means "not known".
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from rank.impressions import item_impressions, user_impressions
from rank.known import (
    DAYS,
    PRIOR_EVENTS,
    Columns,
    Known,
    Values,
    days_before,
    minimum_by,
    ratio,
    smoothed_rate,
)

Table = Callable[[Known], Columns]

# In days. A trend is the rate of the second over that of the last, 1 where nothing changes.
HALF_LIVES = (1.0, 7.0, 30.0)


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


def item_sentiment(known: Known) -> Columns:
    """The smoothed mean sentiment of the item's reviews, each counting half every 30 days."""
    who = known.reviews.get_column("item").to_numpy()
    sentiment = known.reviews.get_column("sentiment").to_numpy()
    prior = float(sentiment.mean()) if len(who) else np.nan
    weight = np.exp2(-days_before(known.reviews.get_column("ts"), known.as_of) / HALF_LIVES[-1])
    total, count = (np.bincount(who, w, known.size("item")) for w in (weight * sentiment, weight))
    return {"item_sentiment": (total + PRIOR_EVENTS * prior) / (count + PRIOR_EVENTS)}


def user_half_lives(known: Known) -> Columns:
    """What the user did, an event counting half as much after each half-life; its trend."""
    return _half_lives(known, "user")


def item_half_lives(known: Known) -> Columns:
    """What was done with the item, likewise."""
    return _half_lives(known, "item")


def user_intervals(known: Known) -> Columns:
    """Mean and deviation of the gaps between active days, and how many such gaps ago the last was.

    In whole days before `as_of`, as `index.times.due` counts them.
    """
    return _intervals(known, "user")


def item_intervals(known: Known) -> Columns:
    """The same of the days on which anybody did something with the item."""
    return _intervals(known, "item")


def item_neighbours(known: Known) -> Columns:
    """How wanted things like this are: figures of the items of nearest texts, none of its own.

    Means of log(1 + decayed number of events), weighted by cosine: the regression of Nadaraya
    (Theory of Probability and its Applications, 1964) over the nearest neighbours.
    """
    near = known.text_neighbours
    weight = near.sum(axis=1)
    events = {name: known.decayed("item", name, HALF_LIVES[-1]) for name in known.behaviours}
    columns = {"neighbours_popularity": np.sum(list(events.values()), axis=0)}
    columns |= {f"neighbours_{name}": count for name, count in events.items()}
    means = {name: ratio(near @ np.log1p(count), weight) for name, count in columns.items()}
    return means | {"neighbours_cosine": ratio(weight, np.diff(near.indptr))}


def item_clusters(known: Known) -> Columns:
    """The share of all users' affinity that the item's cluster of texts has."""
    return {"cluster_demand": known.cluster_demand}


def item_price(known: Known) -> Columns:
    """The logarithm of one plus the price, and its place in the item's category."""
    return {"price": known.log_price, **known.price_in_category}


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
            activity = pl.Series(known.total_affinity)
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
    "half_lives": user_half_lives,
    "intervals": user_intervals,
    "price": user_price,
    "attributes": user_attributes,
    "impressions": user_impressions,
}
ITEM_TABLES: dict[str, Table] = {
    "item_activity": item_activity,
    "conversion": item_conversion,
    "ratings": item_ratings,
    "sentiment": item_sentiment,
    "half_lives": item_half_lives,
    "intervals": item_intervals,
    "neighbours": item_neighbours,
    "clusters": item_clusters,
    "price": item_price,
    "attributes": item_attributes,
    "impressions": item_impressions,
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
        columns[f"{of}_{later}_per_{earlier}"] = smoothed_rate(hits, tries)
    return columns


def _half_lives(known: Known, of: str) -> Columns:
    columns: Columns = {}
    for name in known.behaviours:
        decayed = {days: known.decayed(of, name, days) for days in HALF_LIVES}
        columns |= {f"{of}_{name}_half_{span(days)}": count for days, count in decayed.items()}
        # A steady rate gives a count in proportion to the half-life.
        rates = [count / days for days, count in decayed.items()]
        columns[f"{of}_{name}_trend"] = ratio(rates[1], rates[2])
    return columns


def _intervals(known: Known, of: str) -> Columns:
    # Sums of whole numbers are exact, in whatever order.
    age = known.event_age.astype(np.int64)
    width = int(age.max(initial=0)) + 1
    days = known.codes(of).astype(np.int64)
    days *= width  # in place, as there is one for each event
    days += age
    days.sort()
    who, day = np.divmod(days[np.diff(days, prepend=-1) > 0], width)
    same, size = np.diff(who) == 0, known.size(of)
    owner, gap = who[1:][same], np.diff(day)[same]
    count, total, squares = (np.bincount(owner, gap**power, size) for power in (0, 1, 2))
    mean = ratio(total, count)
    variance = ratio(count * squares - total**2, count * (count - 1))
    return {
        f"{of}_gap_mean": mean,
        f"{of}_gap_deviation": np.sqrt(variance),
        f"{of}_gaps_since": ratio(minimum_by(who, day, size), mean),
    }


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
