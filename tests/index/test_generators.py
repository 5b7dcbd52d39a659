import numpy as np
import polars as pl
import pytest
from worlds import AS_OF, ITEMS, USERS, checkerboard, make_snapshot, missing_item

from index.generators import (
    GENERATORS,
    history,
    last,
    last_3,
    nearest,
    new,
    popular,
    popular_recent,
    reviews,
    trending,
)
from index.snapshot import Snapshot

EVERYBODY = np.arange(USERS, dtype=np.int32)
OF_THE_OWN_COLOUR = (
    "nearest", "last", "last_3", "interests", "reviews", "cooccurrence", "directed", "ease",
    "factors", "similar", "attributes", "kinds", "two_tower",
)  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_OWN_COLOUR)
def test_the_missing_item_of_the_own_colour_comes_first(name: str) -> None:
    items, *_ = GENERATORS[name](checkerboard(), EVERYBODY, 3)
    assert items[:, 0].tolist() == [missing_item(user) for user in range(USERS)]


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_nothing_excluded_or_ineligible_is_proposed(name: str) -> None:
    world = checkerboard()
    eligible = np.ones(ITEMS, dtype=bool)
    eligible[[2, 3]] = False
    limited = Snapshot(**(vars_of(world) | {"eligible": eligible}))
    items, *_ = GENERATORS[name](limited, EVERYBODY, ITEMS)
    barred = world.excluded.toarray() > 0
    for user in range(USERS):
        proposed = items[user][items[user] >= 0]
        assert not set(proposed) & {2, 3}
        assert not barred[user, proposed].any()


def vars_of(snapshot: Snapshot) -> dict[str, object]:
    return {name: getattr(snapshot, name) for name in Snapshot.__dataclass_fields__}


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_a_world_without_rows_proposes_nothing(name: str) -> None:
    items, *_ = GENERATORS[name](make_snapshot([]), EVERYBODY, 4)
    assert (items == -1).all()


def test_a_user_without_history_gets_what_is_popular_only() -> None:
    world = make_snapshot([(0, 5), (1, 5), (1, 2)], item_vectors=np.eye(ITEMS, dtype=np.float32))
    nobody = np.array([9], dtype=np.int32)
    assert popular(world, nobody, 2)[0].tolist() == [[5, 2]]
    for name in sorted(GENERATORS.keys() - {"popular", "popular_recent", "trending"}):
        generator = GENERATORS[name]
        assert (generator(world, nobody, 2)[0] == -1).all()


def test_a_new_item_is_reached_by_its_text() -> None:
    vectors = np.zeros((ITEMS, 2), dtype=np.float32)
    vectors[[4, 11]] = [1, 0]
    vectors[7] = [0, 1]
    world = make_snapshot([(0, 4)], item_vectors=vectors)
    assert nearest(world, np.array([0], dtype=np.int32), 1)[0].tolist() == [[11]]


def test_popularity_decays_by_half_in_a_half_life() -> None:
    world = make_snapshot([(0, 1), (1, 1), (2, 2)], days_ago=[60, 30, 0.0], excluded=[])
    items, scores, _ = popular(world, np.array([5], dtype=np.int32), 3)
    assert items.tolist() == [[2, 1, -1]]
    np.testing.assert_allclose(scores, [[1.0, 0.75, -np.inf]])


def test_popularity_of_late_decays_six_times_faster() -> None:
    world = make_snapshot([(0, 1), (1, 1), (2, 2)], days_ago=[10, 5, 0.0], excluded=[])
    items, scores, _ = popular_recent(world, np.array([5], dtype=np.int32), 3)
    assert items.tolist() == [[2, 1, -1]]  # half-life 30 / 6 = 5 days
    np.testing.assert_allclose(scores, [[1.0, 0.75, -np.inf]])


def test_trending_is_what_came_of_late_and_not_before() -> None:
    bought = [(u, 1) for u in range(8)] + [(u, 2) for u in range(4)] + [(9, 3)]
    days_ago = [40.0 - 5 * u for u in range(8)] + [1.0] * 4 + [40.0]
    world = make_snapshot(bought, days_ago=days_ago, excluded=[])
    items, scores, _ = trending(world, np.array([5], dtype=np.int32), 3)
    assert items.tolist() == [[2, 1, -1]]  # the last of 3 is long ago

    def deviations(ages: list[float]) -> float:
        now, before = (sum(2 ** (-a / half) for a in ages) for half in (5, 30))
        return (now - before / 6) / (before / 6 + 1) ** 0.5

    expected = [deviations([1.0] * 4), deviations([40.0 - 5 * u for u in range(8)]), -np.inf]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-6)


def test_a_steady_item_is_no_trend_and_a_newcomer_needs_more_than_one_event() -> None:
    steady = [(0, 1)] * 400
    world = make_snapshot([*steady, (1, 2), (1, 3), (2, 3)], days_ago=[*range(400), 0.0, 0.0, 0.0])
    assert world.trend[1] < 0.2 * world.trend[2]
    assert world.trend[2] < world.trend[3]


@pytest.mark.parametrize(("generator", "newest"), [(last, 1), (last_3, 3)])
def test_neighbours_of_the_last_items_equal_brute_force(generator: object, newest: int) -> None:
    rng = np.random.default_rng(8)
    bought = [(u, i) for u in range(USERS) for i in rng.permutation(ITEMS)[: rng.integers(0, 6)]]
    vectors = rng.normal(size=(ITEMS, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[2] = 0
    world = make_snapshot(bought, item_vectors=vectors)
    items, scores, _ = generator(world, EVERYBODY, ITEMS)
    texts = world.whitened_items
    for user in range(USERS):
        mean = np.sum([texts[i] for u, i in bought[::-1] if u == user][:newest], axis=0)
        found = items[user] >= 0
        if not np.any(mean):
            assert not found.any()
            continue
        cosine = texts @ (mean / np.linalg.norm(mean))
        allowed = [i for i in range(ITEMS) if texts[i].any() and (user, i) not in bought]
        best = sorted(allowed, key=lambda i: -cosine[i])
        assert items[user, found].tolist() == best
        np.testing.assert_allclose(scores[user, found], cosine[best], atol=1e-5)


def test_new_items_are_near_to_the_profile_or_else_popular() -> None:
    vectors = np.zeros((ITEMS, 2), dtype=np.float32)
    vectors[[4, 7, 8]] = [1, 0]
    vectors[9] = [0.6, 0.8]
    age = [300.0] * ITEMS
    age[7], age[8], age[9], age[10], age[11] = 30.0, 30.1, 2.0, np.nan, 1.0
    bought = [(0, 4), (1, 11), (2, 11), (2, 9), (3, 8), (3, 10)]
    world = make_snapshot(bought, item_vectors=vectors, item_age=age)
    items, scores, _ = new(world, np.array([0, 5], dtype=np.int32), 3)
    assert items.tolist() == [[7, 9, -1], [11, 9, -1]]
    popularity = 2 ** (-1 / 30)
    np.testing.assert_allclose(scores[:, :2], [[1, 0.6], [2 * popularity, popularity]], rtol=1e-6)


def test_history_is_ordered_by_decayed_weight() -> None:
    world = make_snapshot([(0, 1), (0, 2), (0, 3)], days_ago=[60, 1, 30], excluded=[(0, 2)])
    items, scores, _ = history(world, np.array([0], dtype=np.int32), 3)
    assert items.tolist() == [[3, 1, -1]]
    np.testing.assert_allclose(scores[0, :2], [2.0, 1.0])  # buy weighs 4, half life 30 days


def test_own_reviews_do_not_bring_back_the_own_item() -> None:
    world = make_snapshot(
        [],
        reviews=[(0, 3), (1, 6)],
        review_vectors=np.array([[1, 0], [0.6, 0.8]], dtype=np.float32),
    )
    items, scores, _ = reviews(world, np.array([0], dtype=np.int32), 2)
    assert items.tolist() == [[6, -1]]
    np.testing.assert_allclose(scores[0, 0], 0.6, rtol=1e-6)


def test_a_reviewed_item_counts_by_its_nearest_review() -> None:
    world = make_snapshot(
        [(0, 0)],
        item_vectors=np.eye(ITEMS, 2, dtype=np.float32),
        reviews=[(1, 5), (2, 5), (3, 6)],
        review_vectors=np.array([[0, 1], [0.8, 0.6], [0.6, 0.8]], dtype=np.float32),
    )
    items, scores, _ = reviews(world, np.array([0], dtype=np.int32), 3)
    assert items[0, :2].tolist() == [5, 6]
    np.testing.assert_allclose(scores[0, :2], [0.8, 0.6], rtol=1e-6)


def test_a_profile_is_the_decayed_mean_of_items_and_own_reviews() -> None:
    world = make_snapshot(
        [(0, 0), (0, 1)],
        days_ago=[30, 0.0],
        item_vectors=np.eye(ITEMS, 3, dtype=np.float32),
        reviews=[(0, 0)],
        review_vectors=np.array([[0, 0, 1]], dtype=np.float32),
    )
    # buy weighs 4 and halves in 30 days; the review, one day old, weighs 2 * 2 ** (-1 / 30)
    expected = np.array([2.0, 4.0, 2.0 * 2 ** (-1 / 30)])
    profile = world.profiles(np.array([0, 1], dtype=np.int32))
    np.testing.assert_allclose(profile[0], expected / np.linalg.norm(expected), rtol=1e-5)
    assert not profile[1].any()
    assert world.as_of == AS_OF


def test_a_review_weighs_as_glad_as_it_is() -> None:
    world = make_snapshot(
        [],
        reviews=[(0, 0), (0, 1), (0, 2)],
        review_vectors=np.eye(3, dtype=np.float32),
        item_vectors=np.zeros((ITEMS, 3), np.float32),
        sentiments=[1.0, 0.25, 0.0],
    )
    # a neutral one weighs 2; all of them are a day old
    weights = np.array([4.0, 1.0, 0.0])
    np.testing.assert_allclose(
        world.review_affinity[[0]].toarray()[0], weights * 2 ** (-1 / 30), rtol=1e-6
    )
    profile = world.profiles(np.array([0], dtype=np.int32))
    np.testing.assert_allclose(profile[0], weights / np.linalg.norm(weights), rtol=1e-6)


def test_behaviours_weigh_as_configured() -> None:
    assert make_snapshot([(0, 1)], behaviour="view").affinity[0, 1] == pytest.approx(2 ** (-1 / 30))
    with pytest.raises(pl.exceptions.PolarsError):
        _ = make_snapshot([(0, 1)], behaviour="sniff").affinity
