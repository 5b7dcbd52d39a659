from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rings import USERS, material_of, write_folder

from benchmarks.ranks import recall_curve
from benchmarks.sequences import Sequences, read_sequences
from benchmarks.windows import END, Window, window
from jobs.state import Material


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    home = tmp_path_factory.mktemp("benchmark")
    return material_of(write_folder(home / "folder"), home / "home")


def features(found: Window) -> pl.DataFrame:
    example = found.example
    users = pl.Series("user", example.users)
    return example.features.with_columns(users, happened=pl.Series(example.happened))


def test_each_window_asks_for_the_item_so_far_from_the_end(material: Material) -> None:
    projection = material.fit_projection(END)
    events = material.inputs.events.sort("user", "ts")
    for last in (1, 2, 3):
        expected = events.group_by("user", maintain_order=True).agg(pl.col("item").get(-last))
        found = window(material, last, projection)
        assert_frame_equal(found.targets, expected, check_dtypes=False)
        hits = found.example.features.filter(pl.Series(found.example.happened))
        assert len(hits) > 0.8 * USERS  # the next of the ring is found for nearly all


def test_nothing_learnt_for_the_last_item_knows_it_or_others_validation_items(
    material: Material, tmp_path: Path
) -> None:
    """Others' second-last items, and everybody's last, change no feature of a user."""
    changed = material_of(write_folder(tmp_path / "folder", changed=(1, 2)), tmp_path / "home")
    projection = material.fit_projection(END)
    one, two = (window(m, 1, projection) for m in (material, changed))
    same = pl.col("user") % 2 == 0  # whose own events did not change
    assert_frame_equal(features(one).filter(same), features(two).filter(same), check_exact=True)
    other = ~same
    assert not features(one).filter(other).equals(features(two).filter(other))


def test_ratings_under_four_and_short_histories_are_left_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    rated = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 1, 2, 2, 2],
            "item_id": [3, 4, 5, 6, 3, 4, 5],
            "rating": [5, 4, 3, 5, 5, 5, 1],
            "timestamp": [40, 30, 20, 10, 1, 2, 3],
        }
    )
    rated.write_parquet(folder / "interactions.parquet")
    read: Sequences = read_sequences(folder)
    assert read.events.select("user_id", "item_id", "place").rows() == [
        (1, 6, 0), (1, 4, 1), (1, 3, 2),
    ]  # fmt: skip


def test_recall_curve_counts_the_misses(material: Material) -> None:
    found = window(material, 1, material.fit_projection(END))
    curve = recall_curve(found.example, 2 * USERS, budgets=(1, 300))
    assert curve["recall@300"] == found.example.happened.sum() / (2 * USERS)
    assert curve["recall@1"] <= curve["recall@300"]
