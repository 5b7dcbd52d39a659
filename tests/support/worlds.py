"""Small worlds whose right answers are known."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import scipy.sparse as sp

from index.facts import Weights
from index.snapshot import Snapshot

AS_OF = datetime(2024, 6, 1)
USERS, ITEMS = 10, 12
WEIGHTS = Weights(
    behaviours={"view": 1.0, "buy": 4.0},
    review=2.0,
    half_life_days=30,
    popular_half_life_days=30,
    neighbours_per_item=200,
    ease_items=1000,
    new_item_days=30,
)


def missing_item(user: int) -> int:
    """The item of the user's colour that the user has not bought."""
    return (user % 2) + 2 * (user // 2 % (ITEMS // 2))


def dated(pairs: list[tuple[int, int]], days_ago: list[float]) -> pl.DataFrame:
    """user, item, ts of (user, item) pairs."""
    return pl.DataFrame(
        {
            "user": [user for user, _ in pairs],
            "item": [item for _, item in pairs],
            "ts": [AS_OF - timedelta(days=age) for age in days_ago],
        },
        schema={"user": pl.Int32, "item": pl.Int32, "ts": pl.Datetime("us")},
    )


def make_snapshot(
    bought: list[tuple[int, int]],
    *,
    shape: tuple[int, int] = (USERS, ITEMS),
    reviews: list[tuple[int, int]] = (),
    sentiments: list[float] | None = None,
    item_vectors: np.ndarray | None = None,
    review_vectors: np.ndarray | None = None,
    eligible: np.ndarray | None = None,
    excluded: list[tuple[int, int]] | None = None,
    days_ago: list[float] | None = None,
    behaviour: str = "buy",
    corpus: pl.DataFrame | None = None,
    attributes: dict[str, list[str | None]] | None = None,
    item_age: list[float] | None = None,
) -> Snapshot:
    events = dated(bought, days_ago or [1.0] * len(bought))
    barred = bought if excluded is None else excluded
    places = tuple(np.array([p[axis] for p in barred], dtype=np.int32) for axis in (0, 1))
    ones = np.ones(len(barred), dtype=np.float32)
    if item_vectors is None:
        item_vectors = np.zeros((shape[1], 2), np.float32)
    width = item_vectors.shape[1]
    texts = dict.fromkeys(attributes or ["brand"], pl.String)
    return Snapshot(
        as_of=AS_OF,
        events=events.with_columns(behaviour=pl.lit(behaviour)).sort("ts", maintain_order=True),
        reviews=dated(reviews, [1.0] * len(reviews)).with_columns(
            sentiment=pl.Series(sentiments or [0.5] * len(reviews), dtype=pl.Float64)
        ),
        item_vectors=item_vectors,
        review_vectors=np.zeros((len(reviews), width), np.float32)
        if review_vectors is None
        else review_vectors,
        item_attributes=pl.DataFrame(attributes or {"brand": [None] * shape[1]}, texts),
        item_age=np.array(item_age or [np.nan] * shape[1]),
        eligible=np.ones(shape[1], dtype=bool) if eligible is None else eligible,
        excluded=sp.csr_array((ones, places), shape=shape),
        weights=WEIGHTS,
        asks=((0.7, item_vectors),),
        answers=np.hstack([item_vectors, np.zeros((shape[1], 1), np.float32)]),
        corpus=corpus,
    )


def checkerboard() -> Snapshot:
    """Even users like even items, odd users odd ones; each lacks exactly one."""
    bought = [
        (user, item)
        for user in range(USERS)
        for item in range(ITEMS)
        if user % 2 == item % 2 and item != missing_item(user)
    ]
    colour = np.eye(2, dtype=np.float32)[np.arange(ITEMS) % 2]
    return make_snapshot(
        bought,
        item_vectors=colour,
        attributes={"brand": ["white" if item % 2 else "black" for item in range(ITEMS)]},
        reviews=[(user, missing_item((user + 2) % USERS)) for user in range(USERS)],
        review_vectors=np.eye(2, dtype=np.float32)[np.arange(USERS) % 2],
    )
