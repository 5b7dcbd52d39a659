"""Nights that take up what earlier ones left are those of a home that knows nothing of them."""

import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from forks import TINY, do_night, done, tiny_shop
from nights import write_night
from polars.testing import assert_frame_equal
from trials import lists, published, total

from embed import Encoder, VectorCache, item_texts, review_texts
from embed.cache import hash_texts
from index.store import VectorIndex
from jobs.config_sections import RetentionConfig
from jobs.nightly import Night
from jobs.retention import DAY, removable
from jobs.shop import write_shop

Sources = dict[str, pl.DataFrame]
Change = Callable[[Sources, random.Random, datetime], Sources]

DAYS = (1, 8, 1)  # to the next night; models are trained anew after 7
WORDS = ["amber", "brisk", "cedar", "dusky", "early", "fjord", "gaunt", "husky", "ivory", "jaunty"]


def reworded(rows: pl.DataFrame, column: str, rng: random.Random) -> pl.DataFrame:
    """A tenth of the rows, one at least, with another text."""
    some = set(rng.sample(range(len(rows)), max(len(rows) // 10, 1)))
    texts = [
        " ".join(rng.choices(WORDS, k=9)) if row in some else text
        for row, text in enumerate(rows.get_column(column))
    ]
    return rows.with_columns(pl.Series(column, texts, dtype=pl.String))


def texts_changed(sources: Sources, rng: random.Random, as_of: datetime) -> Sources:
    return {
        "items": reworded(sources["items"], "description", rng),
        "reviews": reworded(sources["reviews"], "text", rng),
    }


def items_listed(sources: Sources, rng: random.Random, as_of: datetime) -> Sources:
    """A copy of an item, with the text of the other, and one without any text."""
    items = sources["items"]
    new = items.sample(2, seed=rng.randrange(99)).with_columns(
        item_id=pl.format("J{}", pl.int_range(pl.len()) + rng.randrange(10**6)),
        description=pl.Series([items["description"][0], None]),
        created_at=pl.lit(as_of - timedelta(hours=1)).cast(pl.Datetime("us")),
    )
    # Not at the end: all rows after them get other positions.
    return {"items": pl.concat([new, items])}


def items_gone(sources: Sources, rng: random.Random, as_of: datetime) -> Sources:
    """One is not available, of another every row is deleted."""
    sold_out, gone = rng.sample(sources["items"]["item_id"].to_list(), 2)
    available = pl.col("available") & (pl.col("item_id") != sold_out)
    left = {
        name: sources[name].filter(pl.col("item_id") != gone)
        for name in ("items", "events", "reviews")
    }
    return left | {"items": left["items"].with_columns(available=available)}


def users_gone(sources: Sources, rng: random.Random, as_of: datetime) -> Sources:
    gone = rng.sample(sources["users"]["user_id"].to_list(), 3)
    return {
        name: sources[name].filter(~pl.col("user_id").is_in(gone))
        for name in ("users", "events", "reviews")
    }


def users_come(sources: Sources, rng: random.Random, as_of: datetime) -> Sources:
    """With what others did."""
    ids = pl.col("user_id") + 10**6 + rng.randrange(10**6)
    of_some = pl.col("user_id").is_in(rng.sample(sources["users"]["user_id"].to_list(), 2))
    return {
        name: pl.concat([sources[name], sources[name].filter(of_some).with_columns(user_id=ids)])
        for name in ("users", "events")
    }


def events_late(sources: Sources, rng: random.Random, as_of: datetime) -> Sources:
    """Some of weeks ago that no earlier night has seen, and as many that are taken back."""
    events, seed = sources["events"], rng.randrange(99)
    late = events.sample(20, seed=seed).with_columns(ts=pl.col("ts") - timedelta(days=11, hours=5))
    kept = events.sample(fraction=0.99, seed=seed)
    return {"events": pl.concat([kept, late.filter(pl.col("ts") < as_of)])}


def reviews_gone(sources: Sources, rng: random.Random, as_of: datetime) -> Sources:
    return {"reviews": sources["reviews"].sample(fraction=0.9, seed=rng.randrange(99))}


CHANGES: list[Change] = [
    texts_changed, items_listed, items_gone, users_gone, users_come, events_late, reviews_gone,
]  # fmt: skip


def read(night: Night) -> Sources:
    names = ("items", "users", "events", "reviews")
    return {name: pl.read_parquet(night.root / f"{name}.parquet") for name in names}


def write(night: Night, sources: Sources) -> None:
    for name, rows in sources.items():
        rows.write_parquet(night.root / f"{name}.parquet")


def begun(folder: Path) -> Night:
    night = write_night(folder, TINY, tiny_shop())
    write_shop(tiny_shop(), night.root, broken_rows=False)
    return replace(night, as_of=night.as_of - timedelta(days=14))


def texts_of(sources: Sources, night: Night) -> set[str]:
    """What a night at its `as_of` encodes."""
    reviews = sources["reviews"].filter(pl.col("ts") < night.as_of)
    items = sources["items"].filter(pl.col("created_at") < night.as_of)
    texts = [*item_texts(items, template=night.config.items.text), *review_texts(reviews)]
    return {text for text in texts if text.strip()}


def without_costs(home: Path) -> dict[str, pl.DataFrame]:
    """What was published, but how many vectors were there already."""
    frames = published(home)
    frames["main.texts"] = frames["main.texts"].drop("encoded", "cached")
    return frames


@pytest.mark.parametrize("seed", [1, 2])
def test_random_days_give_the_tables_of_full_nights(seed: int, tmp_path: Path) -> None:
    rng, night = random.Random(seed), begun(tmp_path / "shop")
    full, seen = replace(night, home=tmp_path / "full"), set[str]()
    for number in range(len(DAYS)):
        texts = texts_of(read(night), night)
        encoded = {home: tmp_path / f"{home}-{number}" for home in ("kept", "anew")}
        run = f"night-{number}"
        assert done(do_night, night, run, encoded["kept"]) == 0
        shutil.copytree(night.home / "models", full.home / "models", dirs_exist_ok=True)
        assert done(partial(do_night, full=True), full, run, encoded["anew"]) == 0
        assert total(encoded["kept"]) == len(texts - seen)
        assert total(encoded["anew"]) == len(texts)
        assert lists(night.home, run) == lists(full.home, run)
        found, wanted = without_costs(night.home), without_costs(full.home)
        assert found.keys() == wanted.keys()
        for name, frame in wanted.items():
            assert_frame_equal(found[name], frame, check_exact=True)
        seen |= texts
        at = night.as_of + timedelta(days=DAYS[number])
        night, full = replace(night, as_of=at), replace(full, as_of=at)
        for change in rng.sample(CHANGES, 3):
            sources = read(night)
            write(night, sources | change(sources, rng, night.as_of))


def test_a_full_night_that_is_killed_encodes_each_text_once(tmp_path: Path) -> None:
    night = begun(tmp_path)
    assert done(do_night, night, "first", tmp_path / "first") == 0
    killed = partial(do_night, full=True, kill_at="after embed:reviews")  # items are encoded
    assert done(killed, night, "second", tmp_path / "second") == -9
    assert 0 < total(tmp_path / "second") < total(tmp_path / "first")
    assert done(do_night, night, "second", tmp_path / "second") == 0
    assert total(tmp_path / "second") == total(tmp_path / "first")


def test_a_text_that_no_source_holds_is_in_no_index_and_its_vector_grows_old(
    static_encoder: Encoder, tmp_path: Path
) -> None:
    night = begun(tmp_path)
    assert done(do_night, night, "first", tmp_path / "encoded") == 0
    before, rng = read(night), random.Random(0)
    for change in (texts_changed, items_gone, reviews_gone):
        sources = read(night)
        write(night, sources | change(sources, rng, night.as_of))
    night = replace(night, as_of=night.as_of + timedelta(days=1))
    assert done(do_night, night, "second", tmp_path / "encoded") == 0
    stays = texts_of(read(night), night)
    gone = texts_of(before, night) - stays
    assert len(gone) > 10
    of = {True: static_encoder.encode(sorted(gone)), False: static_encoder.encode(sorted(stays))}
    for name in ("items", "reviews"):
        index = VectorIndex.load(night.home / "runs" / "second" / "index" / name)
        near = {held: index.search(vectors, 1)[1] for held, vectors in of.items()}
        assert near[True].max() < 1 - 1e-5
        assert (near[False] > 1 - 1e-5).any()

    keep = RetentionConfig(days=50, vector_days=50)
    cache = night.home / "cache" / static_encoder.fingerprint
    now = time.time()
    for shard in cache.iterdir():
        os.utime(shard, (now - 40 * DAY,) * 2)
    night = replace(night, as_of=night.as_of + timedelta(days=1))
    assert done(do_night, night, "third", tmp_path / "encoded") == 0
    for one in removable(night.home, keep, now=now + 20 * DAY):
        assert one.kind == "vectors"
        for path in one.paths:
            shutil.rmtree(path)
    kept = VectorCache(cache.parent, fingerprint=cache.name, dimension=static_encoder.dimension)
    assert (kept.find(hash_texts(sorted(stays))) >= 0).all()
    assert (kept.find(hash_texts(sorted(gone))) < 0).all()
