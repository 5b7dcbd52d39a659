"""A shop that has reviews alone: what they say is what is learnt and predicted."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from nights import AS_OF, read, small_shop, write_night

from jobs import nightly
from jobs.config import Config, load_config
from jobs.errors import ConfigError, DataRefused
from jobs.ingest import Inputs, read_inputs
from jobs.nightly import Night
from jobs.shop import write_shop
from jobs.state import Material
from rank.windows import training_windows

REVIEWS_ONLY = """
name = "critics"
[sources]
items = "items.parquet"
reviews = "reviews.parquet"
[encoder]
model = "packaged/wordllama"
[events]
weights = { review = 0.5, like = 2.0 }
from_reviews = { review = "true", like = "rating >= 4" }
implies = { like = "review" }
[candidates]
nearest = 20
reviews = 10
cooccurrence = 20
popular = 40
per_user = 80
[[predict]]
behaviour = "like"
horizon_days = 28
[training]
windows = 2
max_rounds = 20
dimensions = 4
"""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return write_night(tmp_path_factory.mktemp("critics"), REVIEWS_ONLY)


@pytest.fixture(scope="module")
def inputs(night: Night) -> Inputs:
    return read_inputs(night.config, as_of=AS_OF, root=night.root)


def load(folder: Path, text: str) -> Config:
    (folder / "critics.toml").write_text(text)
    return load_config(folder / "critics.toml")


def ask(night: Night, sql: str) -> list[tuple]:
    """Of the reviews' file: its good rows before `AS_OF` are `good`."""
    good = f"""with good as (select r.* from '{night.root}/reviews.parquet' r
        semi join '{night.root}/items.parquet' i using (item_id)
        where user_id is not null and ts < '{AS_OF}'
            and (rating is null or isfinite(rating)))"""
    return duckdb.sql(f"{good} {sql}").fetchall()


def test_events_are_the_reviews_that_fit(night: Night, inputs: Inputs) -> None:
    assert inputs.events.height > 300
    events = inputs.events.select(
        inputs.users["user_id"].gather(inputs.events["user"]),
        inputs.items["item_id"].gather(inputs.events["item"]),
        "ts",
        pl.col("behaviour").cast(pl.String),
    )
    expected = ask(
        night,
        "select user_id, item_id, ts, 'review' from good union all "
        "select user_id, item_id, ts, 'like' from good where rating >= 4",
    )
    assert sorted(events.rows()) == sorted(expected)
    assert inputs.events["ts"].is_sorted()
    assert inputs.events["value"].null_count() == inputs.events.height
    assert inputs.report["source"].to_list() == ["items", "reviews"]


def test_labels_are_first_likes_within_the_horizon(night: Night, inputs: Inputs) -> None:
    material = Material(night.config, inputs, *(pl.DataFrame().to_numpy(),) * 2)
    windows = training_windows(AS_OF, horizon_days=28, train=2)
    counted = 0
    for start in (*windows.train, windows.stop, windows.calibrate, windows.test):
        ((expected,),) = ask(
            night,
            f"""select count(*) from (select user_id, item_id from good where rating >= 4
            group by all having min(ts) >= '{start}' and min(ts) < '{start + timedelta(28)}')
            where user_id in (select user_id from good where ts < '{start}')""",
        )
        assert material.targets("like", start).height == expected, start
        counted += expected
    assert counted > 40


def test_a_shop_of_reviews_alone_gets_its_night(night: Night) -> None:
    nightly.run(night)
    scored = read(night, "select behaviour, horizon_days, probability from predictions")
    assert scored.height > 5_000
    assert scored.select("behaviour", "horizon_days").unique().rows() == [("like", 28)]
    assert scored["probability"].is_between(0, 1, closed="none").all()
    ((likes,),) = ask(night, "select count(*) from good where rating >= 4")
    kept = read(night, "select sum(events)::bigint from user_behaviours where behaviour = 'like'")
    assert kept.item() == likes
    done = read(night, "select distinct user_id, item_id from predictions")
    liked = pl.DataFrame(
        ask(night, "select distinct user_id, item_id from good where rating >= 4"),
        done.schema,
        orient="row",
    )
    assert done.join(liked, on=["user_id", "item_id"], how="semi").is_empty()


def test_events_of_both_kinds_stand_together(tmp_path: Path) -> None:
    text = REVIEWS_ONLY.replace("review = 0.5", "view = 0.5").replace('review = "true", ', "")
    text = text.replace('implies = { like = "review" }', "").replace(".parquet", ".csv")
    config = load(tmp_path, text.replace("[sources]", '[sources]\nevents = "events.csv"'))
    (tmp_path / "items.csv").write_text("item_id,title\na,A\n")
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,ts,behaviour\nu1,a,2025-01-02,view\nu2,a,2025-01-01,like\n"
    )
    (tmp_path / "reviews.csv").write_text(
        "user_id,item_id,ts,rating\nu0,a,2025-01-02,5\nu3,a,2025-01-02,3\nu4,a,2025-01-02,\n"
    )
    found = read_inputs(config, as_of=AS_OF, root=tmp_path).events
    assert found.select("user", "behaviour").rows() == [(2, "like"), (1, "view"), (0, "like")]


def changed(config: Config, **events: object) -> Config:
    return config.model_copy(update={"events": config.events.model_copy(update=events)})


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("stars >= 4", 'Referenced column "stars" not found'),
        ("rating >=", "syntax error"),
        ("rating >= 4) or (1 = 1", "syntax error"),
        ("rating > avg(rating)", "cannot contain aggregates"),
        ("row_number() over () = 1", "cannot contain window functions"),
        ("rating > (select 3)", "asks for other rows; it must be about one review alone"),
        ("exists (from rows)", "asks for other rows"),
        ("title::integer > 1", "Could not convert string"),
    ],
)
def test_a_condition_that_is_none_is_named(night: Night, condition: str, said: str) -> None:
    config = changed(night.config, from_reviews={"like": condition})
    with pytest.raises(ConfigError) as error:
        read_inputs(config, as_of=AS_OF, root=night.root)
    assert str(error.value).startswith(f"events.from_reviews.like = {condition!r}: ")
    assert said in str(error.value)


def test_a_condition_that_never_holds_refuses_the_night(night: Night) -> None:
    config = changed(night.config, from_reviews={"like": "rating >= 40"})
    with pytest.raises(DataRefused, match=r"'rating >= 40' holds for none of the .* reviews bef"):
        nightly.run(replace(night, config=config))


def test_a_comment_and_other_columns_may_stand_in_a_condition(night: Night) -> None:
    condition = "rating >= 4 and length(text) > 20 and item_id != 'x' -- those with a text"
    found = read_inputs(
        changed(night.config, from_reviews={"like": condition}), as_of=AS_OF, root=night.root
    )
    ((expected,),) = ask(night, "select count(*) from good where rating >= 4 and length(text) > 20")
    assert found.events.height == expected > 50


def test_the_configuration_says_what_is_missing(tmp_path: Path) -> None:
    for old, new, said in (
        ('review = "true", like = "rating >= 4"', "", "'like' has nothing to learn from"),
        ('reviews = "reviews.parquet"', "", "events.from_reviews: 'like' needs sources.reviews"),
        ('{ review = "true"', '{ hate = "true"', "from_reviews: 'hate' is not one of events.weig"),
    ):
        assert old in REVIEWS_ONLY
        with pytest.raises(ConfigError, match=said):
            load(tmp_path, REVIEWS_ONLY.replace(old, new))


def test_reviews_that_come_later_change_no_event(night: Night, tmp_path: Path) -> None:
    write_shop(small_shop(), tmp_path)
    old = pl.read_parquet(tmp_path / "reviews.parquet")
    later = old.filter(pl.col("ts") < AS_OF).with_columns(ts=pl.lit(AS_OF).cast(old["ts"].dtype))
    pl.concat([later, old]).write_parquet(tmp_path / "reviews.parquet")
    before = read_inputs(night.config, as_of=AS_OF, root=night.root)
    after = read_inputs(night.config, as_of=AS_OF, root=tmp_path)
    assert after.events.equals(before.events)
    assert after.report.filter(source="reviews")["later"].item() > old.height / 2
