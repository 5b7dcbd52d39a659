import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits
from worlds import make_snapshot

from index.clusters import MOST_CLUSTERS, NO_CLUSTER, clusters
from index.rows import unit_rows

ALL = np.ones(100, dtype=bool)


def topics(n: int, *, of: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (n, 32) close to one of some directions, and which."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, of, n)
    directions = unit_rows(rng.normal(size=(of, 32)).astype(np.float32))
    noise = 0.05 * rng.normal(size=(n, 32)).astype(np.float32)
    return unit_rows(directions[topic] + noise), topic


def everything(vectors: np.ndarray) -> np.ndarray:
    return np.ones(len(vectors), dtype=bool)


def test_topics_that_lie_apart_are_found() -> None:
    vectors, topic = topics(100, of=5)
    assert adjusted_rand_score(topic, clusters(vectors, ALL, ALL)) == 1.0


@pytest.mark.parametrize(("items", "expected"), [(19, 0), (20, 1), (399, 19), (5000, 64)])
def test_there_is_a_cluster_for_every_twenty_items(items: int, expected: int) -> None:
    vectors = unit_rows(np.random.default_rng(1).normal(size=(items, 8)).astype(np.float32))
    found = clusters(vectors, everything(vectors), everything(vectors))
    assert set(found) == (set(range(expected)) or {NO_CLUSTER})
    assert expected <= MOST_CLUSTERS


def test_every_item_is_in_the_cluster_of_the_nearest_mean() -> None:
    vectors, _ = topics(1000, of=90)
    found = clusters(vectors, everything(vectors), everything(vectors))
    means = np.stack([vectors[found == c].mean(axis=0) for c in range(found.max() + 1)])
    distance = np.linalg.norm(vectors[:, None] - means, axis=2)
    own = distance[np.arange(len(vectors)), found]
    np.testing.assert_allclose(own, distance.min(axis=1), atol=0.01)


def test_items_without_text_or_not_known_are_in_none_and_move_nothing() -> None:
    vectors, _ = topics(100, of=9, seed=2)
    alone = clusters(vectors, ALL, ALL)
    rows = np.sort(np.random.default_rng(3).permutation(170)[:100])
    spread = unit_rows(np.random.default_rng(4).normal(size=(170, 32)).astype(np.float32))
    spread[::7] = 0
    spread[rows] = vectors
    known = np.isin(np.arange(170), rows) | ~spread.any(axis=1)
    found = clusters(spread, known, known)
    np.testing.assert_array_equal(found[rows], alone)
    assert (np.delete(found, rows) == NO_CLUSTER).all()


def test_items_that_may_not_be_proposed_join_the_clusters_of_the_others() -> None:
    vectors, topic = topics(100, of=4)
    eligible = np.arange(100) < 80
    found = clusters(vectors, ALL, eligible)
    assert adjusted_rand_score(topic, found) == 1.0
    shown = make_snapshot([(0, 90)], shape=(2, 100), item_vectors=vectors, eligible=eligible)
    joined = shown.text_clusters
    assert joined[90] in joined[:80]
    assert (joined[80:90] == NO_CLUSTER).all()


@pytest.mark.parametrize("items", [700, 20_000])
def test_one_and_two_threads_give_the_same_clusters(items: int) -> None:
    vectors = unit_rows(np.random.default_rng(5).normal(size=(items, 16)).astype(np.float32))
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            found.append(clusters(vectors, everything(vectors), everything(vectors)))
    np.testing.assert_array_equal(*found)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_texts_that_are_all_the_same_are_one_cluster() -> None:
    vectors = np.tile(np.float32([[0.6, 0.8]]), (100, 1))
    assert len(set(clusters(vectors, ALL, ALL))) == 1
