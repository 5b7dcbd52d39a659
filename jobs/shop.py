"""An invented shop whose true probabilities are known: to try nightrank on, and to test it against.

`jobs.shop_world` has the model of what people do, `jobs.shop_words` the vocabulary; here they
become the four sources as a shop would export them.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from jobs import shop_words as words
from jobs.shop_world import BEHAVIOURS, Floats, Ints, Views, World, draw_views, draw_world

_REVIEWED = 0.5  # share of purchases that are reviewed
_COUNTRIES = ("DE", "FR", "NL", "AT", "GB")


@dataclass(frozen=True)
class Shop:
    """The sources of a shop, and the world they were drawn from.

    Attributes:
        items: item_id, title, description, category, brand, price, available, created_at.
        users: user_id, consent, created_at, country.
        events: user_id, item_id, ts, behaviour, value (the price, for purchases); sorted by ts.
        reviews: user_id, item_id, ts, title, text, rating (1 to 5); sorted by ts.
        world: The true parameters; position p is row p of `items` and of `users`.
    """

    items: pl.DataFrame
    users: pl.DataFrame
    events: pl.DataFrame
    reviews: pl.DataFrame
    world: World


def make_shop(
    *,
    users: int = 3000,
    items: int = 600,
    days: int = 240,
    end: date = date(2025, 6, 1),
    seed: int = 0,
) -> Shop:
    """The shop from `days` before `end` to 30 days after it; same arguments, same shop.

    All four frames go on after `end`, so that a night at `end` has rows to ignore and its
    forecasts have an outcome to be held against. An item's `available` is as known at `end`.

    >>> shop = make_shop(users=20, items=12, days=40)
    >>> shop.items["item_id"][:2].to_list(), shop.users["user_id"][:2].to_list()
    (['I00000', 'I00001'], [10000, 10003])

    Raises:
        ValueError: fewer than 1 user, 10 items or 30 days.
    """
    if users < 1 or items < 10 or days < 30:
        raise ValueError(
            f"a shop needs at least 1 user, 10 items and 30 days; got {users}, {items} and {days}"
        )
    rng = np.random.default_rng(seed)
    world = draw_world(rng, users=users, items=items, days=days, end=end)
    item_frame = _item_frame(rng, world, days=days)
    user_frame = _user_frame(rng, world)
    events = _event_frame(rng, draw_views(world, rng), world, items=item_frame, users=user_frame)
    reviews = _review_frame(rng, events, world, items=item_frame, users=user_frame)
    return Shop(item_frame, user_frame, events, reviews, world)


def true_probability(
    shop: Shop,
    *,
    user_ids: Any,
    item_ids: Any,
    behaviour: str,
    as_of: date,
    horizon_days: int,
) -> Floats:
    """Exact probability that each user does `behaviour` to the item within the horizon.

    Args:
        shop: From `make_shop`.
        user_ids: One id per pair: a list, array or series.
        item_ids: Aligned with `user_ids`.
        behaviour: One of view, click, cart, purchase.
        as_of: Start of the window: a midnight, for rates are known by the day.
        horizon_days: The window is `as_of <= ts < as_of + horizon_days`.

    Returns:
        The probability of at least one such event in the window, aligned with the pairs.

    Raises:
        ValueError: unknown behaviour or id, pairs not aligned, or a window the shop does not cover.
    """
    if behaviour not in BEHAVIOURS:
        raise ValueError(f"unknown behaviour {behaviour!r}; the shop has {', '.join(BEHAVIOURS)}")
    users = _positions(user_ids, known=shop.users["user_id"])
    items = _positions(item_ids, known=shop.items["item_id"])
    if len(users) != len(items):
        raise ValueError(f"pairs must be aligned: {len(users)} user ids, {len(items)} item ids")
    days = _window(shop.world, as_of=as_of, horizon_days=horizon_days)
    views = shop.world.expected_views(users, items, days)
    expected = views * shop.world.reach(users, items)[BEHAVIOURS.index(behaviour)]
    return np.asarray(-np.expm1(-expected))


def write_shop(shop: Shop, folder: Path, *, broken_rows: bool = True) -> None:
    """Write items, users, events and reviews `.parquet` to `folder`, created if missing.

    With `broken_rows`, those of `broken(shop)` follow the good ones, for a quarantine to catch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extra = broken(shop) if broken_rows else {}
    for name in ("items", "users", "events", "reviews"):
        frame: pl.DataFrame = getattr(shop, name)
        pl.concat([frame, extra.get(name, frame.clear())]).write_parquet(folder / f"{name}.parquet")


def broken(shop: Shop) -> dict[str, pl.DataFrame]:
    """Rows that break the contract, by source: changed copies of the first rows.

    - items: a NaN price (under a new id)
    - users: a null user_id
    - events: a null item_id, a null ts, the unknown behaviour "teleport", the unknown item
      "I99999", a purchase of value NaN, and an exact duplicate
    - reviews: the unknown item "I99999", a NaN rating, and a null user_id
    """
    nan = float("nan")
    changes: dict[str, list[dict[str, Any]]] = {
        "items": [{"item_id": "I90000", "price": nan}],
        "users": [{"user_id": None}],
        "events": [
            {"item_id": None},
            {"ts": None},
            {"behaviour": "teleport"},
            {"item_id": "I99999"},
            {"behaviour": "purchase", "value": nan},
            {},
        ],
        "reviews": [{"item_id": "I99999"}, {"rating": nan}, {"user_id": None}],
    }
    return {
        name: pl.DataFrame(
            [row | change for row, change in zip(frame.iter_rows(named=True), rows, strict=False)],
            schema=frame.schema,
        )
        for name, rows in changes.items()
        for frame in [getattr(shop, name).head(len(rows))]
    }


def _item_frame(rng: np.random.Generator, world: World, *, days: int) -> pl.DataFrame:
    """Items with texts from their topics; 2% lack a description, 5% a brand."""
    rows = []
    products = [words.product(rng, words.TOPICS[main]) for main in world.topics.argmax(axis=1)]
    for n, source in enumerate(world.design):
        look, noun = products[source]
        topics = [words.TOPICS[k] for k in np.argsort(-world.topics[n]) if world.topics[n, k] > 0]
        brand = words.CATEGORIES[topics[0].category][1][world.brand[n]]
        text = words.description(rng, look, noun, topics)
        rows.append(
            {
                "item_id": f"I{n:05}",
                "title": f"{brand} {look} {noun}, {words.pick(rng, words.COLOURS)}",
                "description": text if rng.random() > 0.02 else None,
                "category": topics[0].category,
                "brand": brand if rng.random() > 0.05 else None,
            }
        )
    text_columns = ("item_id", "title", "description", "category", "brand")
    return pl.DataFrame(rows, schema=dict.fromkeys(text_columns, pl.String)).with_columns(
        price=pl.Series(world.price),
        available=pl.Series(world.item_until > days),
        created_at=_moments(world.first, world.item_born * 86400),
    )


def _user_frame(rng: np.random.Generator, world: World) -> pl.DataFrame:
    """Users; 15% gave no consent, of 3% it is not known."""
    count = len(world.taste)
    consent = rng.choice(np.array([True, False, None]), p=[0.82, 0.15, 0.03], size=count)
    return pl.DataFrame(
        {
            "user_id": 10_000 + 3 * np.arange(count),  # not to be mistaken for a row number
            "consent": pl.Series(consent.tolist(), dtype=pl.Boolean),
            "created_at": _moments(world.first, world.user_born * 86400),
            "country": rng.choice(_COUNTRIES, size=count).tolist(),
        }
    )


def _event_frame(
    rng: np.random.Generator,
    views: Views,
    world: World,
    *,
    items: pl.DataFrame,
    users: pl.DataFrame,
) -> pl.DataFrame:
    """Events of the views: each step some minutes after the one before, on the same day."""
    second = views.day * 86400 + rng.triangular(6 * 3600, 20 * 3600, 23 * 3600, len(views.day))
    steps = []
    for depth, latest in enumerate((0, 60, 600, 1800)):  # at most 41 minutes: before midnight
        second = second + rng.uniform(latest / 20, latest, size=len(second))
        kept = views.depth >= depth
        item = items[views.item[kept]]
        steps.append(
            item.select(
                users["user_id"].gather(views.user[kept]),
                "item_id",
                _moments(world.first, second[kept]).alias("ts"),
                behaviour=pl.lit(BEHAVIOURS[depth]),
                value=pl.col("price") if depth == 3 else pl.lit(None, dtype=pl.Float64),
            )
        )
    # A pair seen twice in a second would be an exact duplicate, and only `broken` has those.
    return pl.concat(steps).unique(maintain_order=True).sort("ts", maintain_order=True)


def _review_frame(
    rng: np.random.Generator,
    events: pl.DataFrame,
    world: World,
    *,
    items: pl.DataFrame,
    users: pl.DataFrame,
) -> pl.DataFrame:
    """Reviews of half the purchases, a day to some weeks later; liking follows match and quality.

    Those that would come after the world's last day are left out.
    """
    bought = events.filter(pl.col("behaviour") == "purchase")
    bought = bought.filter(pl.Series(rng.random(len(bought)) < _REVIEWED))
    user = _positions(bought["user_id"], known=users["user_id"])
    item = _positions(bought["item_id"], known=items["item_id"])
    liking = 3.9 + 1.8 * (world.match(user, item) - 0.5) + 0.7 * world.quality[item]
    rating = np.clip(np.round(liking + 0.7 * rng.standard_normal(len(user))), 1, 5)
    delay = pl.Series(np.floor(86400e6 * (1 + rng.exponential(9, size=len(user)))))
    close = datetime.combine(world.first, time()) + timedelta(days=len(world.rhythm))
    interests = world.taste[user].argmax(axis=1)
    topics = world.topics[item].argmax(axis=1)
    texts = [
        words.as_typed(rng, *words.review(rng, name, words.TOPICS[k], words.TOPICS[own], stars))
        for name, k, own, stars in zip(
            items["title"].gather(item), topics, interests, rating, strict=True
        )
    ]
    return (
        bought.select(
            "user_id",
            "item_id",
            ts=(pl.col("ts") + delay.cast(pl.Duration("us"))).dt.truncate("1s"),
            title=pl.Series([title for title, _ in texts], dtype=pl.String),
            text=pl.Series([text for _, text in texts], dtype=pl.String),
            rating=pl.Series(rating),
        )
        .filter(pl.col("ts") < close)
        .sort("ts", maintain_order=True)
    )


def _window(world: World, *, as_of: date, horizon_days: int) -> range:
    """Days of the world in [as_of, as_of + horizon_days)."""
    start = as_of if isinstance(as_of, datetime) else datetime.combine(as_of, time())
    since = start - datetime.combine(world.first, time())
    if since % timedelta(days=1):
        raise ValueError(f"as_of must be a midnight, for rates are known by the day; got {as_of}")
    if since.days < 0 or horizon_days < 0 or since.days + horizon_days > len(world.rhythm):
        last = world.first + timedelta(days=len(world.rhythm))
        raise ValueError(
            f"the shop covers [{world.first}, {last}); got {horizon_days} days from {as_of}"
        )
    return range(since.days, since.days + horizon_days)


def _positions(ids: Any, *, known: pl.Series) -> Ints:
    """Row of each id in `known`."""
    wanted = pl.DataFrame({"id": pl.Series(values=ids).cast(known.dtype)})
    rows = pl.DataFrame({"id": known}).with_row_index("row")
    found = wanted.join(rows, on="id", how="left", maintain_order="left")
    missing = found.filter(pl.col("row").is_null())
    if len(missing):
        raise ValueError(f"{known.name} {missing['id'][0]!r} is not in the shop")
    return found["row"].cast(pl.Int64).to_numpy()


def _moments(first: date, seconds: Floats) -> pl.Series:
    """Timestamps of whole seconds, counted from midnight of `first`."""
    return pl.Series(np.datetime64(first, "us") + np.floor(seconds).astype("timedelta64[s]"))
