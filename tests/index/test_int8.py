"""Search by bytes against search by floats, which it has to equal to the last bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from index import int8
from index.int8 import Int8Vectors
from index.library import import_faiss
from index.store import VectorIndex

IS_FAST = int8.is_fast


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are used on every processor, whose results are the same, and for few vectors too."""
    monkeypatch.setattr(int8, "is_fast", lambda: True)
    monkeypatch.setattr(int8, "LEAST_VECTORS", 1)


def drawn(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in groups, as texts lie, with more spread along some directions."""
    rng = np.random.default_rng(seed)
    groups = rng.standard_normal((n // 50 + 1, d))
    vectors = groups[rng.integers(0, len(groups), n)] + rng.standard_normal((n, d))
    vectors *= np.arange(1, d + 1) ** -0.4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def by_floats(index: VectorIndex, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same index by FAISS alone, asked for everything: no cut can hide a tie."""
    rows = index._flat().search(queries, len(index))[1]
    return index._best(queries, rows, k)


def by_bytes(index: VectorIndex, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    assert index._in_bytes(k) is not None
    return index.search(queries, k)


def assert_same(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> None:
    for here, there in zip(one, other, strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("d", [8, 24, 33, 384])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_answers_are_those_of_floats_to_the_last_bit(d: int, k: int) -> None:
    vectors = drawn(5000, d)
    index = VectorIndex.build(np.arange(4900, dtype=np.int32)[::-1], vectors[:4900])
    queries = np.concatenate([vectors[4900:], vectors[:600] * np.float32(3)])
    assert_same(by_bytes(index, queries, k), by_floats(index, queries, k))


def test_nearly_all_queries_are_answered_by_bytes() -> None:
    vectors = drawn(9000, 64)
    index = VectorIndex.build(np.arange(9000, dtype=np.int32), vectors)
    complete = [
        index._int8.nearest(vectors[start : start + 100], 20, index._similarities)[1]
        for start in range(0, 1000, 100)
    ]
    assert np.mean(complete) > 0.98


def test_of_equal_vectors_the_smaller_ids_are_found() -> None:
    vectors = drawn(3000, 16)
    vectors[100:180] = vectors[0]
    ids = np.random.default_rng(1).permutation(3000).astype(np.int32)
    index = VectorIndex.build(ids, vectors)
    queries = np.repeat(vectors[:1], 64, axis=0)
    found = by_bytes(index, queries, 20)[0]
    assert (found == np.sort(ids[[0, *range(100, 180)]])[:20]).all()


def test_what_bytes_cannot_tell_floats_answer() -> None:
    """Most vectors are so near to each other that rounding to bytes tells none from the others."""
    rng = np.random.default_rng(2)
    vectors = drawn(4000, 12)
    vectors[1000:] = vectors[0] + rng.normal(scale=1e-4, size=(3000, 12)).astype(np.float32)
    index = VectorIndex.build(np.arange(4000, dtype=np.int32), vectors)
    queries = np.concatenate([drawn(200, 12, seed=3), vectors[:1]])
    rows, complete = index._int8.nearest(queries, 30, index._similarities)
    assert 0.3 < complete.mean() < 1
    assert not complete[-1]
    assert (rows[~complete] == -1).all()
    assert_same(by_bytes(index, queries, 30), by_floats(index, queries, 30))


def test_vectors_of_all_lengths_are_found() -> None:
    """Lengths from 1e-3 to 1e3: the bound of the longest says nothing of the others."""
    rng = np.random.default_rng(2)
    vectors = drawn(4000, 12) * np.exp(rng.uniform(-7, 7, (4000, 1))).astype(np.float32)
    index = VectorIndex.build(np.arange(4000, dtype=np.int32), vectors)
    queries = drawn(200, 12, seed=3)
    assert_same(by_bytes(index, queries, 30), by_floats(index, queries, 30))


def test_where_the_nearest_are_few_and_much_is_behind_the_guess_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each .04 of cosine there are e times as many: the 5th of every 48th is far from the 20th."""
    monkeypatch.setattr(int8, "ROOM", 2)
    rng = np.random.default_rng(4)
    cosines = 0.6 + 0.04 * np.minimum(rng.exponential(size=12_000), 9.9)
    others = rng.standard_normal((12_000, 64))
    others[:, 0] = 0
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    vectors = others * np.sqrt(1 - cosines**2)[:, None]
    vectors[:, 0] = cosines
    vectors = rng.permutation(vectors.astype(np.float32))
    index = VectorIndex.build(np.arange(12_000, dtype=np.int32), vectors)
    queries = np.zeros((50, 64), dtype=np.float32)
    queries[:, 0] = np.linspace(0.5, 2, 50)
    places, complete = index._int8.nearest(queries, 20, index._similarities)
    assert complete.all()
    assert places.shape[1] < 300
    assert_same(by_bytes(index, queries, 20), by_floats(index, queries, 20))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([2, 5, 16, 65]))
def test_whatever_is_called_complete_is(seed: int, k: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = drawn(3000, d, seed)
    vectors *= rng.uniform(1 - rng.random(), 1, (3000, 1)).astype(np.float32)
    vectors = np.round(vectors, 2) + np.float32(0.001)  # many nearly alike
    queries = drawn(64, d, seed + 1)
    index = VectorIndex.build(np.arange(3000, dtype=np.int32), vectors)
    rows, complete = Int8Vectors.of(vectors, np.arange(3000)).nearest(
        queries, k, index._similarities
    )
    products = index._similarities(queries, np.tile(np.arange(3000), (64, 1)))
    for query in np.flatnonzero(complete):
        least = np.sort(products[query])[-k]
        assert {*np.flatnonzero(products[query] >= least)} <= {*rows[query].tolist()}


def test_a_vector_that_rounds_to_nothing_is_still_found() -> None:
    vectors = drawn(3000, 8)
    vectors[7] = 1e-42
    index = VectorIndex.build(np.arange(3000, dtype=np.int32), vectors)
    queries = np.concatenate([drawn(63, 8, seed=5), np.full((1, 8), 1e-42, dtype=np.float32)])
    assert_same(by_bytes(index, queries, 9), by_floats(index, queries, 9))


def test_threads_and_blocks_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = drawn(4000, 48)
    index = VectorIndex.build(np.arange(4000, dtype=np.int32), vectors)

    def answers(threads: int) -> tuple[np.ndarray, np.ndarray]:
        with threadpool_limits(limits=threads):
            import_faiss().omp_set_num_threads(threads)
            return by_bytes(replace(index), vectors[:700], 25)

    one, three = answers(1), answers(3)
    assert_same(one, three)
    monkeypatch.setattr(int8, "BLOCK", 100)
    monkeypatch.setattr(int8, "COLUMNS_PER_BLOCK", 999)
    monkeypatch.setattr(int8, "ROWS_PER_BLOCK", 1001)
    assert_same(one, answers(2))


def test_one_query_alone_is_answered_as_among_others() -> None:
    vectors = drawn(3000, 16)
    vectors[100:180] = vectors[0]
    index = VectorIndex.build(np.arange(3000, dtype=np.int32), vectors)
    together = by_bytes(index, vectors[:200], 20)
    for query in range(0, 200, 37):
        alone = by_bytes(index, vectors[query : query + 1], 20)
        assert_same(alone, tuple(part[query : query + 1] for part in together))


def test_the_processor_tells_whether_it_multiplies_bytes(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor : 0\nflags : fpu avx512f avx512_vnni\n")
    assert IS_FAST(told)
    told = tmp_path / "other"
    told.write_text("processor : 0\nflags : fpu avx2 avx_vnni\n")
    assert not IS_FAST(told)
    assert not IS_FAST(tmp_path / "none")
