import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from embed import towers
from embed.towers import Towers, fit_towers

ITEMS = 12


def cycle(n: int = 600) -> tuple[sp.csr_array, NDArray[np.int32]]:
    """After item i comes item i + 1, whatever was before; the last item never occurs."""
    rng = np.random.default_rng(0)
    last = rng.integers(0, ITEMS - 2, n)
    rows = np.arange(n)
    histories = sp.csr_array((np.ones(n, np.float32), (rows, last)), shape=(n, ITEMS))
    return histories, (last + 1).astype(np.int32)


def texts(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(ITEMS, 6)).astype(np.float32)


def log_odds(fitted: Towers, item: int) -> NDArray[np.float32]:
    query = fitted.asks[item] / np.linalg.norm(fitted.asks[item])
    return fitted.answers @ np.append(query, 1.0).astype(np.float32)


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
    assert np.array_equal(one.asks[:-1], two.asks[:-1])
    assert np.array_equal(one.answers[:-1], two.answers[:-1])


def test_the_seed_decides() -> None:
    one, again, other = (fit_towers(texts(), *cycle(), seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.asks, again.asks)
    assert np.array_equal(one.answers, again.answers)
    assert not np.array_equal(one.asks, other.asks)


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
    histories, following = cycle(50)
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
    # The mean is exact where the queries of the models are equally long.
    unit = [
        Towers(one.asks / np.linalg.norm(one.asks, axis=1, keepdims=True), one.answers)
        for one in parts
    ]
    mean = towers._mean(unit)
    for item in range(ITEMS):
        expected = np.mean([log_odds(one, item) for one in unit], axis=0)
        np.testing.assert_allclose(log_odds(mean, item), expected, rtol=1e-5, atol=1e-6)


def test_no_history_at_all_gives_towers_of_text() -> None:
    nothing = sp.csr_array((0, ITEMS), dtype=np.float32)
    fitted = fit_towers(texts(), nothing, np.empty(0, np.int32), seed=0)
    assert np.isfinite(fitted.asks).all()
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
            found.append(fit_towers(vectors, histories, following, seed=0))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(found[0].asks, found[1].asks)
    assert np.array_equal(found[0].answers, found[1].answers)
