"""Families of features, and their sums against LightGBM's raw score."""

import re
from dataclasses import replace

import lightgbm
import numpy as np
import polars as pl
import pytest

from rank.features import Features
from rank.known import Known
from rank.reasons import _RULES, BASE, FAMILIES, family_contributions, family_of
from rank.trees import Trees

BEHAVIOURS = ("view", "cart", "buy")
FAMILY = {
    "rank_two_tower": "what others did",
    "score_nearest": "similar items",
    "share_reviews": "reviews of the item",
    "rank_kinds": "brand and category",
    "share_popular_recent": "popular now",
    "rank_history": "done before",
    "generators": "agreement",
    "cosine_own_reviews": "own reviews",
    "cosine_whitened_3": "similar items",
    "cosine_whitened_max": "similar items",
    "log_odds_max": "what others did",
    "affinity_cluster": "similar items",
    "affinity_brand": "brand and category",
    "popularity_scent": "popular now",
    "price_quantile_gap": "price",
    "user_price": "price",
    "pair_due": "repeat due",
    "pair_cart_30d": "done before",
    "pair_days_since_view": "done before",
    "pair_times_ignored": "shown before",
    "item_answer_rate": "shown before",
    "item_buy_all": "popular now",
    "item_buy_half_7d": "popular now",
    "item_buy_trend": "popular now",
    "item_buy_per_cart": "the item",
    "item_days_sold": "the item",
    "item_rating": "the item",
    "item_pc_0": "the item",
    "item_volume": "the item",
    "user_pc_0": "the user",
    "user_view_1d": "the user",
    "user_answer_rate": "the user",
    "user_gap_mean": "the user",
    "neighbours_cart": "popular now",
    "cluster_demand": "popular now",
}


def test_columns_belong_where_they_should() -> None:
    assert {c: family_of(c, behaviours=BEHAVIOURS) for c in FAMILY} == FAMILY
    assert set(FAMILY.values()) == set(FAMILIES) - {BASE}


def test_a_behaviour_is_not_a_pattern() -> None:
    names = ["add.to+cart"]
    assert family_of("item_add.to+cart_7d", behaviours=names) == "popular now"
    assert family_of("item_addxto+cart_7d", behaviours=names) == "the item"


@pytest.mark.parametrize("column", ["", "rank_new_generator", "cosine_next", "pair_sold_7d"])
def test_an_unknown_column_is_refused(column: str) -> None:
    with pytest.raises(KeyError, match="belongs to no family"):
        family_of(column, behaviours=BEHAVIOURS)


def test_every_column_of_the_features_has_a_family(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray
) -> None:
    asked = pairs.rename({"rank_text": "rank_nearest", "score_text": "score_nearest"})
    towers = replace(known, asks=known.whitened_items, answers=known.whitened_items)
    columns = Features(towers)(asked, profiles).columns
    families = {family_of(name, behaviours=BEHAVIOURS) for name in columns}
    assert families == set(FAMILIES) - {BASE}


def test_families_and_base_sum_to_the_raw_score(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray
) -> None:
    asked = pairs.rename({"rank_text": "rank_nearest", "score_text": "score_nearest"})
    features = Features(known)(asked, profiles)
    target = np.random.default_rng(3).random(len(pairs)) < 0.3
    data = lightgbm.Dataset(features.to_numpy(), target, feature_name=features.columns)
    parameters = {"objective": "binary", "min_data_in_leaf": 2, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, data, num_boost_round=20)
    trees = Trees(booster.model_to_string(), tuple(features.columns))
    mixed = features.select(pl.lit(0.0).alias("unused"), *reversed(features.columns))
    found = family_contributions(trees, mixed, behaviours=BEHAVIOURS)
    raw = booster.predict(features.to_numpy(), raw_score=True)
    np.testing.assert_allclose(sum(found.values()), raw, atol=1e-6)
    theirs = booster.predict(features.to_numpy(), pred_contrib=True)
    places = [
        place
        for place, name in enumerate(features.columns)
        if family_of(name, behaviours=BEHAVIOURS) == "popular now"
    ]
    np.testing.assert_allclose(found["popular now"], theirs[:, places].sum(axis=1), atol=1e-9)
    np.testing.assert_allclose(found[BASE], theirs[:, -1], atol=1e-9)
    assert set(found) == set(FAMILIES) - {"what others did"}


def test_no_rule_is_hidden_by_an_earlier_one() -> None:
    """Each rule is the first to match one of the examples above, or one of these."""
    others = ["cosine_item_reviews", "cosine_profile", "neighbours_cosine", "item_gap_mean"]
    first = []
    for column in [*FAMILY, *others]:
        for place, (_, pattern) in enumerate(_RULES):
            if re.fullmatch(pattern.replace("{B}", "(view|cart|buy)"), column):
                first.append(place)
                break
    assert set(first) == set(range(len(_RULES)))
