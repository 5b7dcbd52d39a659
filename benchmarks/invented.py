"""An invented shop of any size for the benchmarks, drawn as whole columns.

`jobs.shop` draws each view from its true probability, which takes users x items: too long here.
This one has what costs time in a shop: few items that sell much and many that sell little, users
of few and of many events, tastes, items that follow on others, and titles that tell the taste.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.shop_words import CATEGORIES, TOPICS

ITEMS_PER_SHELF = 100
SHELVES_PER_USER = 3
OF_OWN_SHELVES, FOLLOWING = 0.8, 0.2
DAYS = 360
AS_OF = datetime(2024, 6, 1)  # all events are before
END = 1_717_200_000  # the same, in seconds since 1970
# Pairs are distinct, so more are drawn than are wanted.
DRAWN = 1.6

Places = NDArray[np.int64]


def write_shop(folder: Path, *, users: int, items: int, events: int, seed: int = 0) -> None:
    """Write `items.parquet` and `interactions.parquet`, as folders of public data have them.

    Items have item_id, title, brand and category, interactions user_id, item_id and timestamp
    (seconds, in the 360 days before 2024-06-01), sorted by user and time; no pair is there twice.
    Of so many events some are missing where users have seen most of their shelves.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    shelf = rng.integers(0, max(items // ITEMS_PER_SHELF, 1), items)
    _items(rng, shelf).write_parquet(folder / "items.parquet")
    pairs = _pairs(rng, users, shelf, int(events * DRAWN)).unique(maintain_order=True)
    rows = pairs.sample(min(events, len(pairs)), seed=seed)
    ages = rng.integers(1, DAYS * 86_400, len(rows))
    rows = rows.with_columns(timestamp=pl.Series(END - ages)).sort("user_id", "timestamp")
    rows.write_parquet(folder / "interactions.parquet")


def _pairs(rng: np.random.Generator, users: int, shelf: Places, count: int) -> pl.DataFrame:
    """user_id, item_id: the users' shelves, then items of those by Zipf's law."""
    weight = np.asarray(1.0 / (rng.permutation(len(shelf)) + 10.0), dtype=np.float64)
    activity = rng.lognormal(0.0, 0.8, users)
    user = rng.choice(users, count, p=activity / activity.sum())
    own = rng.integers(0, shelf.max() + 1, (users, SHELVES_PER_USER))
    chosen = own[user, rng.integers(0, SHELVES_PER_USER, count)]
    item = _of_shelves(rng, chosen, shelf, weight)
    anywhere = rng.random(count) >= OF_OWN_SHELVES
    of_all = np.zeros_like(shelf)
    item[anywhere] = _of_shelves(rng, np.zeros(anywhere.sum(), np.int64), of_all, weight)
    after = np.flatnonzero((rng.random(count) < FOLLOWING) & (np.arange(count) < count - 1)) + 1
    user[after], item[after] = user[after - 1], rng.permutation(len(shelf))[item[after - 1]]
    return pl.DataFrame({"user_id": user, "item_id": item})


def _of_shelves(
    rng: np.random.Generator, chosen: Places, shelf: Places, weight: NDArray[np.float64]
) -> Places:
    """An item of each chosen shelf, by weight; of an empty shelf, one of the next."""
    order = np.argsort(shelf, kind="stable")
    upto = np.concatenate([[0.0], np.cumsum(weight[order])])
    ends = np.searchsorted(shelf[order], [chosen, chosen + 1])
    low, high = upto[ends]
    place = np.searchsorted(upto, low + rng.random(len(chosen)) * (high - low), side="right") - 1
    return np.asarray(order[np.minimum(place, len(shelf) - 1)])


def _items(rng: np.random.Generator, shelf: Places) -> pl.DataFrame:
    """Items whose words are those of their shelf, with a number of their own."""
    rows = []
    for item, number in enumerate(shelf.tolist()):
        topic = TOPICS[number % len(TOPICS)]
        brands = CATEGORIES[topic.category][1]
        brand = brands[item % len(brands)]
        look, noun = topic.looks[number % len(topic.looks)], topic.nouns[item % len(topic.nouns)]
        use = topic.uses[number // len(TOPICS) % len(topic.uses)]
        rows.append((item, f"{brand} {look} {noun} for {use}, no. {item}", brand, topic.category))
    columns = ["item_id", "title", "brand", "category"]
    return pl.DataFrame(rows, columns, orient="row")
