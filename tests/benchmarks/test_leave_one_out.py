"""The benchmark's own bookkeeping, and one whole table on a small ring of items."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rings import ITEMS, USERS, material_of, write_folder

from benchmarks.against import measured, split_of
from benchmarks.contest import show
from benchmarks.windows import NOT_OF_TEXT, cut_before, windows_of


def test_peers_see_one_event_less_in_their_matrices_and_never_the_target(tmp_path: Path) -> None:
    material = material_of(write_folder(tmp_path / "folder"), tmp_path / "home")
    split, targets = split_of(cut_before(material, 1))
    events = material.inputs.events.sort("user", "ts")
    for user in range(USERS):
        sequence = events.filter(pl.col("user") == user)["item"].to_list()
        seen = {
            name: rows.filter(pl.col("user") == user).sort("place")["item"].to_list()
            for name, rows in (("train", split.train), ("history", split.history))
        }
        assert seen == {"train": sequence[:-2], "history": sequence[:-1]}
        assert targets[user] == sequence[-1]
    assert (split.n_users, split.n_items) == (USERS, ITEMS)


def test_lists_are_measured_with_middle_ranks_over_all_targets() -> None:
    items = np.array([[3, 4, 5], [6, 7, -1], [8, 9, -1]])
    scores = np.array([[2.0, 1.0, 1.0], [1.0, 0.5, -np.inf], [1.0, 0.5, -np.inf]])
    found = measured((items, scores), np.array([4, 6, 1]))  # ranks 2.5, 1, none
    assert found["hr@10"] == pytest.approx(2 / 3)
    assert found["ndcg@10"] == pytest.approx((1 / np.log2(3.5) + 1) / 3)


def test_without_text_nothing_of_the_texts_is_left(tmp_path: Path) -> None:
    material = material_of(write_folder(tmp_path / "folder"), tmp_path / "home")
    (found,) = windows_of([cut_before(material, 1).without_text()])
    example = found.example
    cosines = example.features.select(pl.col("^.*(cosine|_nearest|_similar).*$"))
    assert cosines.width > 10
    assert {column.n_unique() for column in cosines.fill_nan(None)} == {1}  # all unknown, or 0


def test_text_only_has_no_feature_of_behaviour(tmp_path: Path) -> None:
    material = material_of(write_folder(tmp_path / "folder"), tmp_path / "home")
    (found,) = windows_of([cut_before(material, 1).only_text()], without=NOT_OF_TEXT)
    names = found.example.features.columns
    assert "score_similar" in names
    assert not [n for n in names if "directed" in n or "popular" in n or "like" in n]


def test_the_table_has_mean_and_spread_of_the_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"system": "x", "seed": seed, "hr@10": 0.1 + 0.02 * seed} for seed in range(3)]
    show(rows)
    printed = capsys.readouterr().out
    assert "0.12" in printed
    assert "0.02" in printed
