"""Sentiment from ratings, and from texts where there are none."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from rank.sentiment import NEUTRAL, NEWEST, Head, on_scale, sentiments

NAN = np.nan


def texts(n: int, seed: int = 0, width: int = 6) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_ratings_by_hand() -> None:
    ratings = np.array([1.0, 5.0, NAN, 2.0, 3.0])
    assert on_scale(ratings, None)[[0, 1, 3, 4]].tolist() == [0.0, 1.0, 0.25, 0.5]
    assert on_scale(ratings, (0.0, 10.0))[[0, 1, 3, 4]].tolist() == [0.1, 0.5, 0.2, 0.3]
    assert on_scale(ratings, (2.0, 4.0))[[0, 1, 3, 4]].tolist() == [0.0, 1.0, 0.0, 0.5]
    assert np.isnan(on_scale(ratings, None)[2])


def test_a_rating_comes_before_the_text_and_nothing_is_neutral() -> None:
    ratings, vectors = np.array([1.0, 5.0, NAN] * 50), texts(150)
    vectors[2] = 0
    found = sentiments(ratings, vectors, scale=(1.0, 5.0), least_rated=100)
    assert found[0::3].tolist() == [0.0] * 50
    assert found[1::3].tolist() == [1.0] * 50
    assert found[2] == NEUTRAL
    assert not np.isin(found[5::3], (0.0, NEUTRAL, 1.0)).any()


@pytest.mark.parametrize(
    ("ratings", "scale", "least"),
    [
        ([1.0, 5.0, NAN], (1.0, 5.0), 101),  # too few
        ([NAN, NAN, NAN], None, 1),
        ([5.0, 5.0, NAN], None, 1),  # one rating is no scale
        ([5.0, 5.0, NAN], (1.0, 5.0), 1),  # all are glad: nothing tells a sorry text
    ],
)
def test_without_enough_to_learn_from_texts_are_neutral(
    ratings: list[float], scale: tuple[float, float] | None, least: int
) -> None:
    found = sentiments(np.array(ratings * 50), texts(150), scale=scale, least_rated=least)
    assert found[2::3].tolist() == [NEUTRAL] * 50


def test_the_true_sentiment_of_texts_is_found() -> None:
    vectors = texts(30_000)
    truth = expit(1.0 + vectors @ np.array([6.0, -3.0, 0, 0, 0, 0]))
    rng = np.random.default_rng(1)
    stars = 1.0 + rng.binomial(4, truth)  # mean 1 + 4 truth
    stars[20_000:] = NAN
    found = sentiments(stars, vectors, scale=None, least_rated=200)
    assert np.abs(found[20_000:] - truth[20_000:]).mean() < 0.02


def test_scikit_learn_gives_the_same_for_thumbs_up_and_down() -> None:
    vectors = texts(2_000)
    glad = np.random.default_rng(2).random(2_000) < expit(2.0 * vectors[:, 0])
    oracle = LogisticRegression(max_iter=1000).fit(vectors.astype(np.float64), glad)
    expected = oracle.predict_proba(vectors.astype(np.float64))[:, 1]
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            found.append(Head.fit(vectors, glad.astype(float))(vectors))
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    assert np.array_equal(*found)


def test_of_many_texts_the_newest_are_learnt_from() -> None:
    vectors = np.tile(texts(2, width=2), (NEWEST, 1))
    ratings = np.tile([0.0, 1.0], NEWEST)
    ratings[:NEWEST] = 1.0 - ratings[:NEWEST]  # the older half says the opposite
    ratings = np.append(ratings, [NAN, NAN])
    found = sentiments(ratings, np.concatenate([vectors, vectors[:2]]), scale=None, least_rated=1)
    assert found[-2] < 0.1
    assert found[-1] > 0.9
