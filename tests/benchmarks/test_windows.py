from datetime import datetime
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rings import USERS, material_of, write_folder

from benchmarks.ranks import recall_curve
from benchmarks.sequences import NoTimesError, Sequences, read_sequences, shuffled_days, with_times
from benchmarks.windows import END, Window, cut_before
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
        found = Window.of(cut_before(material, last), projection)
        assert_frame_equal(found.targets, expected, check_dtypes=False)
        hits = found.example.features.filter(pl.Series(found.example.happened))
        assert len(hits) > 0.8 * USERS  # the next of the ring is found for nearly all


def test_nothing_learnt_for_the_last_item_knows_it_or_others_validation_items(
    material: Material, tmp_path: Path
) -> None:
    """Others' second-last items, and everybody's last, change no feature of a user."""
    changed = material_of(write_folder(tmp_path / "folder", changed=(1, 2)), tmp_path / "home")
    projection = material.fit_projection(END)
    one, two = (Window.of(cut_before(m, 1), projection) for m in (material, changed))
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
    assert read.events.select("user_id", "item_id", "from_last").rows() == [
        (1, 6, 3), (1, 4, 2), (1, 3, 1),
    ]  # fmt: skip


def test_recall_curve_counts_the_misses(material: Material) -> None:
    found = Window.of(cut_before(material, 1), material.fit_projection(END))
    curve = recall_curve(found.example, 2 * USERS, budgets=(1, 300))
    assert curve["recall@300"] == found.example.happened.sum() / (2 * USERS)
    assert curve["recall@1"] <= curve["recall@300"]


def sequences_of(days: list[int | None]) -> Sequences:
    """Two users with one event a day number, the items in order."""
    n = len(days)
    ts = [None if day is None else datetime(2014, 1, 1 + day) for day in days]
    events = pl.DataFrame(
        {
            "user_id": [1] * n + [2] * n,
            "item_id": [*range(n), *range(100, 100 + n)],
            "from_last": [*range(n, 0, -1)] * 2,
            "ts": pl.Series(ts * 2, dtype=pl.Datetime("us")),
        }
    )
    return Sequences(pl.DataFrame(), events)


def test_only_neighbours_of_one_day_change_places_and_never_the_last_two() -> None:
    # Day 3 comes twice with day 1 between: its events are no neighbours.
    days = [0, 0, 0, 3, 1, 3, 4, 4, 4, 4]
    orders = set()
    for seed in range(99):
        mixed = shuffled_days(sequences_of(days), seed=seed).events
        assert mixed["from_last"].to_list() == [*range(10, 0, -1)] * 2
        one = mixed.filter(user_id=1)["item_id"].to_list()
        assert sorted(one[:3]) == [0, 1, 2]
        assert one[3:6] == [3, 4, 5]
        assert sorted(one[6:8]) == [6, 7]
        assert one[8:] == [8, 9]
        orders.add(tuple(one))
    assert len(orders) == 12


def test_without_any_time_days_cannot_be_shuffled() -> None:
    for ask in (partial(shuffled_days, seed=0), with_times):
        with pytest.raises(NoTimesError, match="no `timestamp`"):
            ask(sequences_of([None, None, None]))


def test_a_user_without_any_time_keeps_the_order_and_has_no_place_in_time() -> None:
    timed = sequences_of([0, 0, 0, 0, 0])
    untimed = pl.when(pl.col("user_id") == 1).then("ts")
    some = Sequences(timed.items, timed.events.with_columns(untimed))
    orders = set()
    for seed in range(9):
        mixed = shuffled_days(some, seed=seed).events
        assert mixed.filter(user_id=2)["item_id"].to_list() == [*range(100, 105)]
        orders.add(tuple(mixed.filter(user_id=1)["item_id"]))
    assert len(orders) > 1
    assert with_times(some).events.equals(some.events.filter(user_id=1))


def test_an_event_without_a_time_has_that_of_its_neighbour() -> None:
    mixed = [shuffled_days(sequences_of([0, None, 0, 5, 5]), seed=s).events for s in range(99)]
    assert len({tuple(m.filter(user_id=1)["item_id"]) for m in mixed}) == 6
