import numpy as np
import polars as pl
import pytest
from worlds import AS_OF, ITEMS, USERS, checkerboard, make_snapshot, missing_item

from index.generators import GENERATORS, history, nearest, popular, reviews
from index.snapshot import Snapshot

EVERYBODY = np.arange(USERS, dtype=np.int32)


@pytest.mark.parametrize("name", ["nearest", "reviews", "cooccurrence", "ease", "similar"])
def test_the_missing_item_of_the_own_colour_comes_first(name: str) -> None:
    items, _ = GENERATORS[name](checkerboard(), EVERYBODY, 3)
    assert items[:, 0].tolist() == [missing_item(user) for user in range(USERS)]


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_nothing_excluded_or_ineligible_is_proposed(name: str) -> None:
    world = checkerboard()
    eligible = np.ones(ITEMS, dtype=bool)
    eligible[[2, 3]] = False
    limited = Snapshot(**(vars_of(world) | {"eligible": eligible}))
    items, _ = GENERATORS[name](limited, EVERYBODY, ITEMS)
    barred = world.excluded.toarray() > 0
    for user in range(USERS):
        proposed = items[user][items[user] >= 0]
        assert not set(proposed) & {2, 3}
        assert not barred[user, proposed].any()


def vars_of(snapshot: Snapshot) -> dict[str, object]:
    return {name: getattr(snapshot, name) for name in Snapshot.__dataclass_fields__}


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_a_world_without_rows_proposes_nothing(name: str) -> None:
    items, _ = GENERATORS[name](make_snapshot([]), EVERYBODY, 4)
    assert (items == -1).all()


def test_a_user_without_history_gets_what_is_popular_only() -> None:
    world = make_snapshot([(0, 5), (1, 5), (1, 2)], item_vectors=np.eye(ITEMS, dtype=np.float32))
    nobody = np.array([9], dtype=np.int32)
    assert popular(world, nobody, 2)[0].tolist() == [[5, 2]]
    for name in sorted(GENERATORS.keys() - {"popular"}):
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
    items, scores = popular(world, np.array([5], dtype=np.int32), 3)
    assert items.tolist() == [[2, 1]]
    np.testing.assert_allclose(scores, [[1.0, 0.75]])


def test_history_is_ordered_by_decayed_weight() -> None:
    world = make_snapshot([(0, 1), (0, 2), (0, 3)], days_ago=[60, 1, 30], excluded=[(0, 2)])
    items, scores = history(world, np.array([0], dtype=np.int32), 3)
    assert items.tolist() == [[3, 1, -1]]
    np.testing.assert_allclose(scores[0, :2], [2.0, 1.0])  # buy weighs 4, half life 30 days


def test_own_reviews_do_not_bring_back_the_own_item() -> None:
    world = make_snapshot(
        [],
        reviews=[(0, 3), (1, 6)],
        review_vectors=np.array([[1, 0], [0.6, 0.8]], dtype=np.float32),
    )
    items, scores = reviews(world, np.array([0], dtype=np.int32), 2)
    assert items.tolist() == [[6, -1]]
    np.testing.assert_allclose(scores[0, 0], 0.6, rtol=1e-6)


def test_a_reviewed_item_counts_by_its_nearest_review() -> None:
    world = make_snapshot(
        [(0, 0)],
        item_vectors=np.eye(ITEMS, 2, dtype=np.float32),
        reviews=[(1, 5), (2, 5), (3, 6)],
        review_vectors=np.array([[0, 1], [0.8, 0.6], [0.6, 0.8]], dtype=np.float32),
    )
    items, scores = reviews(world, np.array([0], dtype=np.int32), 3)
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


def test_behaviours_weigh_as_configured() -> None:
    assert make_snapshot([(0, 1)], behaviour="view").affinity[0, 1] == pytest.approx(2 ** (-1 / 30))
    with pytest.raises(pl.exceptions.PolarsError):
        _ = make_snapshot([(0, 1)], behaviour="sniff").affinity
