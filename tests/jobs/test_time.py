"""Time is the enemy: rows at or after `as_of` change nothing that is computed before it."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from nights import ALL_GENERATORS, AS_OF, make_material, write_night
from polars.testing import assert_frame_equal

from embed import Encoder
from jobs.nightly import Night
from jobs.state import Material, State
from rank.features import GROUPS
from rank.projection import Projection
from rank.reasons import FAMILIES
from rank.sentiment import NEUTRAL
from rank.tables import ITEM_TABLES

# Views are taken as impressions, so that what is made of those is under the test too.
WITH_IMPRESSIONS = ALL_GENERATORS.replace("{ view = 0.2,", "{").replace(
    "[events]", '[events]\nimpressions = "view"'
)
EARLIER = AS_OF - timedelta(days=30)
BEHAVIOURS = ("view", "click", "cart", "purchase")


def snapshot_of(material: Material, as_of: datetime) -> dict[str, pl.DataFrame]:
    """Profiles, candidates and features at `as_of`, by id."""
    projection = material.fit_projection(as_of)
    state = State(material, as_of, projection)
    pairs = state.candidates(state.users)
    ids = {
        "user_id": state.inputs.users["user_id"].gather(pairs["user"]),
        "item_id": state.inputs.items["item_id"].gather(pairs["item"]),
    }
    profiles = pl.DataFrame(state.snapshot.profiles(state.users))
    known = state.inputs.users["user_id"].gather(state.users)
    return {
        "profiles": profiles.with_columns(user_id=known),
        "candidates": pairs.drop("user", "item").with_columns(**ids),
        "features": state.describe(pairs),
        "evidence": evidence_of(state, pairs),
        "user_features": state.describe_users().with_columns(user_id=known),
        "drawn": pl.DataFrame({"drawn": state.drawn(pairs, 0.2)}),
        "projection": pl.DataFrame(projection.components),
        "sentiment": state.reviews.select("ts", "rating", "sentiment"),
    }


def evidence_of(state: State, pairs: pl.DataFrame) -> pl.DataFrame:
    """What every family would show for the candidates, by id."""
    evidence, inputs = state.evidence, state.inputs
    row = np.searchsorted(state.users, pairs["user"])
    profiles = state.snapshot.profiles(state.users)[row]
    shown = []
    for family in FAMILIES:
        found = evidence(family, pairs, profiles)
        author = inputs.reviews["user"].gather(found["review"])
        ids = {
            "item": inputs.items["item_id"].gather(found["item"]),
            "author": inputs.users["user_id"].gather(author),
        }
        shown.append(found.drop("item", "review").with_columns(family=pl.lit(family), **ids))
    return pl.concat(shown)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """Every third review has no rating, so that its text must be judged."""
    toml = WITH_IMPRESSIONS.replace("[events]", "[reviews]\nleast_rated = 20\n\n[events]")
    night = write_night(tmp_path_factory.mktemp("time"), toml)
    path = night.root / "reviews.parquet"
    unrated = pl.when(pl.int_range(pl.len()) % 3 > 0).then("rating")
    pl.read_parquet(path).with_columns(rating=unrated).write_parquet(path)
    return night


@pytest.fixture(scope="module")
def before(night: Night, static_encoder: Encoder) -> dict[datetime, dict[str, pl.DataFrame]]:
    material = make_material(night, static_encoder)
    return {as_of: snapshot_of(material, as_of) for as_of in (EARLIER, AS_OF)}


later = st.integers(0, 10**6).map(lambda seconds: timedelta(seconds=seconds))


@settings(
    max_examples=6,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(as_of=st.sampled_from([EARLIER, AS_OF]), seed=st.integers(0, 2**16), after=later)
def test_later_rows_in_every_source_change_nothing(
    as_of: datetime,
    seed: int,
    after: timedelta,
    night: Night,
    before: dict[datetime, dict[str, pl.DataFrame]],
    static_encoder: Encoder,
    tmp_path: Path,
) -> None:
    rows = later_rows(night.root, as_of + after, seed)
    material = with_rows(night, rows, tmp_path, static_encoder)
    added = material.inputs.report.get_column("read").sum() - sum(
        pl.read_parquet(night.root / f"{source}.parquet").height
        for source in ("items", "users", "events", "reviews")
    )
    assert added >= 4
    for name, frame in snapshot_of(material, as_of).items():
        assert_frame_equal(frame, before[as_of][name], check_exact=True)


def test_a_feature_that_sees_later_rows_is_named_by_the_test(
    night: Night, static_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault planted on purpose: how often an item is used whenever, `as_of` or not."""
    shown = []
    for folder, rows in (("old", {}), ("new", later_rows(night.root, EARLIER, seed=0))):
        material = with_rows(night, rows, tmp_path / folder, static_encoder)
        items, n_items = material.inputs.events["item"], len(material.inputs.items)
        used = np.bincount(items, minlength=n_items)
        monkeypatch.setitem(ITEM_TABLES, "planted", lambda _, used=used: {"item_planted": used})
        shown.append(snapshot_of(material, EARLIER)["features"])
    with pytest.raises(AssertionError, match='"item_planted"'):
        assert_frame_equal(shown[1], shown[0], check_exact=True)
    assert_frame_equal(*(frame.drop("item_planted") for frame in shown), check_exact=True)


def with_rows(
    night: Night, rows: dict[str, pl.DataFrame], folder: Path, encoder: Encoder
) -> Material:
    """The night's material with more rows, which stand before the old ones."""
    folder.mkdir(exist_ok=True)
    for source in ("items", "users", "events", "reviews"):
        old = pl.read_parquet(night.root / f"{source}.parquet")
        more = rows[source].cast(old.schema) if rows else old.clear()
        pl.concat([more, old]).write_parquet(folder / f"{source}.parquet")
    moved = Night(config=night.config, as_of=AS_OF, root=folder, home=night.home)
    return make_material(moved, encoder)


def later_rows(root: Path, ts: datetime, seed: int) -> dict[str, pl.DataFrame]:
    """Rows at `ts` for old and new users and items, sorting before and between the old ids."""
    rng = np.random.default_rng(seed)
    users = pl.read_parquet(root / "users.parquet").drop_nulls("user_id").sample(8, seed=seed)
    items = pl.read_parquet(root / "items.parquet").drop_nulls("item_id").sample(8, seed=seed)
    new_items = items.with_columns(
        item_id=pl.format("I{}x", pl.int_range(pl.len())), created_at=pl.lit(ts)
    )
    new_users = users.with_columns(
        user_id=pl.int_range(pl.len(), dtype=pl.Int64), created_at=pl.lit(ts)
    )
    known_users, known_items = users["user_id"].to_list(), items["item_id"].to_list()
    n = 60
    events = {
        "user_id": rng.choice([*known_users, *new_users["user_id"]], n),
        "item_id": rng.choice([*known_items, *new_items["item_id"]], n),
        "ts": [ts] * n,
        "behaviour": rng.choice(BEHAVIOURS, n),
        "value": rng.uniform(1, 9, n).round(2),
    }
    reviews = {
        "user_id": rng.choice(known_users, 9),
        "item_id": rng.choice(known_items, 9),
        "ts": [ts] * 9,
        "title": ["Later"] * 9,
        "text": [f"written after the fact {word}" for word in rng.integers(0, 99, 9)],
        "rating": rng.integers(1, 6, 9),
    }
    return {
        "items": new_items,
        "users": new_users,
        "events": pl.DataFrame(events),
        "reviews": pl.DataFrame(reviews),
    }


def test_a_row_one_microsecond_earlier_does_change_something(
    night: Night, before: dict[datetime, dict[str, pl.DataFrame]], static_encoder: Encoder, tmp_path
) -> None:
    rows = later_rows(night.root, AS_OF - timedelta(microseconds=1), seed=0)
    now = snapshot_of(with_rows(night, rows, tmp_path, static_encoder), AS_OF)
    assert not now["features"].equals(before[AS_OF]["features"])
    assert not now["profiles"].equals(before[AS_OF]["profiles"])
    assert not now["evidence"].equals(before[AS_OF]["evidence"])


def test_texts_without_a_rating_are_judged(before: dict[datetime, dict[str, pl.DataFrame]]) -> None:
    """Else the property above would say nothing of the head that judges them."""
    for frames in before.values():
        unrated = frames["sentiment"].filter(pl.col("rating").is_null())
        judged = unrated.filter(pl.col("sentiment") != NEUTRAL)
        assert len(judged) > len(unrated) / 2


def test_every_feature_group_is_under_the_test(
    before: dict[datetime, dict[str, pl.DataFrame]], night: Night, static_encoder: Encoder
) -> None:
    material = make_material(night, static_encoder)
    projection: Projection = material.fit_projection(AS_OF)
    whole, shared = set(before[AS_OF]["features"].columns), {}
    for group in GROUPS:
        state = State(material, AS_OF, projection, without=(group,), snapshots=shared)
        pairs = state.candidates(state.users[:5])
        assert set(state.describe(pairs).columns) < whole, group
