"""Why a pair scores as it does: families of features, and what each adds to the score."""

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from rank.calibrate import Floats
from rank.contributions import contributions
from rank.trees import Trees

BASE = "base"
SIMILAR = "similar items"
OWN_REVIEWS = "own reviews"
REVIEWS = "reviews of the item"
OTHERS = "what others did"
POPULAR = "popular now"
PRICE = "price"
KIND = "brand and category"
AGAIN = "done before"
DUE = "repeat due"
SHOWN = "shown before"
AGREEMENT = "agreement"
ITEM = "the item"
USER = "the user"

_SAID = "(rank|score|share)_"
_SPAN = "(1d|7d|30d|90d|all)"
_HALF = "(half_(1d|7d|30d)|trend)"
# Family and the columns that belong to it; {B} stands for any behaviour. The first that matches
# counts: columns of attributes may have any name, so those that can hold them come last.
_RULES = (
    (AGREEMENT, "generators"),
    (SIMILAR, f"{_SAID}(nearest|last|last_3|interests|similar|new)"),
    (REVIEWS, f"{_SAID}reviews"),
    (OTHERS, f"{_SAID}(cooccurrence|two_hop|directed|ease|factors|two_tower)"),
    (KIND, f"{_SAID}(attributes|kinds)"),
    (POPULAR, f"{_SAID}(popular|popular_recent|trending)"),
    (AGAIN, f"{_SAID}history"),
    (OWN_REVIEWS, "cosine_own_reviews"),
    (REVIEWS, "cosine_item_reviews"),
    (SIMILAR, "cosine_(profile|last|last_3_mean|last_10_max|last_10_mean)"),
    (SIMILAR, r"cosine_whitened_(\d+|max)"),
    (SIMILAR, "affinity_neighbours|affinity_share_neighbours|affinity_cluster|cluster_lift"),
    (OTHERS, r"log_odds_(\d+|max)"),
    (PRICE, "price|price_gap|price_in_category|price_quantile|price_quantile_gap|user_price"),
    (POPULAR, "neighbours_(popularity|cosine|{B})|cluster_demand"),
    (DUE, "pair_due"),
    (SHOWN, "pair_times_(shown|ignored)|pair_days_since_shown|item_times_shown|item_answer_rate"),
    (AGAIN, f"pair_({{B}}_{_SPAN}|days_since_{{B}})"),
    (POPULAR, f"item_({{B}}_({_SPAN}|{_HALF})|days_since_{{B}})"),
    (POPULAR, "item_(gap_mean|gap_deviation|gaps_since)"),
    (POPULAR, "popularity_.+"),
    (KIND, "affinity_.+"),
    (ITEM, "item_.+"),
    (USER, "user_.+"),
)
FAMILIES = (BASE, *dict.fromkeys(family for family, _ in _RULES))


def family_of(column: str, *, behaviours: Sequence[str]) -> str:
    """The family that a column of `rank.features` belongs to.

    Raises:
        KeyError: no family is known for it.

    >>> family_of("item_buy_7d", behaviours=["buy"]), family_of("item_size", behaviours=["buy"])
    ('popular now', 'the item')
    """
    any_behaviour = "(" + "|".join(map(re.escape, behaviours)) + ")"
    for family, pattern in _RULES:
        if re.fullmatch(pattern.replace("{B}", any_behaviour), column):
            return family
    raise KeyError(f"the feature {column!r} belongs to no family of rank/reasons.py")


def family_contributions(
    trees: Trees, features: pl.DataFrame, *, behaviours: Sequence[str]
) -> dict[str, Floats]:
    """What each family adds to the raw score of each row; with `base`, they sum to it.

    Args:
        trees: a grown model.
        features: (n, f) the rows to explain.
        behaviours: all behaviours that names of features may hold.

    Returns:
        By family, in the order of `FAMILIES`, (n,) log-odds. `base` is the same for all rows.
    """
    names = [family_of(column, behaviours=behaviours) for column in trees.features]
    present = [family for family in FAMILIES if family in names]
    number = np.array([present.index(name) for name in names])
    base, added = contributions(trees, features.select(trees.features).to_numpy(), number)
    found = dict(zip(present, added, strict=True))
    return {BASE: np.full(len(features), base), **found}
