import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from worlds import ITEMS, make_snapshot

from index import generators
from index.interests import MOST_INTERESTS, SAME_INTEREST, interests


def one_by_one(vectors: np.ndarray, items: list[int], decay: float) -> list[np.ndarray]:
    """Leader clustering in plain Python: the direction of each cluster's weighted mean."""
    leaders: list[np.ndarray] = []
    sums: list[np.ndarray] = []
    for place, item in enumerate(items):
        if item < 0 or not vectors[item].any():
            continue
        cosines = [float(leader @ vectors[item]) for leader in leaders]
        if len(leaders) < MOST_INTERESTS and max(cosines, default=-1) < SAME_INTEREST:
            leaders.append(vectors[item])
            sums.append(decay**place * vectors[item])
        else:
            sums[int(np.argmax(cosines))] += decay**place * vectors[item]
    return [total / np.linalg.norm(total) for total in sums]


def texts(seed: int, n: int = ITEMS) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    vectors[0] = 0
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


@given(st.integers(0, 1000), st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=8), min_size=1))
def test_clusters_equal_those_found_one_by_one(seed: int, histories: list[list[int]]) -> None:
    vectors = texts(seed)
    table = np.full((len(histories), 8), -1, dtype=np.int32)
    for row, items in enumerate(histories):
        table[row, : len(items)] = items
    found = interests(vectors, table, decay=0.7)
    assert found.shape == (len(histories), MOST_INTERESTS, 3)
    for row, items in enumerate(histories):
        expected = one_by_one(vectors, items, 0.7)
        for mine, other in zip(found[row], expected, strict=False):
            np.testing.assert_allclose(mine, other, atol=1e-4)
        assert not found[row, len(expected) :].any()


def test_two_tastes_are_two_interests_where_their_mean_would_be_none() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2, 0, 1, 3]]
    world = make_snapshot([(0, 0), (0, 2)], shape=(2, 8), item_vectors=vectors)
    items, scores, _ = generators.interests(world, np.array([0], dtype=np.int32), 4)
    near = items[0][np.isclose(scores[0], 1.0)]
    assert sorted(near) == [1, 3, 5, 6]


def test_an_item_scores_by_its_nearest_interest() -> None:
    rng = np.random.default_rng(7)
    bought = [(u, i) for u in range(4) for i in range(ITEMS) if rng.uniform() < 0.4]
    world = make_snapshot(bought, item_vectors=texts(5))
    users = np.arange(4, dtype=np.int32)
    items, scores, _ = generators.interests(world, users, ITEMS)
    for user in users:
        mine = one_by_one(world.whitened_items, world.last_items[user].tolist(), 0.7)
        cosine = np.max([world.whitened_items @ interest for interest in mine], axis=0)
        allowed = world.whitened_items.any(axis=1) & ~(world.excluded.toarray()[user] > 0)
        expected = np.sort(cosine[allowed])[::-1]
        found = items[user] >= 0
        np.testing.assert_allclose(scores[user, found], expected, atol=1e-5)
        np.testing.assert_allclose(cosine[items[user, found]], expected, atol=1e-5)
