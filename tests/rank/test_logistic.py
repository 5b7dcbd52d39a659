from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from rank.examples import Example
from rank.logistic import Logistic


def pairs(n: int, seed: int, *, unknown: float = 0.0) -> tuple[Example, np.ndarray]:
    """Pairs whose log-odds are linear in the item, the profile and their product."""
    rng = np.random.default_rng(seed)
    item, user = rng.normal(size=(2, n, 2)).astype(np.float32)
    truth = expit(-2.0 + item[:, 0] - 0.5 * user[:, 1] + 1.5 * item[:, 1] * user[:, 1])
    names = ["item_pc_0", "item_pc_1", "user_pc_0", "user_pc_1", "cosine_profile", "rank_popular"]
    table = np.column_stack([item, user, rng.uniform(-1, 1, n), rng.integers(1, 50, n)])
    table[rng.random(n) < unknown, :5] = np.nan
    features = pl.DataFrame(table.astype(np.float32), schema=names)
    users = np.arange(n, dtype=np.int32) // 20
    return Example(features, users, rng.random(n) < truth, np.ones(n, np.float32)), truth


def test_the_true_weights_are_found() -> None:
    train = [pairs(40_000, seed)[0] for seed in (1, 2)]
    model = Logistic.fit(train)
    # item, profile, products, cosine, not known
    assert model.weights == pytest.approx([1, 0, 0, -0.5, 0, 1.5, 0, 0], abs=0.06)
    test, truth = pairs(10_000, seed=9)
    probability = expit(model.score(test.features, threads=1))
    assert np.abs(probability - truth).mean() < 0.1 * truth.mean()


def test_scikit_learn_gives_the_same_on_the_same_inputs() -> None:
    example, _ = pairs(3_000, seed=1)
    item, user = (example.features.select(f"^{of}_pc.*$").to_numpy() for of in ("item", "user"))
    cosine = example.features.select("cosine_profile").to_numpy()
    x = np.hstack([item, user, item * user, cosine]).astype(np.float64)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    oracle = LogisticRegression(max_iter=1000).fit(scaled, example.happened)
    score = Logistic.fit([example]).score(example.features, threads=1)
    np.testing.assert_allclose(score, oracle.decision_function(scaled), atol=1e-3)


def test_what_is_not_known_has_a_level_of_its_own() -> None:
    example, _ = pairs(20_000, seed=3, unknown=0.3)
    textless = example.features.get_column("item_pc_0").is_nan().to_numpy()
    rare = replace(example, happened=example.happened & (~textless | (example.users % 10 == 0)))
    score = Logistic.fit([rare]).score(rare.features, threads=1)
    assert len(np.unique(score[textless])) == 1
    share = rare.happened[textless].mean()
    assert expit(score[textless][0]) == pytest.approx(share, rel=0.05)


def test_only_the_sample_and_the_positives_are_learnt_from() -> None:
    example, _ = pairs(4_000, seed=1)
    drawn = np.random.default_rng(0).random(4_000) < 0.3
    kept = drawn | example.happened
    thinned = replace(example, weight=kept.astype(np.float32))
    alone = Example(
        example.features.filter(pl.Series(kept)),
        example.users[kept],
        example.happened[kept],
        np.ones(kept.sum(), np.float32),
    )
    scores = [Logistic.fit([e]).score(example.features, threads=1) for e in (thinned, alone)]
    assert np.array_equal(*scores)
    whole = Logistic.fit([example]).score(example.features, threads=1)
    assert (scores[0] + np.log(0.3)).mean() == pytest.approx(whole.mean(), abs=0.15)


def test_a_row_of_weight_two_is_that_row_twice() -> None:
    example, _ = pairs(3_000, seed=1)
    twice = np.arange(3_000) < 1_000
    rows = np.flatnonzero(np.repeat(True, 3_000)).repeat(1 + twice)
    doubled = Example(
        example.features[rows], example.users[rows], example.happened[rows],
        np.ones(len(rows), np.float32),
    )  # fmt: skip
    heavy = replace(example, weight=np.where(twice, 2, 1).astype(np.float32))
    scores = [Logistic.fit([e]).score(example.features, threads=1) for e in (heavy, doubled)]
    np.testing.assert_allclose(*scores, atol=0.02)


def test_threads_change_nothing() -> None:
    example, _ = pairs(5_000, seed=1)
    scores = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            scores.append(Logistic.fit([example]).score(example.features, threads=threads))
    assert np.array_equal(*scores)


def test_without_vectors_there_is_the_base_rate() -> None:
    example, _ = pairs(2_000, seed=1)
    blank = replace(example, features=example.features.select("rank_popular"))
    score = Logistic.fit([blank]).score(blank.features, threads=1)
    assert expit(score) == pytest.approx(np.full(2_000, example.happened.mean()), abs=1e-4)
