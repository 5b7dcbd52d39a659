from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ITEMS, USERS, checkerboard, make_snapshot

from index.candidates import propose
from index.generators import GENERATORS
from index.misses import REASONS, account
from index.snapshot import Snapshot

SCHEMA = {"user": pl.Int32, "item": pl.Int32}
EVERYBODY = np.arange(USERS, dtype=np.int32)
EVERY_PAIR = pl.DataFrame(
    [(user, item) for user in range(USERS) for item in range(ITEMS)], SCHEMA, orient="row"
)


def test_reasons_by_hand() -> None:
    # Item 0 was bought three times, 1 twice, 2 once; who buys 0 buys 1. Item 5 is not known yet.
    bought = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 2)]
    eligible = np.array([True] * 5 + [False])
    world = make_snapshot(bought, shape=(4, 6), eligible=eligible)
    targets = pl.DataFrame(
        [(3, 1), (3, 0), (1, 3), (0, 5), (0, 3), (0, 2), (0, 1), (0, 0)], SCHEMA, orient="row"
    )
    told = account(world, targets, budgets={"popular": 2, "cooccurrence": 2}, per_user=1)
    # Popular proposes 1, 2 to user 0, only 2 to user 1, and 0, 1 to user 3; co-occurrence 1 to
    # user 0 and nothing to the others.
    assert told.rows() == [
        (0, 0, "popular", None, "excluded"),
        (0, 0, "cooccurrence", None, "excluded"),
        (0, 0, "all", None, "excluded"),
        (0, 1, "popular", 1, "proposed"),
        (0, 1, "cooccurrence", 1, "proposed"),
        (0, 1, "all", 1, "proposed"),
        (0, 2, "popular", 2, "proposed"),
        (0, 2, "cooccurrence", None, "no link"),
        (0, 2, "all", None, "cut off"),
        (0, 3, "popular", None, "cut off"),
        (0, 3, "cooccurrence", None, "no link"),
        (0, 3, "all", None, "no link"),
        (0, 5, "popular", None, "new item"),
        (0, 5, "cooccurrence", None, "new item"),
        (0, 5, "all", None, "new item"),
        (1, 3, "popular", None, "no link"),
        (1, 3, "cooccurrence", None, "no link"),
        (1, 3, "all", None, "no link"),
        (3, 0, "popular", 1, "proposed"),
        (3, 0, "cooccurrence", None, "no link"),
        (3, 0, "all", 1, "proposed"),
        (3, 1, "popular", 2, "proposed"),
        (3, 1, "cooccurrence", None, "no link"),
        (3, 1, "all", None, "cut off"),
    ]


def test_a_full_list_cuts_off_only_what_leads_somewhere() -> None:
    # Who buys 0 buys 1 twice and 2 once: one place is 1's, 2 would come later, 3 never.
    bought = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 2)]
    targets = pl.DataFrame([(0, 1), (0, 2), (0, 3)], SCHEMA, orient="row")
    world = make_snapshot(bought, shape=(4, 4))
    told = account(world, targets, budgets={"cooccurrence": 1}, per_user=4)
    of_generator = told.filter(generator="cooccurrence").get_column("reason").to_list()
    assert of_generator == ["proposed", "cut off", "no link"]
    in_all = told.filter(generator="all").get_column("reason").to_list()
    assert in_all == ["proposed", "no link", "no link"]


@cache  # its indexes are built once
def random_world(seed: int) -> Snapshot:
    rng = np.random.default_rng(seed)

    def pairs(n: int) -> list[tuple[int, int]]:
        return list(zip(*(rng.integers(0, top, n).tolist() for top in (USERS, ITEMS)), strict=True))

    bought, reviewed = pairs(25), pairs(8)
    vectors = rng.normal(size=(ITEMS + len(reviewed), 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.integers(0, ITEMS, 2)] = 0
    world = make_snapshot(
        bought,
        days_ago=rng.uniform(0.1, 90, len(bought)).tolist(),
        excluded=pairs(15),
        eligible=rng.random(ITEMS) < 0.8,
        reviews=reviewed,
        item_vectors=vectors[:ITEMS],
        review_vectors=vectors[ITEMS:],
        attributes={"brand": rng.choice(["a", "b", "c"], ITEMS).tolist()},
        item_age=rng.uniform(0, 60, ITEMS).tolist(),
    )
    answers = np.hstack([world.item_vectors, np.ones((ITEMS, 1), np.float32)])
    return replace(world, answers=answers)


seeds = st.integers(0, 4)


@settings(max_examples=25)
@given(seed=seeds, per_user=st.integers(1, 8), k=st.integers(1, 4))
def test_ranks_and_reasons_agree_with_the_candidates(seed: int, per_user: int, k: int) -> None:
    world, budgets = random_world(seed), dict.fromkeys(GENERATORS, k)
    told = account(world, EVERY_PAIR, budgets=budgets, per_user=per_user)
    assert len(told) == len(EVERY_PAIR) * (len(budgets) + 1)
    assert told.filter((pl.col("reason") == "proposed") != pl.col("rank").is_not_null()).is_empty()
    # A pair has the union's rank r where a cap of r keeps it and one of r - 1 does not.
    capped = [propose(world, EVERYBODY, budgets=budgets, per_user=n + 1) for n in range(ITEMS)]
    kept = pl.concat(capped[:per_user]).group_by("user", "item").len()
    rank = pl.lit(per_user + 1) - pl.col("len")
    ranks = {"all": kept.select("user", "item", rank=rank.cast(pl.Int32))}
    for name in budgets:
        rank = pl.col(f"rank_{name}").cast(pl.Int32)
        ranks[name] = capped[-1].select("user", "item", rank=rank).drop_nulls()
    for name, expected in ranks.items():
        found = told.filter(pl.col("generator") == name, pl.col("rank").is_not_null())
        assert found.select("user", "item", "rank").equals(expected.sort("user", "item")), name
    cut_off = told.filter(generator="all", reason="cut off").select("user", "item")
    beyond = capped[-1].join(capped[per_user - 1], on=["user", "item"], how="anti")
    assert cut_off.equals(beyond.select("user", "item"))


@settings(max_examples=15)
@given(seed=seeds, k=st.integers(1, 4))
def test_reasons_agree_with_lists_without_a_limit(seed: int, k: int) -> None:
    world = random_world(seed)
    told = account(world, EVERY_PAIR, budgets=dict.fromkeys(GENERATORS, k), per_user=ITEMS)
    barred = world.excluded.toarray() > 0
    for name, generator in GENERATORS.items():
        unlimited = generator(world, EVERYBODY, ITEMS)
        length = (generator(world, EVERYBODY, k).items >= 0).sum(axis=1)
        for user, item, reason in (
            told.filter(pl.col("generator") == name).select("user", "item", "reason").iter_rows()
        ):
            reached = item in unlimited.items[user]
            if not world.eligible[item]:
                assert reason == "new item"
            elif barred[user, item]:
                assert reason == "excluded"
            elif reason == "cut off":
                assert length[user] == k
                assert reached or unlimited.score_of is None, (name, user, item)
            elif reason == "no link" and name != "reviews":  # it asks for more reviews with more k
                assert not reached, (name, user, item)


@pytest.mark.parametrize("size", [1, 4])
def test_shards_change_no_row(size: int) -> None:
    world = checkerboard()
    options = {"budgets": {"nearest": 2, "popular": 3, "history": 1}, "per_user": 3}
    parts = [
        account(world, EVERY_PAIR.filter(pl.col("user").is_between(u, u + size - 1)), **options)
        for u in range(0, USERS, size)
    ]
    whole = account(world, EVERY_PAIR.sample(fraction=1, shuffle=True, seed=3), **options)
    assert pl.concat(parts).equals(whole)
    assert set(whole.get_column("reason")) <= set(REASONS)


def test_without_targets_there_are_no_rows() -> None:
    told = account(checkerboard(), EVERY_PAIR.clear(), budgets={"popular": 2}, per_user=2)
    assert told.is_empty()
    assert told.columns == ["user", "item", "generator", "rank", "reason"]
