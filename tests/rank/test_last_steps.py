"""The two-tower model's view of each latest item, by hand."""

from dataclasses import replace

import numpy as np
import polars as pl

from rank.features import GROUPS, Features
from rank.known import Known

OTHERS = [group for group in GROUPS if group != "last_steps"]


def test_log_odds_of_each_latest_item_alone(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray
) -> None:
    rng = np.random.default_rng(5)
    n_items = len(known.items)
    asks = rng.normal(size=(n_items, 4)).astype(np.float32)
    asks[7] = 0  # an item that asks nothing
    answers = rng.normal(size=(n_items, 4)).astype(np.float32)
    fitted = replace(known, asks=asks, answers=answers)
    found = Features(fitted, without=OTHERS)(pairs, profiles)
    assert found.columns == [*(f"log_odds_{n}" for n in range(1, 6)), "log_odds_max"]
    asked = 0
    for row, user, item in zip(found.iter_rows(), pairs["user"], pairs["item"], strict=True):
        last = known.last_items[user][:5]
        odds = [
            float(asks[i] @ answers[item]) if i >= 0 and i != 7 else np.nan for i in last.tolist()
        ]
        np.testing.assert_allclose(row[:5], odds, rtol=1e-5, atol=1e-6)
        most = max((o for o in odds if not np.isnan(o)), default=np.nan)
        np.testing.assert_allclose(row[5], most, rtol=1e-5, atol=1e-6)
        asked += int((last == 7).sum())
    assert asked > 0


def test_without_the_model_there_is_no_column(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray
) -> None:
    assert Features(known, without=OTHERS)(pairs, profiles).columns == []
