"""A small invented shop on disk, and the inputs of its night."""

from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path

import polars as pl

from embed import Encoder, VectorCache, embed_texts, item_texts, review_texts
from jobs.config import Config, load_config
from jobs.ingest import Inputs, read_inputs
from jobs.nightly import Night
from jobs.shop import Shop, make_shop, write_shop
from jobs.state import Material

AS_OF = datetime(2025, 6, 1)

# Two thirds of a night of so small a shop would go into the two-tower model.
SHOP = """
name = "small"

[sources]
items = "items.parquet"
reviews = "reviews.parquet"
events = "events.parquet"
users = "users.parquet"

[users]
attributes = ["country"]

[encoder]
model = "packaged/wordllama"

[events]
weights = { view = 0.2, click = 0.5, cart = 2.0, purchase = 4.0 }
implies = { purchase = "cart", cart = "click" }

[candidates]
nearest = 15
reviews = 10
cooccurrence = 15
directed = 10
ease = 10
similar = 10
last = 5
last_3 = 5
interests = 5
two_hop = 5
factors = 5
attributes = 5
kinds = 5
popular_recent = 5
trending = 5
new = 5
popular = 15
history = 10
per_user = 40

[[predict]]
behaviour = "click"
horizon_days = 14
repeats = true

[[predict]]
behaviour = "purchase"
horizon_days = 14

[training]
windows = 2
max_rounds = 60
dimensions = 4

[scoring]
users_per_shard = 100

[[campaign]]
name = "summer"
behaviour = "purchase"
items_per_user = 3
min_probability = 0.001
cool_off_days = 7
"""
ALL_GENERATORS = SHOP.replace("two_hop = 5\n", "two_hop = 5\ntwo_tower = 5\n")


@cache
def small_shop() -> Shop:
    return make_shop(users=300, items=80, days=150, end=AS_OF.date(), seed=1)


def write_night(folder: Path, toml: str = SHOP, shop: Shop | None = None) -> Night:
    """The small shop, or another: its files in `folder/shop`, and its night with home beside."""
    sources = folder / "shop"
    sources.mkdir(parents=True, exist_ok=True)
    write_shop(shop or small_shop(), sources)
    (sources / "small.toml").write_text(toml)
    config = load_config(sources / "small.toml")
    return Night(config=config, as_of=AS_OF, root=sources, home=folder / "home")


def make_material(night: Night, encoder: Encoder, *, rows: Inputs | None = None) -> Material:
    """Inputs with vectors from the real encoder."""
    inputs = rows or read_inputs(night.config, as_of=night.as_of, root=night.root)
    cache = VectorCache(
        night.home / "cache", fingerprint=encoder.fingerprint, dimension=encoder.dimension
    )
    texts = (
        item_texts(inputs.items, template=night.config.items.text),
        review_texts(inputs.reviews),
    )
    vectors = [embed_texts(t, encoder=encoder, cache=cache).vectors for t in texts]
    return Material(night.config, inputs, *vectors)


def with_config(night: Night, **changes: object) -> Night:
    """The night with some top-level keys of its configuration replaced."""
    config: Config = night.config.model_copy(update=changes)
    return replace(night, config=config)


def read(night: Night, sql: str) -> pl.DataFrame:
    """The answer of the current night to a query."""
    from jobs.publish import CURRENT, open_scores

    with open_scores(night.home / CURRENT) as connection:
        return connection.sql(sql).pl()
