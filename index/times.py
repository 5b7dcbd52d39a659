"""How long ago things happened, and when they are due again."""

from datetime import datetime

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray


def decayed(ts: pl.Series, as_of: datetime, half_life_days: float) -> NDArray[np.float64]:
    """2 ** (-age / half life) for each timestamp; age in days at `as_of`.

    >>> ts = pl.Series([datetime(2024, 1, 1), datetime(2024, 1, 11)])
    >>> decayed(ts, datetime(2024, 1, 11), half_life_days=10).tolist()
    [0.5, 1.0]
    """
    age = (pl.lit(as_of) - ts.cast(pl.Datetime("us"))).dt.total_microseconds()
    days = pl.select(age).to_series().to_numpy() / 86_400_000_000
    return np.asarray(np.exp2(-days / half_life_days))


def due(
    events: pl.DataFrame, corpus: pl.DataFrame, as_of: datetime, shape: tuple[int, int]
) -> sp.csr_array:
    """(n_users, n_items): how near a user's last use of an item is to its usual interval ago.

    With e the days since the last use and m the usual interval, min(e, m) / max(e, m): 1 where
    the item is due now, 0 on the day of its use. m is the user's own mean gap between days with a
    use of the item, else the mean of everybody's gaps for the item; without either nothing is due.

    Args:
        events: user, item, ts: the histories.
        corpus: likewise: what everybody's gaps are taken from.
        as_of: days are counted back from here; later than every ts.
        shape: (n_users, n_items).
    """
    usual = _spans(corpus, as_of).group_by("item").agg(pl.col("span", "gaps").sum())
    everybody = usual.select("item", usual=pl.col("span") / pl.col("gaps"))
    own = pl.when(pl.col("gaps") > 0).then(pl.col("span") / pl.col("gaps"))
    elapsed, interval = pl.col("elapsed"), pl.coalesce(own, "usual")
    known = (
        _spans(events, as_of)
        .join(everybody, on="item", how="left")
        .with_columns(interval=interval.fill_nan(None))
        .drop_nulls("interval")
        .select(
            "user",
            "item",
            due=pl.min_horizontal(elapsed, "interval") / pl.max_horizontal(elapsed, "interval"),
        )
        .sort("user", "item")
    )
    places = tuple(known.get_column(name).to_numpy() for name in ("user", "item"))
    values = known.get_column("due").to_numpy().astype(np.float32)
    return sp.csr_array((values, places), shape=shape)


def _spans(events: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """For each user and item: days since the last use, from the first to it, and gaps between.

    Sorted and counted run by run: groups of millions of pairs would take several times as much.
    """
    days = (pl.lit(as_of) - pl.col("ts").cast(pl.Datetime("us"))).dt.total_days()
    user, item, age = (c.to_numpy() for c in events.select("user", "item", days))
    order = np.lexsort((age, item, user))
    user, item, age = user[order], item[order], age[order]
    begins = np.append(True, (user[1:] != user[:-1]) | (item[1:] != item[:-1]))[: len(user)]
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(user)) - 1 if len(starts) else starts
    another_day = np.append(False, age[1:] != age[:-1])[: len(age)] & ~begins
    days_passed = np.cumsum(another_day)
    return pl.DataFrame(
        {
            "user": user[starts],
            "item": item[starts],
            "elapsed": age[starts],
            "span": age[ends] - age[starts],
            "gaps": days_passed[ends] - days_passed[starts],
        }
    )
