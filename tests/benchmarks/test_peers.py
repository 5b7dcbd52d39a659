"""Every peer on worlds with a known answer, and what each must have in common."""

import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.peers import GRID, PEERS, SEEDED, PeerUnavailableError, Split, chosen, ndcg

PACKAGES = {
    "implicit_als": ("implicit",),
    "implicit_bpr": ("implicit",),
    "rectools_two_stage": ("implicit", "pandas", "rectools"),
}
ALL = list(PEERS)
PERSONAL = [name for name in PEERS if name != "popularity"]
SCHEMA = {"user": pl.Int32, "item": pl.Int32, "place": pl.Int32}


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The peer of the test; skipped where its packages are not installed."""
    peer: str = request.param
    absent = [package for package in PACKAGES.get(peer, ()) if find_spec(package) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed: extra `peers`, docs/decisions/0003")
    return peer


def split_of(histories: list[list[int]], *, n_items: int, held_back: int = 1) -> Split:
    """Everybody is predicted for; the `held_back` last items of a history are not in `train`."""
    rows = [
        (user, item, place, len(history) - place)
        for user, history in enumerate(histories)
        for place, item in enumerate(history)
    ]
    frame = pl.DataFrame(rows, {**SCHEMA, "back": pl.Int32}, orient="row")
    users = np.arange(len(histories), dtype=np.int32)
    train = frame.filter(pl.col("back") > held_back).drop("back")
    return Split(train, frame.drop("back"), len(histories), n_items, users)


def checkerboard(n: int) -> Split:
    """User u has every item of their own parity but item u, which alone is left to recommend."""
    return split_of([[(u + 2 * i) % n for i in range(1, n // 2)] for u in range(n)], n_items=n)


def random_split(seed: int) -> Split:
    """40 users of two tastes with 2 to 7 of 30 items; the last of each is not in `train`."""
    rng = np.random.default_rng(seed)
    histories = []
    for user in range(40):
        taste = np.where(np.arange(30) % 2 == user % 2, 5.0, 1.0)
        size = int(rng.integers(2, 8))
        histories.append(rng.choice(30, size, replace=False, p=taste / taste.sum()).tolist())
    return split_of(histories, n_items=30)


@pytest.mark.parametrize("name", PERSONAL, indirect=True)
def test_checkerboard(name: str) -> None:
    items, _ = PEERS[name](checkerboard(50), 1, 0)
    assert items.ravel().tolist() == list(range(50))


def test_popularity_counts_users_of_train() -> None:
    split = split_of([[0, 1, 4], [1, 2, 4], [1, 3, 4], [3, 0, 2]], n_items=6)
    items, scores = PEERS["popularity"](split, 4, 0)
    assert items.tolist() == [[3, 2, -1, -1], [0, 3, -1, -1], [0, 2, -1, -1], [1, -1, -1, -1]]
    assert scores[0].tolist() == [2.0, 1.0, -np.inf, -np.inf]


@pytest.mark.parametrize("name", ALL, indirect=True)
def test_lists_are_ordered_distinct_and_never_hold_the_history(name: str) -> None:
    split = random_split(1)
    items, scores = PEERS[name](split, 12, 0)
    assert items.shape == scores.shape == (40, 12)
    assert items.dtype == np.int32
    assert scores.dtype == np.float32
    for user, row, score in zip(split.users, items, scores, strict=True):
        listed = row[row >= 0].tolist()
        own = split.history.filter(pl.col("user") == user)["item"].to_list()
        assert listed
        assert len(set(listed)) == len(listed)
        assert not set(listed) & set(own)
        assert ((row == -1) == np.isneginf(score)).all()
        pairs = list(zip(-score, row, strict=True))[: len(listed)]
        assert pairs == sorted(pairs)


@pytest.mark.parametrize("name", ALL, indirect=True)
def test_only_predicted_users_get_lists(name: str) -> None:
    split = random_split(2)
    some = np.array([3, 17, 39], dtype=np.int32)
    items, scores = PEERS[name](replace(split, users=some), 5, 0)
    everybody = PEERS[name](split, 5, 0)
    np.testing.assert_array_equal(items, everybody[0][some])
    np.testing.assert_allclose(scores, everybody[1][some], rtol=1e-5)


@pytest.mark.parametrize("name", ALL, indirect=True)
def test_the_history_of_others_beyond_train_is_not_known(name: str) -> None:
    split = random_split(3)
    first = split.history.filter(pl.col("user") == 0)
    without = pl.concat([first, split.train.filter(pl.col("user") != 0)])
    alone = np.array([0], dtype=np.int32)
    found = PEERS[name](replace(split, users=alone), 10, 0)
    expected = PEERS[name](replace(split, history=without, users=alone), 10, 0)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("name", ALL, indirect=True)
def test_users_and_items_that_train_does_not_know(name: str) -> None:
    """The last user and the last item occur in the history only."""
    known = random_split(4)
    late = pl.DataFrame([(40, 2, 0), (40, 30, 1), (0, 30, 9)], SCHEMA, orient="row")
    users = np.arange(41, dtype=np.int32)
    split = Split(known.train, pl.concat([known.history, late]), 41, 31, users)
    items, scores = PEERS[name](split, 5, 0)
    assert 2 not in items[40]
    assert 30 not in items[[0, 40]]
    assert (items[40] >= 0).all()
    assert np.isfinite(scores[40]).all()


@pytest.mark.parametrize("name", ALL, indirect=True)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    first, second = (PEERS[name](random_split(5), 10, 7) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


worlds = st.lists(
    st.lists(st.integers(0, 6), min_size=2, max_size=6, unique=True), min_size=2, max_size=8
)


def dense(histories: list[list[int]], *, decay: float, cut: int = 0) -> np.ndarray:
    matrix = np.zeros((len(histories), 7))
    for user, history in enumerate(histories):
        for later, item in enumerate(reversed(history[: len(history) - cut])):
            matrix[user, item] = decay**later
    return matrix


def assert_best_first(found: tuple[np.ndarray, np.ndarray], scores: np.ndarray) -> None:
    """Lists of all 7 items against dense scores, -inf where an item may not be listed."""
    items, values = found
    for row, value, score in zip(items, values, scores, strict=True):
        listed = row[row >= 0]
        assert sorted(listed.tolist()) == np.flatnonzero(score > -np.inf).tolist()
        np.testing.assert_allclose(value[: len(listed)], score[listed], rtol=1e-4, atol=1e-5)
        assert (np.diff(value[: len(listed)]) <= 0).all()


@settings(max_examples=30)
@given(worlds)
def test_itemknn_equals_brute_force(histories: list[list[int]]) -> None:
    train = dense(histories, decay=1.0, cut=1)
    scores = np.zeros((len(histories), 7))
    for user, weights in enumerate(dense(histories, decay=0.7)):
        for own in np.flatnonzero(weights):
            for other in range(7):
                a, b = train[:, own], train[:, other]
                if other != own and a @ b > 0:
                    scores[user, other] += weights[own] * (a @ b) / np.sqrt(a.sum() * b.sum())
    scores[(scores == 0) | (dense(histories, decay=1.0) > 0)] = -np.inf
    assert_best_first(PEERS["itemknn"](split_of(histories, n_items=7), 7, 0), scores)


@settings(max_examples=30)
@given(worlds, st.sampled_from([2.0, 50.0]))
def test_ease_equals_least_squares(histories: list[list[int]], penalty: float) -> None:
    """Each item from all others by ridge regression, as least squares of stacked rows."""
    train = dense(histories, decay=1.0, cut=1)
    weights = np.zeros((7, 7))
    for item in range(7):
        others = np.delete(np.arange(7), item)
        rows = np.vstack([train[:, others], np.sqrt(penalty) * np.eye(6)])
        wanted = np.concatenate([train[:, item], np.zeros(6)])
        weights[others, item] = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    scores = dense(histories, decay=0.7) @ weights
    scores[dense(histories, decay=1.0) > 0] = -np.inf
    ease = partial(PEERS["ease"], penalty=penalty)
    assert_best_first(ease(split_of(histories, n_items=7), 7, 0), scores)


def test_als_reads_the_history_and_bpr_does_not() -> None:
    """A user of odd items whose history goes over to even ones."""
    pytest.importorskip("implicit", reason="implicit not installed: extra `peers`")
    board = [[(u + 2 * i) % 40 for i in range(12)] for u in range(40)]
    split = split_of([*board, [1, 3, 0, 2, 4, 6, 8, 10]], n_items=40, held_back=6)
    user = replace(split, users=np.array([40], dtype=np.int32))
    earlier = replace(user, history=split.train)
    assert (PEERS["implicit_als"](earlier, 3, 0)[0] % 2 == 1).all()
    assert (PEERS["implicit_als"](user, 3, 0)[0] % 2 == 0).all()
    before, after = (
        dict(zip(items[0], scores[0], strict=True))
        for items, scores in (PEERS["implicit_bpr"](asked, 40, 0) for asked in (earlier, user))
    )
    assert {item: before[item] for item in after} == after


@pytest.mark.parametrize(("target", "decay"), [(2, 0.5), (3, 0.7)])
def test_chosen_is_the_best_of_the_grid_and_the_first_of_equals(target: int, decay: float) -> None:
    """Item 2 goes with item 0 by cosine 1/sqrt(3), item 3 with item 1 by cosine 1.

    After 1, then 0, item 2 has .577 and item 3 the decay: only .5 puts item 2 first.
    """
    split = split_of([[0, 2], [0], [0], [1, 3], [1, 0]], n_items=4, held_back=0)
    asking = np.array([4], dtype=np.int32)
    validation = replace(split, train=split.train.filter(pl.col("user") != 4), users=asking)
    assert chosen("itemknn", validation, np.array([target], dtype=np.int32)) == {"decay": decay}


def test_a_peer_without_grid_keeps_its_settings() -> None:
    assert chosen("popularity", random_split(6), np.zeros(40, dtype=np.int32)) == {}


def test_the_first_of_a_grid_is_the_default() -> None:
    for name, points in GRID.items():
        defaults = PEERS[name].__kwdefaults__
        assert points[0] == {key: defaults[key] for key in points[0]}


def test_ndcg_by_hand() -> None:
    items = np.array([[7, 8, 9], [7, 8, 9], [9, -1, -1]], dtype=np.int32)
    assert ndcg(items, np.array([9, 1, 9], dtype=np.int32)) == pytest.approx((0.5 + 0 + 1) / 3)


def test_ease_says_why_it_does_not_run() -> None:
    with pytest.raises(PeerUnavailableError, match=r"20,001 are more than 20,000"):
        PEERS["ease"](split_of([[0, 1]], n_items=20_001), 5, 0)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.als", None)
    with pytest.raises(PeerUnavailableError, match="extra `peers`"):
        PEERS["implicit_als"](random_split(7), 5, 0)


@pytest.mark.parametrize("name", [name for name in PEERS if name not in SEEDED])
def test_a_peer_without_seeds_has_one_list_for_all_of_them(name: str) -> None:
    split = random_split(5)
    first, second = (PEERS[name](split, 5, seed) for seed in (0, 1))
    assert all((one == other).all() for one, other in zip(first, second, strict=True))
