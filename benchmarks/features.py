"""Features of pairs by Polars joins and numpy gathers, by ours, and the limit: an invented shop.

The limit moves what has to be moved and computes nothing: a copy of the finished table, and, for
the cosines, the vectors of each pair's item read once, with those of its user in a cache.

POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python -m benchmarks.features
"""

import argparse
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import polars as pl
import scipy.sparse as sp

from jobs.console import show_table
from rank.features import GROUPS, NEWEST, Features
from rank.known import LAST_ITEMS, Known, Values
from rank.projection import Projection
from rank.tables import ITEM_TABLES, USER_TABLES

AS_OF = datetime(2024, 6, 1)
BEHAVIOURS = ("view", "cart", "buy")
COSINES = ("similarity", "last_items", "last_steps")
TABLES = (
    "user_activity", "item_activity", "conversion", "ratings", "half_lives", "pair_history",
)  # fmt: skip
# The plain way gathers both vectors of so many pairs at a time: more do not fit the caches.
BLOCK = 8192
# The limit reads vectors into a room that the caches hold.
ROOM = 256

COSINE_NAMES = (
    "cosine_profile", "cosine_own_reviews", "cosine_item_reviews", "cosine_last",
    "cosine_last_3_mean", "cosine_last_10_max", "cosine_last_10_mean",
    *(f"cosine_whitened_{n + 1}" for n in range(NEWEST)), "cosine_whitened_max",
    *(f"log_odds_{n + 1}" for n in range(NEWEST)), "log_odds_max",
)  # fmt: skip

Assemble = Callable[[pl.DataFrame], Values]
Describe = Callable[[pl.DataFrame], pl.DataFrame]


def shop(n_users: int, n_items: int, width: int, *, seed: int = 0) -> Known:
    """Ten events a user, a review an item, random unit vectors."""
    rng = np.random.default_rng(seed)
    n_events, ids = 10 * n_users, np.arange(n_items, dtype=np.int32)

    def rows(n: int) -> pl.DataFrame:
        ages = np.sort(rng.integers(1, 90 * 86_400, n))[::-1]
        return pl.DataFrame(
            {
                "user": rng.integers(0, n_users, n).astype(np.int32),
                "item": rng.integers(0, n_items, n).astype(np.int32),
                "ts": pl.Series([AS_OF] * n) - pl.Series(ages * 1_000_000, dtype=pl.Duration("us")),
            }
        )

    def units(n: int, d: int) -> Values:
        vectors = rng.normal(size=(n, d)).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    events = rows(n_events)
    events = events.with_columns(behaviour=pl.Series(rng.choice(BEHAVIOURS, n_events)))
    places = tuple(events.get_column(name).to_numpy() for name in ("user", "item"))
    none = (np.empty(0, np.float32), (np.empty(0, np.int32), np.empty(0, np.int32)))
    nothing = sp.csr_array(none, shape=(n_users, n_items))
    reviews = rows(n_items).with_columns(rating=rng.uniform(1, 5, n_items), sentiment=0.5)
    near = (np.ones(n_items, np.float32), (ids, rng.permutation(ids)))
    return Known(
        as_of=AS_OF,
        items=pl.DataFrame(
            {
                "category": rng.integers(0, 50, n_items).astype(str),
                "brand": rng.integers(0, 900, n_items).astype(str),
                "price": rng.uniform(1, 90, n_items),
                "created_at": [AS_OF - timedelta(days=200)] * n_items,
            }
        ),
        users=pl.DataFrame({"known_since": [AS_OF - timedelta(days=100)] * n_users}),
        events=events,
        reviews=reviews,
        item_vectors=units(n_items, width),
        review_vectors=units(n_items, width),
        whitened_items=units(n_items, 256),
        text_neighbours=sp.csr_array(near, shape=(n_items, n_items)),
        text_clusters=rng.integers(0, 100, n_items).astype(np.int32),
        affinity=sp.csr_array((np.ones(n_events, np.float32), places), shape=(n_users, n_items)),
        demand=rng.uniform(0, 5, n_items).astype(np.float32),
        due=nothing,
        behaviours=BEHAVIOURS,
        item_attributes=(),
        user_attributes=(),
        projection=Projection(np.zeros(width, np.float32), units(16, width)),
        asks=units(n_items, 257),
        answers=units(n_items, 257),
    )


def candidates(known: Known, users: int, per_user: int, *, seed: int = 1) -> pl.DataFrame:
    """Random pairs of the first users, sorted; every tenth is one that had an event."""
    rng = np.random.default_rng(seed)
    random = pl.DataFrame(
        {
            "user": np.repeat(np.arange(users, dtype=np.int32), per_user),
            "item": rng.integers(0, known.size("item"), users * per_user).astype(np.int32),
        }
    )
    had = known.events.select("user", "item").filter(pl.col("user") < users)
    pairs = pl.concat([random, had]).unique().sort("user", "item")
    return pairs.filter(pl.int_range(pl.len()).over("user") < per_user)


def joined(known: Known) -> Assemble:
    """The plain way to the figures of users, items and pairs, as a matrix."""
    describe = joined_tables(known)
    return lambda pairs: describe(pairs).drop("user", "item").cast(pl.Float32).to_numpy()


def joined_tables(known: Known) -> Describe:
    """The plain way to the figures of users, items and pairs: a join of each table."""
    users, items = (
        pl.DataFrame({n: v for g, t in of.items() if g in TABLES for n, v in t(known).items()})
        for of in (USER_TABLES, ITEM_TABLES)
    )
    table, n_items = known.pair_table, known.size("item")
    row = pl.int_range(pl.len(), dtype=pl.Int32)
    users, items = users.with_columns(user=row), items.with_columns(item=row)
    history = pl.DataFrame(
        {
            "user": (table.keys // n_items).astype(np.int32),
            "item": (table.keys % n_items).astype(np.int32),
        }
        | {name: values[:-1] for name, values in table.columns.items()}
    )
    unknown = {name: float(values[-1]) for name, values in table.columns.items()}

    def describe(pairs: pl.DataFrame) -> pl.DataFrame:
        found = pairs.join(history, on=["user", "item"], how="left", maintain_order="left")
        found = found.with_columns(pl.col(n).fill_null(value) for n, value in unknown.items())
        found = found.join(users, on="user", how="left", maintain_order="left")
        return found.join(items, on="item", how="left", maintain_order="left")

    return describe


def gathered(known: Known, profiles: Values) -> Assemble:
    """The plain way to cosines: both vectors of each pair are gathered and multiplied.

    In the order of `COSINE_NAMES`; the last six only where the two-tower model is used.
    """

    def assemble(pairs: pl.DataFrame) -> Values:
        blocks = [_cosines(known, profiles, block) for block in pairs.iter_slices(BLOCK)]
        return np.concatenate(blocks)

    return assemble


def _cosines(known: Known, profiles: Values, pairs: pl.DataFrame) -> Values:
    users, items = (pairs.get_column(name).to_numpy() for name in ("user", "item"))
    last = known.last_items[users]

    def cosine(left: Values, right: Values) -> Values:
        blank = ~(left.any(axis=1) & right.any(axis=1))
        return np.where(blank, np.nan, np.einsum("nd,nd->n", left, right))

    def latest(left: Values, right: Values, count: int) -> Values:
        mine = right[items]
        columns = [np.where(last[:, n] < 0, np.nan, cosine(left[last[:, n]], mine))
                   for n in range(count)]  # fmt: skip
        return np.stack(columns, axis=1)

    texts, mine = known.item_vectors, known.item_vectors[items]
    to_last = latest(texts, texts, LAST_ITEMS)
    whitened = latest(known.whitened_items, known.whitened_items, NEWEST)
    reviews = np.full((2, len(pairs)), np.nan, np.float32)
    if len(known.reviews):
        written, read = known.user_reviews, known.item_reviews
        reviews[0] = cosine(written.vectors[written.row[users]], mine)
        reviews[1] = cosine(profiles[users], read.vectors[read.row[items]])
    columns = [
        cosine(profiles[users], mine),
        *reviews,
        to_last[:, 0],
        _mean(to_last[:, :3]),
        np.fmax.reduce(to_last, axis=1),
        _mean(to_last),
        *whitened.T,
        np.fmax.reduce(whitened, axis=1),
    ]
    if known.asks is not None and known.answers is not None:
        steps = latest(known.asks, known.answers, NEWEST)
        columns += [*steps.T, np.fmax.reduce(steps, axis=1)]
    return np.stack(columns, axis=1).astype(np.float32)


def _mean(values: Values) -> Values:
    """Of the known values of each row; NaN without one."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        return np.asarray(np.nanmean(values, axis=1))


def ours(known: Known, profiles: Values, groups: tuple[str, ...]) -> Assemble:
    """The product's own way to some groups."""
    features = Features(known, without=[name for name in GROUPS if name not in groups])

    def assemble(pairs: pl.DataFrame) -> Values:
        users = pairs.get_column("user").unique().sort().to_numpy()
        return features(pairs, profiles[users]).to_numpy()

    return assemble


def copied(known: Known, plain: dict[str, Assemble], pairs: pl.DataFrame) -> dict[str, Assemble]:
    """The limit of each plain way, by the bytes that it cannot do without."""
    items = pairs.get_column("item").to_numpy()
    read = known.item_reviews
    vectors = [known.item_vectors, read.vectors[read.row], known.whitened_items]
    vectors += [known.answers] if known.answers is not None else []
    rooms = [np.empty((ROOM, matrix.shape[1]), dtype=matrix.dtype) for matrix in vectors]
    finished = {name: way(pairs) for name, way in plain.items()}

    def cosines(_: pl.DataFrame) -> Values:
        for start in range(0, len(items), ROOM):
            places = items[start : start + ROOM]
            for matrix, room in zip(vectors, rooms, strict=True):
                matrix.take(places, axis=0, out=room[: len(places)], mode="clip")
        return finished["cosines"].copy()

    return {"tables": lambda _: finished["tables"].copy(), "cosines": cosines}


def rates(ways: dict[str, Assemble], pairs: pl.DataFrame, repeats: int) -> dict[str, float]:
    """Million pairs a second of each way: the median of runs that take turns.

    By the processor's time, to which other work on the machine adds little.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.process_time()
            way(pairs)
            taken[name].append(time.process_time() - started)
    return {name: len(pairs) / 1e6 / float(np.median(t)) for name, t in taken.items()}


def shown(name: str, plain: float, own: float, limit: float) -> tuple[str, ...]:
    """A row of the table: rates, and what ours is of the others."""
    rates = (f"{rate:.3f}" for rate in (plain, own, limit))
    return (name, *rates, f"{own / plain:.1f}", f"{own / limit:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--shard", type=int, default=1000, help="users that are described")
    parser.add_argument("--per-user", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    known = shop(options.users, options.items, options.width)
    pairs = candidates(known, options.shard, options.per_user)
    profiles = known.user_reviews.vectors[known.user_reviews.row[::-1]]
    mine = partial(ours, known, profiles)
    plain = {"tables": joined(known), "cosines": gathered(known, profiles)}
    own = {"tables": mine(TABLES), "cosines": mine(COSINES), "all groups": mine(GROUPS)}
    for name, way in plain.items():
        np.testing.assert_allclose(
            np.sort(way(pairs)), np.sort(own[name](pairs)), atol=2e-5, rtol=1e-5, err_msg=name
        )
    limit = copied(known, plain, pairs)
    ways = {f"{name}, plain": way for name, way in plain.items()} | own
    ways |= {f"{name}, limit": way for name, way in limit.items()}
    found = rates(ways, pairs, options.repeats)
    for of in ("", ", plain", ", limit"):
        found[f"both{of}"] = 1 / (1 / found[f"tables{of}"] + 1 / found[f"cosines{of}"])
    rows = [shown(name, *(found[f"{name}{of}"] for of in (", plain", "", ", limit")))
            for name in (*plain, "both")]  # fmt: skip
    rows.append(("all groups", "", f"{found['all groups']:.3f}", "", "", ""))
    title = f"{len(pairs):,} pairs, Polars threads: {pl.thread_pool_size()}; million pairs/s"
    show_table(title, ["groups", "plain", "ours", "limit", "of plain", "of limit"], rows)


if __name__ == "__main__":
    main()
