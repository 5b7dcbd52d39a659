from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits
from worlds import make_snapshot

from index import choice as choices
from index.choice import Indexing, choose, evenly, recall
from index.kinds import EFFORTS, EXACT, Choice, Kind
from index.library import import_faiss
from index.store import DamagedIndex, VectorIndex

KINDS: tuple[Kind, ...] = ("ivf", "hnsw", "quantised")
N, D = 1500, 24


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / lengths).astype(np.float32)


def corpus(seed: int = 0, width: int = D) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and vectors in sixty groups, and queries near to some of them."""
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(60, width))
    near = groups[rng.integers(0, 60, N + 50)] + 0.4 * rng.normal(size=(N + 50, width))
    ids = rng.permutation(10 * N)[:N].astype(np.int32)
    return ids, unit(near[:N]), unit(near[N:])


def of_kind(kind: Kind, least_recall: float = 0.9, **more) -> tuple[VectorIndex, np.ndarray]:
    ids, vectors, queries = corpus(**more)
    indexing = Indexing(100, (kind,), least_recall, sample=40)
    return choose(ids, vectors, indexing, asked=lambda most: queries[:most]), queries


def brute(ids: np.ndarray, vectors: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    """The ids of the k nearest, by float64."""
    products = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    return [ids[np.lexsort((ids, -row))[:k]].tolist() for row in products]


@pytest.mark.parametrize("width", [D, 25])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_finds_what_it_says_and_scores_it_exactly(kind: Kind, width: int) -> None:
    index, queries = of_kind(kind, width=width)
    ids, vectors, _ = corpus(width=width)
    assert index.choice.kind == kind
    assert index.choice.sample == 40
    found, similarities = index.search(queries[:40], 100)
    best = brute(ids, vectors, queries[:40], 100)
    share = np.mean([len({*a} & {*b}) / 100 for a, b in zip(found.tolist(), best, strict=True)])
    assert index.choice.recall == pytest.approx(share, abs=1e-9)
    assert index.choice.recall >= 0.9
    row_of = np.full(10 * N, -1)
    row_of[ids] = np.arange(N)
    products = np.einsum("qd,qkd->qk", queries[:40], vectors[row_of[found]], dtype=np.float64)
    np.testing.assert_allclose(similarities, products, rtol=1e-5, atol=1e-6)
    assert (np.diff(similarities, axis=1) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_never_finds_enough_is_refused_and_search_is_exact(
    kind: Kind, monkeypatch
) -> None:
    monkeypatch.setattr(choices, "EFFORTS", (1,))
    monkeypatch.setattr("index.kinds.PROBES", 1)
    ids, _, _ = corpus()
    noise = unit(np.random.default_rng(1).normal(size=(N, D)))
    indexing = Indexing(100, (kind,), 1.0, sample=60)
    index = choose(ids, noise, indexing, asked=lambda most: noise[:most] + 0.1)
    assert index.choice == EXACT._replace(refused=(kind,))
    assert index.search(noise[:9], 20)[0].tolist() == brute(ids, noise, noise[:9], 20)


def test_the_next_kind_is_tried_when_one_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(choices, "EFFORTS", (1, 16))
    monkeypatch.setattr("index.kinds.PROBES", 1)  # at most 16 of 37 lists
    ids = np.arange(N, dtype=np.int32)
    noise = unit(np.random.default_rng(1).normal(size=(N, D)))
    indexing = Indexing(100, ("ivf", "quantised"), 0.97, sample=60)
    index = choose(ids, noise, indexing, asked=lambda most: noise[:most])
    assert (index.choice.kind, index.choice.refused) == ("quantised", ("ivf",))
    assert 0.97 <= index.choice.recall <= 1.0


def test_a_corpus_that_is_not_larger_is_searched_exactly_and_nobody_asks() -> None:
    ids, vectors, queries = corpus()

    def asked(most: int) -> np.ndarray:
        raise AssertionError

    index = choose(ids, vectors, Indexing(exact_up_to=N), asked=asked)
    assert index.choice == EXACT
    assert index.search(queries, 30)[0].tolist() == brute(ids, vectors, queries, 30)


def test_without_queries_the_corpus_asks_itself() -> None:
    ids, vectors, _ = corpus()
    nobody = np.zeros((3, D), dtype=np.float32)
    index = choose(ids, vectors, Indexing(100, sample=70), asked=lambda most: nobody)
    assert index.choice.sample == 70
    assert index.choice.kind == "ivf"


@pytest.mark.parametrize("kind", KINDS)
def test_more_effort_finds_no_less(kind: Kind) -> None:
    index, queries = of_kind(kind)
    exact = replace(index, proposing=None, choice=EXACT)
    nearest = exact.search(queries, 100)[1]
    found = []
    for effort in EFFORTS:
        tried = replace(index, choice=Choice(kind, effort, 0.0, 0))
        found.append(recall(tried, queries, nearest))
    assert found == sorted(found)
    assert found[-1] > 0.99


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_threads_and_blocks_do_not_change_a_bit(kind: Kind | None, monkeypatch) -> None:
    ids, vectors, queries = corpus()
    queries = np.tile(queries, (30, 1))[:1200] + np.linspace(0, 0.01, 1200, dtype="f4")[:, None]

    def answers(threads: int) -> tuple[np.ndarray, np.ndarray]:
        with threadpool_limits(limits=threads):
            import_faiss().omp_set_num_threads(threads)
            kinds = (kind,) if kind else ()
            indexing = Indexing(100 if kind else N, kinds, 0.9, sample=40)
            index = choose(ids, vectors, indexing, asked=lambda most: queries[:most])
            return index.search(queries, 30)

    one, two = answers(1), answers(2)
    monkeypatch.setattr("index.store.CELLS_PER_BLOCK", 1)
    for other in (two, answers(2)):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same_and_damage_is_noticed(tmp_path, kind: Kind) -> None:
    index, queries = of_kind(kind)
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path)
    assert loaded.choice == index.choice
    for before, after in zip(index.search(queries, 20), loaded.search(queries, 20), strict=True):
        np.testing.assert_array_equal(before, after)
    for name in ("vectors.faiss", "proposing.faiss", "ids.npy", "choice.json"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(DamagedIndex, match=name):
            VectorIndex.load(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(DamagedIndex, match=name):
            VectorIndex.load(tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_a_gpu_proposes_and_answers_are_those_of_the_cpu(tmp_path, monkeypatch) -> None:
    """No GPU is here: a copy on the CPU stands for one, and what FAISS has no GPU kind of stays."""
    faiss = import_faiss()
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", faiss.clone_index, raising=False)
    ids, vectors, queries = corpus()
    exact = VectorIndex.build(ids, vectors)
    for index, moves in ((exact, True), (of_kind("ivf")[0], True), (of_kind("hnsw")[0], False)):
        moved = index.on_best_device()
        assert (moved.on_device is not None) == moves
        for here, there in zip(index.search(queries, 9), moved.search(queries, 9), strict=True):
            np.testing.assert_array_equal(here, there)
        moved.save(tmp_path / index.choice.kind)
        assert len(VectorIndex.load(tmp_path / index.choice.kind)) == N


def test_a_snapshot_measures_with_the_queries_of_its_users() -> None:
    _, vectors, _ = corpus()
    bought = [(user, user * 7 % N) for user in range(1, 60)]
    snapshot = make_snapshot(bought, shape=(61, N), item_vectors=vectors)
    exact = dict(snapshot.indexes)
    assert [(name, len(index), index.choice) for name, index in exact.items()] == [
        ("items", N, EXACT), ("whitened items", N, EXACT), ("reviews", 0, EXACT),
        ("answers", N, EXACT),
    ]  # fmt: skip
    indexing = Indexing(100, ("quantised",), 0.9, sample=50)
    for name, index in replace(snapshot, indexing=indexing).indexes:
        if name != "reviews":
            assert index.choice.kind == "quantised", name
            assert index.choice.sample == 50
    users = np.arange(1, 60, dtype=np.int32)[evenly(59, 50)]
    profiles = snapshot.profiles(users)
    index = replace(snapshot, indexing=indexing).item_index
    best = brute(exact["items"].ids, vectors, profiles, 100)
    found = index.search(profiles, 100)[0].tolist()
    share = np.mean([len({*a} & {*b}) / 100 for a, b in zip(found, best, strict=True)])
    assert index.choice.recall == pytest.approx(share, abs=1e-9)
