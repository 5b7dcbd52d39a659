from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from rank.features import Features
from rank.impressions import Shown
from rank.known import Known
from rank.projection import Projection

AS_OF = datetime(2024, 6, 1)
USERS, ITEMS, EVENTS, REVIEWS = 12, 16, 260, 40
BEHAVIOURS = ("view", "cart", "buy")
EDGES = (1.0, 7.0, 30.0, 90.0)  # events exactly as old as a window is long


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_frame(rng: np.random.Generator, n: int, days: np.ndarray) -> pl.DataFrame:
    """Rows of all users but the last and of all items but the last."""
    age = [timedelta(seconds=round(day * 86_400)) for day in days]
    return pl.DataFrame(
        {
            "user": rng.integers(0, USERS - 1, n).astype(np.int32),
            "item": rng.integers(0, ITEMS - 1, n).astype(np.int32),
            "ts": pl.Series([AS_OF - a for a in age], dtype=pl.Datetime("us")),
            "behaviour": pl.Series(
                rng.choice(BEHAVIOURS, n, p=(0.6, 0.25, 0.15)), dtype=pl.Enum([*BEHAVIOURS, "rest"])
            ),
            "rating": [None if r == 0 else float(r) for r in rng.integers(0, 6, n)],
            "sentiment": np.linspace(0, 1, n) ** 2,
        }
    ).sort("ts", maintain_order=True)


@pytest.fixture(scope="session")
def known() -> Known:
    """A small random shop; the last user did nothing and nobody touched the last item."""
    rng = np.random.default_rng(7)
    days = np.concatenate([np.repeat(EDGES, 4), rng.uniform(0.01, 120, EVENTS - 16)])
    events = make_frame(rng, EVENTS, days).drop("rating", "sentiment")
    reviews = make_frame(rng, REVIEWS, rng.uniform(0.01, 120, REVIEWS)).drop("behaviour")
    item_vectors, review_vectors = (unit(rng.normal(size=(n, 8))) for n in (ITEMS, REVIEWS))
    item_vectors[[2, 5]] = 0
    review_vectors[:4] = 0
    weights = rng.uniform(0.1, 2, EVENTS).astype(np.float32)
    places = (events["user"].to_numpy(), events["item"].to_numpy())
    listed = [AS_OF - timedelta(days=int(d)) for d in rng.integers(1, 400, ITEMS)]
    items = pl.DataFrame(
        {
            "category": ["tea", "saw", None, "oil"] * 4,
            "brand": pl.Series([None] * ITEMS, dtype=pl.String),
            "price": [None, 0.0, *rng.uniform(1, 90, ITEMS - 2)],
            "created_at": [None, *listed[1:]],
            "scent": ["rose", None] * 8,
            "volume": [None, *np.linspace(1, 9, ITEMS - 1)],
        }
    )
    users = pl.DataFrame(
        {
            "known_since": [None, *(AS_OF - timedelta(days=d, hours=6) for d in range(1, USERS))],
            "region": ["north", "south", None] * 4,
            "age": [None, *np.linspace(20, 70, USERS - 1)],
        }
    )
    textless = [3, 6]  # of the whitened texts
    near = np.where(rng.uniform(size=(ITEMS, ITEMS)) < 0.3, rng.uniform(0.1, 1, (ITEMS, ITEMS)), 0)
    np.fill_diagonal(near, 0)
    near[textless] = near[:, textless] = 0
    clusters = rng.integers(0, 3, ITEMS).astype(np.int32)
    clusters[textless] = -1
    used = np.unique(np.column_stack(places)[::3], axis=0)
    due = rng.uniform(0, 1, len(used)).astype(np.float32)
    due[:2] = 0
    return Known(
        as_of=AS_OF,
        items=items,
        users=users,
        events=events,
        reviews=reviews,
        item_vectors=item_vectors,
        review_vectors=review_vectors,
        whitened_items=unit(np.roll(item_vectors, 1, axis=0)[:, :5]),
        text_neighbours=sp.csr_array(near.astype(np.float32)),
        text_clusters=clusters,
        affinity=sp.csr_array((weights, places), shape=(USERS, ITEMS)),
        demand=rng.uniform(0, 5, ITEMS).astype(np.float32),
        due=sp.csr_array((due, tuple(used.T)), shape=(USERS, ITEMS)),
        behaviours=BEHAVIOURS,
        item_attributes=("scent", "volume"),
        user_attributes=("region", "age"),
        projection=Projection.fit(item_vectors, dimensions=3),
        shown=Shown(AS_OF, _impressions(events), events, (USERS, ITEMS)),
    )


def _impressions(events: pl.DataFrame) -> pl.DataFrame:
    """At random times; some exactly when an event was, some exactly a day before one."""
    rng = np.random.default_rng(8)
    random = make_frame(rng, 150, rng.uniform(0.01, 120, 150)).select("user", "item", "ts")
    some = events.select("user", "item", "ts")[::9]
    day_before = some.with_columns(pl.col("ts") - timedelta(days=1))
    return pl.concat([random, some, day_before]).sort("ts", maintain_order=True)


@pytest.fixture(scope="session")
def pairs() -> pl.DataFrame:
    """Every user with every item, as two generators proposed them."""
    grid = [(u, i) for u in range(USERS) for i in range(ITEMS)]
    rng = np.random.default_rng(1)
    ranks = rng.integers(1, 50, (2, len(grid)))
    return pl.DataFrame(
        grid, schema={"user": pl.Int32, "item": pl.Int32}, orient="row"
    ).with_columns(
        rank_text=pl.Series([None if r % 2 else r for r in ranks[0].tolist()], dtype=pl.Int16),
        rank_popular=pl.Series([None if r % 3 else r for r in ranks[1].tolist()], dtype=pl.Int16),
        score_text=pl.Series(rng.normal(size=len(grid)), dtype=pl.Float32),
    )


@pytest.fixture(scope="session")
def profiles() -> np.ndarray:
    """(USERS, 8); user 3 has none."""
    vectors = unit(np.random.default_rng(2).normal(size=(USERS, 8)))
    vectors[3] = 0
    return vectors


@pytest.fixture(scope="session")
def features(known: Known, pairs: pl.DataFrame, profiles: np.ndarray) -> pl.DataFrame:
    return Features(known)(pairs, profiles)
