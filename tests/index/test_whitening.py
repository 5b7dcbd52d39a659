import numpy as np
from threadpoolctl import threadpool_limits

from index.whitening import whitened


def test_what_all_share_is_gone_and_every_direction_weighs_the_same() -> None:
    rng = np.random.default_rng(0)
    shared = np.array([9.0, 0, 0, 0])
    vectors = (rng.normal(size=(4000, 4)) * [3, 1, 0.3, 0.1] + shared).astype(np.float32)
    moved = whitened(vectors, np.ones(len(vectors), dtype=bool))
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(moved.mean(axis=0), 0.0, atol=0.03)
    np.testing.assert_allclose(moved.T @ moved / len(moved), np.eye(4) / 4, atol=0.03)


def test_rows_without_text_stay_zero_and_do_not_count() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(50, 3)).astype(np.float32)
    vectors[::5] = 0
    fitted = np.arange(50) < 40
    moved = whitened(vectors, fitted)
    assert not moved[::5].any()
    other = vectors.copy()
    other[41:] = other[41:] * 7 + 1
    np.testing.assert_array_equal(whitened(other, fitted)[:40], moved[:40])


def test_too_few_texts_are_left_as_they_are() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert whitened(vectors, np.ones(3, dtype=bool)) is vectors


def test_one_and_two_threads_whiten_alike() -> None:
    vectors = np.random.default_rng(2).normal(size=(2000, 200)).astype(np.float32)
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            found.append(whitened(vectors, np.ones(len(vectors), dtype=bool)))
    np.testing.assert_array_equal(*found)
