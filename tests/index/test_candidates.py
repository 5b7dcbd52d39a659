import numpy as np
import polars as pl
import pytest
from worlds import ITEMS, USERS, checkerboard

from index.candidates import propose
from index.generators import GENERATORS

BUDGETS = {"nearest": 3, "reviews": 2, "cooccurrence": 4, "popular": 5, "history": 2}


def test_the_union_holds_each_generators_ranks_and_scores() -> None:
    world, users = checkerboard(), np.array([1, 4, 8], dtype=np.int32)
    pairs = propose(world, users, budgets=BUDGETS, per_user=ITEMS)
    assert pairs.select("user", "item").is_duplicated().sum() == 0
    assert pairs.equals(pairs.sort("user", "item"))
    for name, k in BUDGETS.items():
        items, scores, _ = GENERATORS[name](world, users, k)
        expected = {
            (int(user), int(items[row, place])): (place + 1, float(scores[row, place]))
            for row, user in enumerate(users)
            for place in range(items.shape[1])
            if items[row, place] >= 0
        }
        named = pairs.filter(pl.col(f"rank_{name}").is_not_null())
        found = {
            (user, item): (rank, score)
            for user, item, rank, score in named.select(
                "user", "item", f"rank_{name}", f"score_{name}"
            ).iter_rows()
        }
        assert found == expected


def test_a_two_tower_score_is_given_for_every_pair_and_its_share_is_of_the_odds() -> None:
    world, users = checkerboard(), np.arange(USERS, dtype=np.int32)
    budgets = {"two_tower": 2, "popular": ITEMS}
    pairs = propose(world, users, budgets=budgets, per_user=ITEMS)
    assert pairs.get_column("rank_two_tower").null_count() > 0
    user, item = (pairs.get_column(name).to_numpy() for name in ("user", "item"))
    odds = np.sum(world.questions(users)[user] * world.answers[item], axis=1)
    np.testing.assert_allclose(pairs.get_column("score_two_tower"), odds, rtol=1e-5, atol=1e-6)
    best = np.array([odds[user == u].max() for u in user])
    np.testing.assert_allclose(pairs.get_column("share_two_tower"), np.exp(odds - best), rtol=1e-5)


def test_the_cap_keeps_the_best_by_reciprocal_rank_fusion() -> None:
    world, users = checkerboard(), np.arange(USERS, dtype=np.int32)
    everything = propose(world, users, budgets=BUDGETS, per_user=ITEMS)
    fused = everything.with_columns(
        fused=pl.sum_horizontal((1 / (60 + pl.col("^rank_.*$"))).fill_null(0.0))
    ).sort("user", "fused", "item", descending=[False, True, False])
    best = fused.group_by("user", maintain_order=True).head(2).sort("user", "item")
    capped = propose(world, users, budgets=BUDGETS, per_user=2)
    assert capped.equals(best.drop("fused"))


def test_columns_are_those_of_the_generators_asked_in_their_order() -> None:
    users = np.arange(USERS, dtype=np.int32)
    asked = {name: k for name, k in BUDGETS.items() if name != "popular"}
    pairs = propose(checkerboard(), users, budgets=asked, per_user=ITEMS)
    expected = [f"{said}_{name}" for name in asked for said in ("rank", "score", "share")]
    assert pairs.columns == ["user", "item", *expected]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_shards_do_not_change_the_result(size: int) -> None:
    world, users = checkerboard(), np.arange(USERS, dtype=np.int32)
    whole = propose(world, users, budgets=BUDGETS, per_user=5)
    parts = [
        propose(world, users[start : start + size], budgets=BUDGETS, per_user=5)
        for start in range(0, USERS, size)
    ]
    assert pl.concat(parts).equals(whole)


def test_a_share_is_of_the_largest_score_of_the_same_user() -> None:
    users = np.arange(USERS, dtype=np.int32)
    pairs = propose(checkerboard(), users, budgets=BUDGETS, per_user=ITEMS)
    for name in BUDGETS:
        score = pl.col(f"score_{name}")
        expected = pairs.select(score / score.max().over("user")).to_series().fill_null(np.nan)
        share = pairs.get_column(f"share_{name}").fill_null(np.nan)
        np.testing.assert_allclose(share, expected, rtol=1e-6)
    assert pairs.get_column("share_popular").max() == 1.0
