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
