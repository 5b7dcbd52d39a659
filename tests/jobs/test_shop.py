import math
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from jobs.shop import Shop, broken, make_shop, write_shop
from jobs.shop_world import AFTER_DAYS, BEHAVIOURS

END = datetime(2025, 6, 1)
SOURCES = ("items", "users", "events", "reviews")


@pytest.fixture(scope="module")
def shop() -> Shop:
    return make_shop()


@pytest.fixture(scope="module")
def corner_shop() -> Shop:
    return make_shop(users=30, items=12, days=40, seed=3)


def with_positions(frame: pl.DataFrame, shop: Shop) -> pl.DataFrame:
    """Adds user, item and day counted from the first day."""
    first = datetime.combine(shop.world.first, datetime.min.time())
    return frame.with_columns(
        user=(pl.col("user_id") - 10_000) // 3,
        item=pl.col("item_id").str.slice(1).cast(pl.Int64),
        day=(pl.col("ts") - first).dt.total_days(),
    )


def test_the_default_shop_has_the_promised_size(shop: Shop):
    counts = dict(shop.events.group_by("behaviour").len().iter_rows())
    assert set(counts) == set(BEHAVIOURS)
    assert 150_000 < counts["view"] < 250_000
    assert counts["view"] > counts["click"] > counts["cart"] > counts["purchase"]
    assert 8_000 < counts["purchase"] < 15_000
    assert 4_000 < len(shop.reviews) < 8_000
    assert (len(shop.users), len(shop.items)) == (3000, 600)
    assert shop.items["category"].n_unique() == 10


def test_the_same_arguments_give_the_same_shop_and_another_seed_another_one():
    first, again, other = (make_shop(users=70, items=20, days=40, seed=s) for s in (5, 5, 6))
    for name in SOURCES:
        assert_frame_equal(getattr(first, name), getattr(again, name))
        assert not getattr(first, name).equals(getattr(other, name))


def test_columns_and_types_keep_the_source_contracts(shop: Shop):
    moment = pl.Datetime("us")
    text = dict.fromkeys(("item_id", "title", "description", "category", "brand"), pl.String)
    assert shop.items.schema == text | {
        "price": pl.Float64,
        "available": pl.Boolean,
        "created_at": moment,
    }
    assert shop.users.schema == {
        "user_id": pl.Int64,
        "consent": pl.Boolean,
        "created_at": moment,
        "country": pl.String,
    }
    pair = {"user_id": pl.Int64, "item_id": pl.String, "ts": moment}
    assert shop.events.schema == pair | {"behaviour": pl.String, "value": pl.Float64}
    review = {"title": pl.String, "text": pl.String, "rating": pl.Float64}
    assert shop.reviews.schema == pair | review
    for frame in (shop.events, shop.reviews):
        assert frame["ts"].is_sorted()
        assert frame.select("user_id", "item_id", "ts").null_count().sum_horizontal().item() == 0
    assert not shop.events.is_duplicated().any()
    assert shop.items["item_id"].is_sorted()
    assert shop.users["user_id"].is_sorted()


def test_only_purchases_have_a_value_and_it_is_the_price(shop: Shop):
    priced = shop.events.join(shop.items, on="item_id")
    bought = pl.col("behaviour") == "purchase"
    assert priced.filter(bought & (pl.col("value") != pl.col("price"))).is_empty()
    assert priced.filter(bought.not_())["value"].null_count() == len(priced.filter(bought.not_()))


def test_no_step_of_the_funnel_comes_without_the_one_before_it_that_day(shop: Shop):
    pair_and_day = ("user_id", "item_id", pl.col("ts").dt.date())
    so_far = shop.events.select(
        (pl.col("behaviour") == b).cum_sum().over(pair_and_day).alias(b) for b in BEHAVIOURS
    )
    for earlier, later in pairwise(BEHAVIOURS):
        assert so_far.filter(pl.col(later) > pl.col(earlier)).is_empty()


def test_items_are_seen_only_after_they_are_created_and_while_they_are_sold(shop: Shop):
    seen = with_positions(shop.events, shop).join(shop.items, on="item_id")
    assert seen.filter(pl.col("ts") <= pl.col("created_at")).is_empty()
    withdrawn = seen.filter(pl.col("available").not_())
    assert withdrawn["item_id"].n_unique() > 20
    assert withdrawn["ts"].max() < END
    until = shop.world.item_until[seen["item"].to_numpy()]
    assert (seen["day"].to_numpy() < until).all()


def test_some_items_are_brand_new_at_the_end_and_some_come_later(shop: Shop):
    created = shop.items["created_at"]
    new = created.is_between(END - timedelta(days=14), END, closed="left")
    assert new.sum() == 30
    assert (created >= END).sum() == 6
    assert ((created >= END - timedelta(days=240)) & (created < END)).sum() > 100
    early = shop.events.filter(pl.col("ts") < END)["item_id"].implode()
    assert shop.items.filter(new, pl.col("item_id").is_in(early).not_()).height > 0
    assert shop.items.filter(new, pl.col("item_id").is_in(early)).height > 0


def test_users_act_only_between_registration_and_leaving(shop: Shop):
    world = shop.world
    acts = with_positions(shop.events, shop).join(shop.users, on="user_id")
    assert acts.filter(pl.col("ts") <= pl.col("created_at")).is_empty()
    user, day = acts["user"].to_numpy(), acts["day"].to_numpy()
    assert (world.user_from[user] <= day).all()
    assert (day < world.user_until[user]).all()
    left = (world.user_until < 240 + AFTER_DAYS) & (world.user_until > world.user_from)
    assert 0.12 < left.mean() < 0.25
    silent = ~np.isin(np.arange(3000), user)
    assert silent[world.user_until == world.user_from].all()
    assert 0.05 < silent.mean() < 0.15


def test_consent_is_given_refused_or_unknown(shop: Shop):
    consent = shop.users["consent"]
    assert 0.12 < (~consent).sum() / 3000 < 0.18
    assert 50 < consent.null_count() < 130


def test_seasons_show_in_what_is_looked_at(shop: Shop):
    views = shop.events.filter(pl.col("behaviour") == "view").join(shop.items, on="item_id")
    garden = views.group_by(pl.col("ts").dt.month()).agg((pl.col("category") == "garden").mean())
    share = dict(garden.iter_rows())
    assert share[5] > 2 * share[12]
    toys = views.group_by(pl.col("ts").dt.month()).agg((pl.col("category") == "toys").mean())
    share = dict(toys.iter_rows())
    assert share[12] > 2 * share[6]


def test_later_rows_follow_the_end(shop: Shop):
    for frame in (shop.events, shop.reviews):
        assert frame.filter(pl.col("ts") >= END).height > 0.05 * len(frame)
        assert frame["ts"].max() < END + timedelta(days=AFTER_DAYS)
        assert frame["ts"].min() >= END - timedelta(days=240)
    assert (shop.users["created_at"] >= END).any()


def test_every_review_follows_a_purchase_of_the_pair(shop: Shop):
    bought = shop.events.filter(pl.col("behaviour") == "purchase")
    pairs = shop.reviews.join(
        bought.group_by("user_id", "item_id").agg(bought_at=pl.col("ts").min()),
        on=["user_id", "item_id"],
        how="left",
    )
    assert pairs["bought_at"].null_count() == 0
    wait = (pairs["ts"] - pairs["bought_at"]).dt.total_hours()
    assert wait.min() >= 24
    assert 0.35 < len(shop.reviews) / len(bought) < 0.5


def test_ratings_follow_taste_and_quality(shop: Shop):
    rated = with_positions(shop.reviews, shop)
    user, item = rated["user"].to_numpy(), rated["item"].to_numpy()
    rating = rated["rating"].to_numpy()
    assert set(rating) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert np.corrcoef(rating, shop.world.match(user, item))[0, 1] > 0.3
    assert np.corrcoef(rating, shop.world.quality[item])[0, 1] > 0.3


def test_review_texts_sound_like_their_rating(shop: Shop):
    texts = shop.reviews.drop_nulls("text")
    said = texts["text"]
    glad = said.str.contains("love this|joy to use|be happier")
    sorry = said.str.contains("regret|let me down|Expected far more")
    assert glad.to_list() == (texts["rating"] >= 4).to_list()
    assert sorry.to_list() == (texts["rating"] <= 2).to_list()
    assert said.str.contains("nightlight|duvet|chisel").any()
    assert said.str.contains(r"[{}|]").sum() == 0


def test_some_reviews_are_only_ratings_and_some_hold_html(shop: Shop):
    without = shop.reviews["text"].is_null()
    assert 0.1 < without.mean() < 0.2
    assert shop.reviews["title"].is_null().equals(without)
    html = shop.reviews["text"].str.contains(r"<br />|&amp;|&#39;")
    assert 0.03 < html.sum() / len(html) < 0.09


def test_an_encoder_tells_the_topics_apart(shop: Shop):
    """Nearest neighbour by real static word vectors: same topic far beyond chance (1 in 20)."""
    pytest.importorskip("wordllama")
    vectors = encode(shop.items.select(pl.concat_str("title", pl.col("description").fill_null("")))
                     .to_series().to_list())  # fmt: skip
    originals = np.flatnonzero(shop.world.design == np.arange(600))
    close = vectors[originals] @ vectors[originals].T
    np.fill_diagonal(close, -1)
    topic = shop.world.topics.argmax(axis=1)[originals]
    assert (topic[close.argmax(axis=1)] == topic).mean() > 0.9


def test_near_variants_share_design_and_roughly_the_price(shop: Shop):
    variant = np.flatnonzero(shop.world.design != np.arange(600))
    assert len(variant) == 75
    titles = shop.items["title"].str.extract(r"^(.*),", 1)
    original = shop.world.design[variant]
    assert titles[variant].to_list() == titles[original].to_list()
    assert np.array_equal(shop.world.topics[variant], shop.world.topics[original])
    assert (shop.items["price"][variant] / shop.items["price"][original]).is_between(0.6, 1.6).all()


def encode(texts: list[str]) -> np.ndarray:
    """Mean of wordllama's token vectors, normalised."""
    from importlib.resources import files

    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    home = files("wordllama")
    tokenizer = Tokenizer.from_file(str(home / "tokenizers/l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    (table,) = load_file(str(home / "weights/l2_supercat_256.safetensors")).values()
    tokens = tokenizer.encode_batch(texts, add_special_tokens=False)
    means = np.stack([table[t.ids].astype(np.float32).mean(axis=0) for t in tokens])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.mark.parametrize("broken_rows", [True, False])
def test_written_files_hold_the_shop_and_then_the_broken_rows(
    corner_shop: Shop, tmp_path, broken_rows: bool
):
    folder = tmp_path / "new" / "shop"
    write_shop(corner_shop, folder, broken_rows=broken_rows)
    assert sorted(f.name for f in folder.iterdir()) == sorted(f"{n}.parquet" for n in SOURCES)
    for name in SOURCES:
        good, written = getattr(corner_shop, name), pl.read_parquet(folder / f"{name}.parquet")
        assert_frame_equal(written.head(len(good)), good)
        if broken_rows:
            assert_frame_equal(written.slice(len(good)), broken(corner_shop)[name])
        else:
            assert len(written) == len(good)


def test_broken_rows_break_what_they_say_and_are_few(shop: Shop):
    rows = broken(shop)
    events, reviews = rows["events"], rows["reviews"]
    assert rows["items"]["price"].is_nan().to_list() == [True]
    assert rows["items"]["item_id"].to_list() == ["I90000"]
    assert rows["users"]["user_id"].to_list() == [None]
    assert events["item_id"].is_null().to_list() == [True, *[False] * 5]
    assert events["ts"].is_null().to_list() == [False, True, *[False] * 4]
    assert events["behaviour"][2] == "teleport"
    assert events["item_id"][3] == reviews["item_id"][0] == "I99999"
    assert "I99999" not in shop.items["item_id"]
    assert events["behaviour"][4] == "purchase"
    assert math.isnan(events["value"][4])
    assert events.row(5) == shop.events.row(5)
    assert math.isnan(reviews["rating"][1])
    assert reviews["user_id"][2] is None
    for name, extra in rows.items():
        assert len(extra) < 0.002 * len(getattr(shop, name))


@settings(max_examples=15)
@given(
    users=st.integers(1, 70),
    items=st.integers(10, 40),
    days=st.integers(30, 50),
    seed=st.integers(0, 2**32),
)
def test_small_shops_are_whole(users: int, items: int, days: int, seed: int):
    small = make_shop(users=users, items=items, days=days, seed=seed)
    assert len(small.users) == users
    assert len(small.items) == items
    assert np.isfinite(small.world.pace).all()
    assert np.isfinite(small.world.pull).all()
    assert small.events["ts"].null_count() == 0
    assert small.events.schema == make_shop(users=1, items=10, days=30).events.schema
    assert (~small.items["available"]).any()


@pytest.mark.parametrize("size", [{"users": 0}, {"items": 9}, {"days": 29}])
def test_a_shop_too_small_is_refused(size: dict):
    with pytest.raises(ValueError, match="at least 1 user, 10 items and 30 days"):
        make_shop(**size)
