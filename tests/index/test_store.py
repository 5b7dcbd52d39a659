import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import store
from index.store import DamagedIndex, VectorIndex


def unit(rng: np.random.Generator, rows: int, width: int = 8) -> np.ndarray:
    vectors = rng.normal(size=(rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 40), k=st.integers(1, 50))
def test_search_equals_brute_force(seed: int, rows: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = unit(rng, rows), unit(rng, 5)
    ids = rng.permutation(1000)[:rows].astype(np.int32)
    found, similarities = VectorIndex.build(ids, vectors).search(queries, k)
    cosine = queries @ vectors.T
    order = np.argsort(-cosine, axis=1)[:, : min(k, rows)]
    np.testing.assert_array_equal(found, ids[order])
    np.testing.assert_allclose(
        similarities, np.take_along_axis(cosine, order, axis=1), rtol=1e-5, atol=1e-6
    )


@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 120),
    k=st.integers(1, 130),
    block=st.sampled_from([1, 200, 2**24]),  # numbers; a row has eight
)
def test_only_chosen_rows_are_found_in_however_many_blocks(
    seed: int, rows: int, k: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries, chosen = unit(rng, rows), unit(rng, 5), rng.random(rows) < 0.7
    vectors[rng.random(rows) < 0.2] = 0
    ids = rng.permutation(1000)[:rows].astype(np.int32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "NUMBERS_PER_BLOCK", block)
        found, similarities = VectorIndex.build(ids, vectors, chosen).search(queries, k)
    kept = np.flatnonzero(chosen & vectors.any(axis=1))
    cosine = queries @ vectors[kept].T
    order = np.argsort(-cosine, axis=1)[:, :k]
    np.testing.assert_array_equal(found, ids[kept][order])
    np.testing.assert_allclose(
        similarities, np.take_along_axis(cosine, order, axis=1), rtol=1e-5, atol=1e-6
    )


def test_the_vectors_are_the_callers_own() -> None:
    vectors = unit(np.random.default_rng(0), 20)
    chosen = np.arange(20) % 3 > 0
    index = VectorIndex.build(np.arange(20, dtype=np.int32), vectors, chosen)
    assert index.vectors is vectors
    assert index.rows.tolist() == np.flatnonzero(chosen).tolist()


def test_a_row_without_text_is_never_found() -> None:
    vectors = np.array([[1, 0], [0, 0], [0, 1]], dtype=np.float32)
    index = VectorIndex.build(np.array([10, 11, 12], dtype=np.int32), vectors)
    found, _ = index.search(np.array([[1, 0]], dtype=np.float32), k=3)
    assert len(index) == 2
    assert found.tolist() == [[10, 12]]


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_query_without_direction_finds_nothing(bad: float) -> None:
    index = VectorIndex.build(np.array([3], dtype=np.int32), np.eye(1, 2, dtype=np.float32))
    queries = np.array([[bad, bad], [1, 0]], dtype=np.float32)
    found, similarities = index.search(queries, k=1)
    assert found.tolist() == [[-1], [3]]
    assert similarities.tolist() == [[-np.inf], [1.0]]


def test_an_empty_index_answers() -> None:
    index = VectorIndex.build(np.array([], dtype=np.int32), np.zeros((0, 4), dtype=np.float32))
    found, similarities = index.search(np.ones((2, 4), dtype=np.float32), k=5)
    assert found.shape == similarities.shape == (2, 0)


def test_saved_and_loaded_is_the_same(tmp_path) -> None:
    rng = np.random.default_rng(0)
    index = VectorIndex.build(np.arange(30, dtype=np.int32), unit(rng, 30), rng.random(30) < 0.5)
    index.save(tmp_path)
    queries = unit(rng, 4)
    for before, after in zip(
        index.search(queries, 7), VectorIndex.load(tmp_path).search(queries, 7), strict=True
    ):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["vectors.faiss", "ids.npy", "choice.json"])
def test_a_flipped_bit_is_noticed_and_named(tmp_path, name: str) -> None:
    VectorIndex.build(np.arange(9, dtype=np.int32), unit(np.random.default_rng(0), 9)).save(
        tmp_path
    )
    content = bytearray((tmp_path / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedIndex, match=name):
        VectorIndex.load(tmp_path)


def test_a_missing_file_is_named(tmp_path) -> None:
    VectorIndex.build(np.arange(9, dtype=np.int32), unit(np.random.default_rng(0), 9)).save(
        tmp_path
    )
    (tmp_path / "ids.npy").unlink()
    with pytest.raises(DamagedIndex, match=r"ids\.npy"):
        VectorIndex.load(tmp_path)


def test_a_similarity_depends_on_the_two_vectors_alone() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, 700, 48), unit(rng, 400, 48)
    ids = np.arange(700, dtype=np.int32)
    together = VectorIndex.build(ids, vectors).search(queries, 10)
    alone = [VectorIndex.build(ids, vectors).search(queries[[row]], 10) for row in range(400)]
    np.testing.assert_array_equal(together[0], np.vstack([found for found, _ in alone]))
    np.testing.assert_array_equal(together[1], np.vstack([near for _, near in alone]))


def test_among_equals_the_smaller_id_comes_first() -> None:
    vectors = np.tile(unit(np.random.default_rng(0), 3), (4, 1))
    ids = np.random.default_rng(1).permutation(100)[:12].astype(np.int32)
    found, similarities = VectorIndex.build(ids, vectors).search(vectors[:3], 12)
    for query, row, near in zip(range(3), found, similarities, strict=True):
        assert row[:4].tolist() == sorted(ids[query::3].tolist())
        for equal in np.split(row, 3):
            assert equal.tolist() == sorted(equal.tolist())
        assert len(np.unique(near)) == 3
