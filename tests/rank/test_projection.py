import numpy as np
import pytest
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from rank.projection import Projection


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(60, 6)) * [5, 1, 3, 0.1, 0.1, 0.1]
    table[[4, 9]] = 0
    return table.astype(np.float32)


def test_equals_exact_principal_components_up_to_sign(vectors: np.ndarray) -> None:
    projection = Projection.fit(vectors, dimensions=3)
    present = vectors[vectors.any(axis=1)].astype(np.float64)
    exact = PCA(n_components=3, svd_solver="full").fit(present).transform(present)
    ours = projection(vectors)
    assert np.isnan(ours[[4, 9]]).all()
    ours = ours[vectors.any(axis=1)]
    np.testing.assert_allclose(np.abs(ours), np.abs(exact), atol=1e-4)
    assert ours.dtype == np.float32
    # The spread was drawn on axes 0, 2 and 1, in that order.
    assert np.abs(projection.components).argmax(axis=1).tolist() == [0, 2, 1]
    np.testing.assert_allclose(
        projection.components @ projection.components.T, np.eye(3), atol=1e-5
    )


def test_zero_rows_do_not_move_the_fit(vectors: np.ndarray) -> None:
    with_zeros = np.concatenate([vectors, np.zeros((500, 6), np.float32)])
    first, second = (Projection.fit(v, dimensions=2) for v in (vectors, with_zeros))
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.components, second.components)


@pytest.mark.parametrize(("rows", "expected"), [(60, 6), (3, 2), (0, 0)])
def test_few_vectors_give_few_dimensions(vectors: np.ndarray, rows: int, expected: int) -> None:
    projection = Projection.fit(vectors[:rows], dimensions=20)
    assert projection(vectors).shape == (60, expected)


def test_the_input_is_left_alone(vectors: np.ndarray) -> None:
    before = vectors.copy()
    Projection.fit(vectors, dimensions=2)(vectors)
    assert np.array_equal(vectors, before)


def test_directions_that_only_rounding_differs_in_are_dropped() -> None:
    kinds = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    projection = Projection.fit(np.repeat(kinds, 20, axis=0), dimensions=8)
    assert projection.components.shape == (2, 8)  # three points lie in a plane


def test_texts_that_are_all_alike_have_no_direction() -> None:
    same = np.ones((5, 4), np.float32)
    projection = Projection.fit(same, dimensions=3)
    assert projection(same).shape == (5, 0)


def test_one_and_two_threads_fit_the_same() -> None:
    vectors = np.random.default_rng(2).normal(size=(3000, 384)).astype(np.float32)
    fits = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            projection = Projection.fit(vectors, dimensions=16)
            fits.append((projection.components, projection(vectors)))
    for first, second in zip(*fits, strict=True):
        assert np.array_equal(first, second)
