from itertools import starmap

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from embed import towers
from embed.towers import Towers, fit_towers

ITEMS = 12


def cycle(n: int = 600) -> tuple[list[sp.csr_array], NDArray[np.int32]]:
    """After item i comes item i + 1, whatever was before; the last item never occurs.

    Histories of two models that weigh them alike.
    """
    rng = np.random.default_rng(0)
    last = rng.integers(0, ITEMS - 2, n)
    rows = np.arange(n)
    histories = sp.csr_array((np.ones(n, np.float32), (rows, last)), shape=(n, ITEMS))
    return [histories, histories], (last + 1).astype(np.int32)


def texts(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(ITEMS, 6)).astype(np.float32)


def log_odds(fitted: Towers, item: int) -> NDArray[np.float32]:
    queries = [table[item] / np.linalg.norm(table[item]) for table in fitted.asks]
    query = np.hstack(queries) / len(queries) ** 0.5
    return fitted.answers @ np.append(query, 1.0).astype(np.float32)


def same(one: Towers, other: Towers) -> bool:
    asks = zip(one.asks, other.asks, strict=True)
    return all(starmap(np.array_equal, asks)) and np.array_equal(one.answers, other.answers)


def test_learns_what_follows_what() -> None:
    fitted = fit_towers(texts(), *cycle(), seed=0)
    following = [int(log_odds(fitted, item)[:-1].argmax()) for item in range(ITEMS - 2)]
    assert following == list(range(1, ITEMS - 1))


def test_learns_without_any_text() -> None:
    fitted = fit_towers(np.zeros((ITEMS, 6), np.float32), *cycle(), seed=0)
    following = [int(log_odds(fitted, item)[:-1].argmax()) for item in range(ITEMS - 2)]
    assert following == list(range(1, ITEMS - 1))


def test_an_item_without_events_is_found_by_its_text() -> None:
    vectors = texts()
    vectors[ITEMS - 1] = vectors[5]
    fitted = fit_towers(vectors, *cycle(), seed=0)
    odds = log_odds(fitted, 4)
    assert odds[ITEMS - 1] > np.median(odds)
    assert (odds > odds[ITEMS - 1]).sum() <= 3
    assert fitted.answers[ITEMS - 1, -1] == pytest.approx(fitted.answers[:-1, -1].mean(), abs=1e-5)


def test_the_items_that_do_not_occur_change_nothing_for_the_others() -> None:
    vectors = texts()
    one = fit_towers(vectors, *cycle(), seed=0)
    vectors[ITEMS - 1] = 9.0
    two = fit_towers(vectors, *cycle(), seed=0)
    known = slice(ITEMS - 1)
    for before, after in zip((*one.asks, one.answers), (*two.asks, two.answers), strict=True):
        assert np.array_equal(before[known], after[known])


def test_the_seed_decides() -> None:
    one, again, other = (fit_towers(texts(), *cycle(), seed=seed) for seed in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)


def cross_entropy(fitted: Towers, histories: sp.csr_array, following: NDArray[np.int32]) -> float:
    """By hand, over all items."""
    losses = []
    for row, target in enumerate(following):
        odds = log_odds(fitted, int(histories[[row]].indices[0])).astype(float)
        losses.append(np.log(np.exp(odds).sum()) - odds[target])
    return float(np.mean(losses))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing dropped, nothing smoothed."""
    monkeypatch.setattr(towers, "DROPOUT", 0.0)
    monkeypatch.setattr(towers, "SMOOTHING", 0.0)
    return monkeypatch


def test_the_loss_is_the_cross_entropy_of_the_log_odds(plain: pytest.MonkeyPatch) -> None:
    (histories, _), following = cycle(50)
    model = towers._Model(texts(), torch.Generator().manual_seed(3))
    loss = model.loss(histories, torch.from_numpy(following.astype(np.int64)))
    fitted = model.towers(texts(), np.arange(ITEMS))
    assert loss.item() == pytest.approx(cross_entropy(fitted, histories, following), rel=1e-4)


def test_a_sample_of_the_items_stands_for_all(plain: pytest.MonkeyPatch) -> None:
    """The sum over sampled items, weighted, is that over all: exactly so in the mean of draws."""
    model = towers._Model(texts(), torch.Generator().manual_seed(3))
    following = torch.tensor([2, 7])
    odds = torch.randn(ITEMS, generator=torch.Generator().manual_seed(1))
    plain.setattr(towers, "SAMPLED_ITEMS", 5)
    sums = []
    for _ in range(4000):
        shown, weight = model.sample(following)
        assert set(following.tolist()) <= set(shown.tolist())
        sums.append((odds[shown].exp() * weight).sum().item())
    assert np.mean(sums) == pytest.approx(odds.exp().sum().item(), rel=0.02)


def test_learns_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "SAMPLED_ITEMS", 6)
    monkeypatch.setattr(towers, "BATCH", 4)
    monkeypatch.setattr(towers, "EPOCHS", 6)
    fitted = fit_towers(texts(), *cycle(), seed=0)
    following = [int(log_odds(fitted, item)[:-1].argmax()) for item in range(ITEMS - 2)]
    assert np.mean(np.array(following) == np.arange(1, ITEMS - 1)) > 0.8


def test_the_log_odds_are_the_mean_of_the_models() -> None:
    parts = [
        towers._Model(texts(), torch.Generator().manual_seed(seed)).towers(
            texts(), np.arange(ITEMS)
        )
        for seed in (3, 4)
    ]
    mean = towers._mean(parts)
    for item in range(ITEMS):
        expected = np.mean([log_odds(one, item) for one in parts], axis=0)
        np.testing.assert_allclose(log_odds(mean, item), expected, rtol=1e-5, atol=1e-6)


def test_no_history_at_all_gives_towers_of_text() -> None:
    nothing = sp.csr_array((0, ITEMS), dtype=np.float32)
    fitted = fit_towers(texts(), [nothing], np.empty(0, np.int32), seed=0)
    assert np.isfinite([*fitted.asks]).all()
    assert np.isfinite(fitted.answers).all()


def test_one_and_two_threads_learn_the_same() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1200, 128)).astype(np.float32)
    following = rng.integers(0, 1200, 600).astype(np.int32)
    pairs = (np.arange(600), rng.integers(0, 1200, 600))
    histories = sp.csr_array((np.ones(600, np.float32), pairs), shape=(600, 1200))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(fit_towers(vectors, [histories] * 3, following, seed=0))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same(*found)


def test_each_model_reads_the_histories_as_it_weighs_them() -> None:
    """Where the older item is the one that tells, a model that forgets it cannot learn."""
    rng = np.random.default_rng(0)
    older, latest = rng.integers(0, 4, 600), rng.integers(4, 8, 600)
    rows = np.concatenate([np.arange(600)] * 2)
    told, deaf = (
        sp.csr_array(
            (np.repeat([weight, 1.0], 600).astype(np.float32), (rows, np.append(older, latest))),
            shape=(600, ITEMS),
        )
        for weight in (1.0, 0.0)
    )
    fitted = fit_towers(texts(), [told, deaf], (older + 8).astype(np.int32), seed=0)
    width = fitted.asks[0].shape[1]
    right = []
    for number, table in enumerate(fitted.asks):
        answers = fitted.answers[8:, number * width : (number + 1) * width]
        right.append(np.mean((table[:4] @ answers.T).argmax(axis=1) == np.arange(4)))
    assert right[0] == 1.0
    assert right[1] < 1.0
