"""Contributions against hand calculation and LightGBM's own."""

import lightgbm
import numpy as np
import pytest

from rank.contributions import MOST_BITS, _read, contributions
from rank.trees import Trees


def grown(
    features: np.ndarray, target: np.ndarray, *, rounds: int = 1, **parameters: object
) -> lightgbm.Booster:
    defaults = {"min_data_in_leaf": 1, "num_threads": 1, "verbosity": -1, "seed": 3}
    data = lightgbm.Dataset(features, target)
    return lightgbm.train(defaults | parameters, data, num_boost_round=rounds)


def trees_of(booster: lightgbm.Booster) -> Trees:
    return Trees(booster.model_to_string(), tuple(booster.feature_name()))


def trees_in(booster: lightgbm.Booster) -> list[dict]:
    return [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]


def test_two_features_that_must_both_hold() -> None:
    """One tree of a AND b over four groups of equal size: split on a first, then on b.

    Of the pair (1, 1): nothing known 1/4; a alone 1/2, b alone 1/2; both 1: 3/8 each.
    Of (1, 0): a alone 1/2, b alone 0, both 0: a is due (1/4 + 0) / 2, b (-1/4 - 1/2) / 2.
    """
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    rows = np.repeat(corners, 25, axis=0)
    booster = grown(
        rows,
        rows.prod(axis=1),
        objective="regression",
        learning_rate=1.0,
        boost_from_average=False,
        num_leaves=3,
        min_data_in_bin=1,
    )
    base, added = contributions(trees_of(booster), corners, np.array([0, 1]))
    assert base == pytest.approx(1 / 4)
    expected = [[-1 / 8, -1 / 8], [-3 / 8, 1 / 8], [1 / 8, -3 / 8], [3 / 8, 3 / 8]]
    if not np.allclose(added.T[1], expected[1]):  # the other feature was split on first
        expected = [row[::-1] for row in (expected[0], expected[2], expected[1], expected[3])]
    np.testing.assert_allclose(added.T, expected, atol=1e-12)


@pytest.mark.parametrize("leaves", [2, 7, 31, 60])
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_they_are_those_of_lightgbm(leaves: int, unknown: float) -> None:
    rng = np.random.default_rng(leaves)
    table = rng.normal(size=(3_000, 30)).astype(np.float32)
    table[rng.random(table.shape) < unknown] = np.nan
    target = np.nan_to_num(table[:, :12]).sum(axis=1) + rng.normal(size=len(table)) > 2
    booster = grown(table, target, rounds=8, objective="binary", num_leaves=leaves)
    asked = rng.normal(size=(200, 30)).astype(np.float32)
    asked[rng.random(asked.shape) < 0.2] = np.nan  # also where training knew all
    theirs = booster.predict(asked, pred_contrib=True)
    base, added = contributions(trees_of(booster), asked, np.arange(30))
    assert base == pytest.approx(theirs[0, -1], abs=1e-12)
    np.testing.assert_allclose(added.T, theirs[:, :-1], atol=1e-12)
    family = np.arange(30) % 4
    base, summed = contributions(trees_of(booster), asked, family)
    np.testing.assert_allclose(summed[1], added[family == 1].sum(axis=0), atol=1e-12)
    raw = booster.predict(asked, raw_score=True)
    np.testing.assert_allclose(base + summed.sum(axis=0), raw, atol=1e-9)


def test_long_ways_to_a_leaf() -> None:
    """More features on one way than a table of patterns would be made for."""
    rng = np.random.default_rng(0)
    table = rng.random((4_000, 24)).astype(np.float32)
    target = (table > 0.2).cumprod(axis=1).sum(axis=1)
    booster = grown(table, target, rounds=2, objective="regression", num_leaves=40)
    asked = rng.random((300, 24)).astype(np.float32)
    base, added = contributions(trees_of(booster), asked, np.arange(24))
    theirs = booster.predict(asked, pred_contrib=True)
    ways = [len(leaf.feature) for tree in trees_in(booster) for leaf in _read(tree)[1]]
    assert max(ways) > MOST_BITS
    np.testing.assert_allclose(added.T, theirs[:, :-1], atol=1e-9)
    assert base == pytest.approx(theirs[0, -1])


def test_a_tree_without_a_split_has_a_base_only() -> None:
    table = np.zeros((50, 2), dtype=np.float32)
    booster = grown(table, np.arange(50) % 2, objective="binary")
    base, added = contributions(trees_of(booster), table[:3], np.array([0, 1]))
    assert added.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert base == pytest.approx(booster.predict(table[:1], raw_score=True)[0])


def test_no_rows_and_splits_that_are_not_understood() -> None:
    table = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    table[:80, 0] = 0
    booster = grown(table, table[:, 0] > 0, objective="binary")
    assert contributions(trees_of(booster), table[:0], np.array([0, 0]))[1].shape == (1, 0)
    sparse = grown(table, table[:, 0] > 0, objective="binary", zero_as_missing=True)
    with pytest.raises(ValueError, match="no contributions of such a split"):
        contributions(trees_of(sparse), table, np.array([0, 0]))
