from math import log, log2

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from rank.metrics import (
    USERS_PLACED,
    best_f1_threshold,
    calibration_error,
    log_loss,
    placed,
    positions,
    probability_metrics,
    ranking_metrics,
)

SCHEMA = {"user": pl.Int32, "item": pl.Int32}


def make_pairs(*rows: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def test_probability_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probability = rng.beta(1, 6, 3_000).round(3)  # with ties
    happened = rng.random(3_000) < probability
    ours = probability_metrics(happened, probability, threshold=0.2)
    chosen = probability >= 0.2
    clipped = np.clip(probability, 1e-12, 1 - 1e-12)
    base = np.full(3_000, happened.mean())
    assert ours == pytest.approx(
        {
            "pairs": 3_000,
            "positives": happened.sum(),
            "base_rate": happened.mean(),
            "log_loss": sk.log_loss(happened, clipped),
            "normalised_entropy": sk.log_loss(happened, clipped) / sk.log_loss(happened, base),
            "brier": sk.brier_score_loss(happened, probability),
            "auc": sk.roc_auc_score(happened, probability),
            "calibration_error": ours["calibration_error"],  # held by hand below
            "predicted_over_observed": probability.sum() / happened.sum(),
            "accuracy": sk.accuracy_score(happened, chosen),
            "f1": sk.f1_score(happened, chosen),
        }
    )


def test_hand_worked_probabilities() -> None:
    happened = np.array([True, False, False, True])
    ours = probability_metrics(happened, np.array([0.8, 0.4, 0.2, 0.4]), threshold=0.4)
    assert ours["log_loss"] == pytest.approx(-log(0.8 * 0.6 * 0.8 * 0.4) / 4)
    assert ours["normalised_entropy"] == pytest.approx(ours["log_loss"] / log(2))
    assert ours["brier"] == pytest.approx((0.04 + 0.16 + 0.04 + 0.36) / 4)
    assert ours["auc"] == pytest.approx(3.5 / 4)
    assert ours["predicted_over_observed"] == pytest.approx(0.9)
    assert ours["accuracy"] == 0.75
    assert ours["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))


def test_certain_and_wrong_is_bad_but_finite() -> None:
    assert log_loss(np.array([True]), np.array([0.0])) == pytest.approx(-log(1e-12))


def test_what_is_not_defined_is_nan() -> None:
    none = probability_metrics(np.zeros(4, bool), np.full(4, 0.1), threshold=0.5)
    undefined = {"auc", "normalised_entropy", "predicted_over_observed"}
    assert {name for name, value in none.items() if np.isnan(value)} == undefined
    assert none["f1"] == 0
    every = probability_metrics(np.ones(4, bool), np.full(4, 0.1), threshold=0.5)
    assert {n for n, v in every.items() if np.isnan(v)} == {"auc", "normalised_entropy"}


def test_calibration_error_by_hand() -> None:
    # Bins of two in order of probability: (0.1, 0.2) none, (0.5, 0.7) both, (0.8, 1.0) one.
    happened = np.array([True, False, False, True, False, True])
    probability = np.array([0.5, 0.1, 0.2, 0.7, 0.8, 1.0])
    expected = (abs(0.15 - 0) + abs(0.6 - 1) + abs(0.9 - 0.5)) / 3
    assert calibration_error(happened, probability, bins=3) == pytest.approx(expected)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=25))
def test_no_threshold_beats_the_best(rows: list[tuple[bool, int]]) -> None:
    happened = np.array([h for h, _ in rows] + [True])
    probability = np.array([p for _, p in rows] + [3]) / 8
    best = sk.f1_score(happened, probability >= best_f1_threshold(happened, probability))
    others = [sk.f1_score(happened, probability >= t) for t in np.unique(probability)]
    assert best == pytest.approx(max(others))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), min_size=1, max_size=200))
def test_the_best_threshold_is_the_one_of_scikit_learns_curve(rows: list[tuple[bool, int]]) -> None:
    happened = np.array([h for h, _ in rows] + [True])
    probability = np.array([p for _, p in rows] + [3]) / 50
    precision, recall, thresholds = sk.precision_recall_curve(happened, probability)
    f1 = (2 * precision * recall / np.maximum(precision + recall, 1e-12))[:-1]
    assert best_f1_threshold(happened, probability) == thresholds[f1.argmax()]


def test_without_a_positive_the_lowest_threshold_is_as_good_as_any() -> None:
    assert best_f1_threshold(np.zeros(3, dtype=bool), np.array([0.3, 0.1, 0.2])) == 0.1


def test_no_threshold_is_chosen_from_what_is_not_known() -> None:
    with pytest.raises(ValueError, match="NaN"):
        best_f1_threshold(np.array([True, False]), np.array([0.3, np.nan]))


def test_positions_by_hand() -> None:
    pairs = make_pairs((1, 5), (0, 9), (1, 3), (0, 2), (1, 4), (7, 1))
    score = np.array([0.3, 0.1, 0.3, 0.1, 0.8, -2.0])
    assert positions(pairs, score).tolist() == [3, 2, 2, 1, 1, 1]


@given(
    scores=st.dictionaries(
        st.tuples(st.integers(0, 4), st.integers(0, 9)), st.integers(-2, 2), max_size=30
    )
)
def test_positions_are_those_of_each_users_sorted_list(
    scores: dict[tuple[int, int], int],
) -> None:
    pairs = pl.DataFrame(list(scores), {"user": pl.Int32, "item": pl.Int32}, orient="row")
    found = positions(pairs, np.array(list(scores.values()), dtype=float))
    lists: dict[int, list[tuple[int, int]]] = {}
    for (user, item), score in scores.items():
        lists.setdefault(user, []).append((-score, item))
    expected = [
        sorted(lists[user]).index((-score, item)) + 1 for (user, item), score in scores.items()
    ]
    assert found.tolist() == expected


def test_places_of_more_users_than_are_sorted_at_a_time() -> None:
    rng = np.random.default_rng(0)
    users = USERS_PLACED * 2 + 7
    user = rng.permutation(np.repeat(np.arange(users, dtype=np.int32), 3))
    pairs = pl.DataFrame({"user": user, "item": rng.permutation(len(user)).astype(np.int32)})
    score = rng.normal(size=len(user)).round(1)
    expected = (
        pairs.with_columns(minus=pl.Series(-score))
        .with_row_index()
        .sort("user", "minus", "item")
        .with_columns(place=pl.int_range(1, pl.len() + 1).over("user"))
        .sort("index")
    )
    assert positions(pairs, score).tolist() == expected.get_column("place").to_list()


def test_lists_by_hand_with_misses() -> None:
    # User 0 gets 4, 3, 2, 1: target 3 is second, target 9 was never proposed.
    # User 1 gets 6, 5: target 5 is second. User 2 has a target and no candidates. User 3: none.
    pairs = make_pairs((0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (3, 1))
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.9])
    targets = make_pairs((2, 4), (0, 9), (0, 3), (1, 5))
    second = 1 / log2(3)
    ours = ranking_metrics(placed(targets, pairs, positions(pairs, score)), k=2)
    assert ours == pytest.approx(
        {
            "candidate_recall": 2 / 4,
            "hr@2": 2 / 3,
            "ndcg@2": (second / (1 + second) + second + 0) / 3,
        }
    )
    first = ranking_metrics(placed(targets, pairs, positions(pairs, score)), k=1)
    assert first == {"candidate_recall": 0.5, "hr@1": 0.0, "ndcg@1": 0.0}


def test_a_part_of_the_targets_keeps_its_places_among_all_candidates() -> None:
    # User 0 gets 4, 3, 2, 1, of which 3 and 1 happen; only 1, fourth, is asked for.
    pairs = make_pairs((0, 1), (0, 2), (0, 3), (0, 4), (1, 5))
    place = positions(pairs, np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    places = placed(make_pairs((0, 1), (0, 3), (1, 6)), pairs, place)
    assert places.rows() == [(0, 1, 4), (0, 3, 2), (1, 6, None)]
    assert ranking_metrics(places.filter(pl.col("item") == 1), k=5) == pytest.approx(
        {"candidate_recall": 1.0, "hr@5": 1.0, "ndcg@5": 1 / log2(5)}
    )


def test_targets_are_found_among_more_pairs_than_are_looked_up_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    grid = np.indices((30, 40)).reshape(2, -1).astype(np.int32)
    pairs = pl.DataFrame({"user": grid[0], "item": grid[1]}).sample(fraction=0.6, seed=0)
    place = positions(pairs, rng.normal(size=len(pairs)))
    targets = pl.DataFrame({"user": grid[0], "item": grid[1]}).sample(fraction=0.2, seed=1)
    expected = targets.join(
        pairs.with_columns(place=pl.Series(place)),
        on=["user", "item"],
        how="left",
        maintain_order="left",
    )
    monkeypatch.setattr("rank.metrics.PAIRS_JOINED", 100)
    assert placed(targets, pairs, place).equals(expected, null_equal=True)
    assert placed(targets, pairs[:0], place[:0]).get_column("place").null_count() == len(targets)


def test_no_targets_leave_the_metrics_undefined() -> None:
    ours = ranking_metrics(placed(make_pairs(), make_pairs((0, 1)), np.ones(1, np.int32)))
    assert np.isnan(list(ours.values())).all()


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_equals_scikit_learn_where_every_target_is_a_candidate(k: int) -> None:
    rng = np.random.default_rng(k)
    users, items = 40, 12
    grid = np.indices((users, items)).reshape(2, -1).astype(np.int32)
    score = rng.normal(size=(users, items))
    truth = rng.random((users, items)) < 0.15
    pairs = pl.DataFrame({"user": grid[0], "item": grid[1]})
    targets = pairs.filter(pl.Series(truth.ravel())).sample(fraction=1, shuffle=True, seed=0)
    wanted = truth.any(axis=1)
    ours = ranking_metrics(placed(targets, pairs, positions(pairs, score.ravel())), k=k)
    assert wanted.sum() < users
    assert ours[f"ndcg@{k}"] == pytest.approx(sk.ndcg_score(truth[wanted], score[wanted], k=k))
    top = np.argsort(-score, axis=1)[:, :k]
    hit = np.take_along_axis(truth, top, axis=1).any(axis=1)
    assert ours[f"hr@{k}"] == pytest.approx(hit[wanted].mean())
    assert ours["candidate_recall"] == 1
