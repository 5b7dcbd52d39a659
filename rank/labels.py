"""What happened in a window, and which candidate pairs are kept to learn from."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray


def happened(
    events: pl.DataFrame, *, behaviour: str, as_of: datetime, horizon_days: int
) -> pl.DataFrame:
    """Distinct (user, item) pairs of `behaviour` with `as_of <= ts < as_of + horizon`."""
    end = as_of + timedelta(days=horizon_days)
    inside = pl.col("ts").is_between(as_of, end, closed="left")
    chosen = events.filter(inside, pl.col("behaviour").cast(pl.String) == behaviour)
    return chosen.select("user", "item").unique().sort("user", "item")


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


def sampled(pairs: pl.DataFrame, *, share: float, as_of: datetime, seed: int) -> NDArray[np.bool_]:
    """A pseudo-random `share` of the pairs, the same however users are cut into shards.

    The choice is a hash of (user, item, as_of, seed), by the finaliser of splitmix64 (Steele,
    Lea and Flood, OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        salt = np.uint64(int((as_of - datetime(1970, 1, 1)).total_seconds()) & (2**63 - 1))
        mixed = _mix(
            pairs.get_column("user").to_numpy().astype(np.uint64) + _mix(salt + np.uint64(seed))
        )
        mixed = _mix(mixed ^ pairs.get_column("item").to_numpy().astype(np.uint64))
    return np.asarray(mixed < np.uint64(min(int(share * 2.0**64), 2**64 - 1)))


def _mix(value: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    value = np.asarray(value, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
