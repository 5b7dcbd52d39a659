"""What happened in a window, and which candidate pairs are kept to learn from."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray


def happened(
    events: pl.DataFrame, *, behaviour: str, as_of: datetime, horizon_days: int
) -> pl.DataFrame:
    """Distinct (user, item) pairs of `behaviour` with `as_of <= ts < as_of + horizon`."""
    inside = events.filter(_inside(as_of, horizon_days))
    return _pairs(inside.filter(pl.col("behaviour").cast(pl.String) == behaviour))


def within(rows: pl.DataFrame, *, as_of: datetime, horizon_days: int) -> pl.DataFrame:
    """Distinct (user, item) pairs of rows with `as_of <= ts < as_of + horizon`."""
    return _pairs(rows.filter(_inside(as_of, horizon_days)))


def _inside(as_of: datetime, horizon_days: int) -> pl.Expr:
    end = as_of + timedelta(days=horizon_days)
    return pl.col("ts").is_between(as_of, end, closed="left")


def _pairs(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("user", "item").unique().sort("user", "item")


def labels(pairs: pl.DataFrame, targets: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether each pair is among the targets; aligned to `pairs`.

    >>> pairs = pl.DataFrame({"user": [0, 0, 1], "item": [5, 6, 5]})
    >>> labels(pairs, pl.DataFrame({"user": [0], "item": [6]})).tolist()
    [False, True, False]
    """
    marked = targets.select("user", "item", happened=pl.lit(True))
    joined = pairs.select("user", "item").join(
        marked, on=["user", "item"], how="left", maintain_order="left"
    )
    return joined.get_column("happened").fill_null(False).to_numpy()


def sampled(ids: pl.DataFrame, *, share: float, as_of: datetime, seed: int) -> NDArray[np.bool_]:
    """A pseudo-random `share` of the pairs, by a hash of their ids, `as_of` and `seed`.

    Ids and not positions: a draw depends neither on shards nor on who else is known.

    Args:
        ids: a pair in each row: user_id, item_id.
        share: from 0 to 1.
        as_of: other windows draw independently.
        seed: likewise.
    """
    salt = int((as_of - datetime(1970, 1, 1)).total_seconds()) & (2**63 - 1)
    (mixed,) = np.random.SeedSequence([salt, seed]).generate_state(1, np.uint64)
    drawn = ids.hash_rows(int(mixed)).to_numpy()
    return np.asarray(drawn < np.uint64(min(int(share * 2.0**64), 2**64 - 1)))


def weights(
    happened: NDArray[np.bool_],
    *,
    drawn: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    share: float,
) -> NDArray[np.float32]:
    """What each pair counts for where negatives are sampled, so that all do alike on average.

    A negative that was shown is always kept and counts `share`; another is kept with probability
    `share` and counts 1. Both are expected to count `share`, so that one correction fits all.

    >>> yes, no = np.array([True]), np.array([False])
    >>> [weights(no, drawn=d, shown=s, share=0.2).item() for d in (yes, no) for s in (yes, no)]
    [0.20000000298023224, 1.0, 0.20000000298023224, 0.0]
    """
    negative = np.where(shown, np.float32(share), drawn)
    return np.where(happened, 1.0, negative).astype(np.float32)
