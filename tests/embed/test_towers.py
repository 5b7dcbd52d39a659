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
    assert odds[ITEMS - 1] > np.median(odds) + 1
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


def test_the_loss_is_the_cross_entropy_of_the_log_odds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "DROPOUT", 0.0)
    histories, following = cycle(50)
    model = towers._Model(texts(), torch.Generator().manual_seed(3))
    loss = model.loss(histories, torch.from_numpy(following.astype(np.int64)))
    fitted = model.towers(texts(), np.arange(ITEMS))
    expected = []
    for row, target in enumerate(following):
        odds = log_odds(fitted, int(histories[[row]].indices[0])).astype(float)
        expected.append(np.log(np.exp(odds).sum()) - odds[target])
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_a_sample_of_many_items_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "MOST_ITEMS", 4)
    fitted = fit_towers(texts(), *cycle(), seed=0)
    following = [int(log_odds(fitted, item)[:-1].argmax()) for item in range(ITEMS - 2)]
    assert np.mean(np.array(following) == np.arange(1, ITEMS - 1)) > 0.8


def test_no_history_at_all_gives_towers_of_text() -> None:
    nothing = sp.csr_array((0, ITEMS), dtype=np.float32)
    fitted = fit_towers(texts(), nothing, np.empty(0, np.int32), seed=0)
    assert np.isfinite(fitted.asks).all()
    assert np.isfinite(fitted.answers).all()
