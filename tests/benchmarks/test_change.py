"""What changes between two nights, by hand."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from published import publish_night, rows

from benchmarks.change import EVENTS_A_USER, FIRST, NEXT, SOURCES, changed, different, known
from jobs.shop import make_shop, write_shop


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(make_shop(users=200, items=50, days=60), folder)
    return known(folder)


def test_where_nothing_changes_the_next_day_has_no_row(sources: dict[str, pl.DataFrame]) -> None:
    assert max(sources[name]["ts"].max() for name in ("events", "reviews")) < FIRST
    same = changed(sources, 0.0, seed=1)
    for name in SOURCES:
        assert_frame_equal(same[name], sources[name])


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_so_many_texts_and_users_change(sources: dict[str, pl.DataFrame], share: float) -> None:
    after = changed(sources, share, seed=1)
    for name, column in (("items", "description"), ("reviews", "text")):
        differ = after[name][column].ne_missing(sources[name][column])
        assert differ.sum() == round(share * len(differ))
        assert_frame_equal(after[name].drop(column), sources[name].drop(column))
    before = sources["events"]
    new = after["events"][len(before) :]
    assert_frame_equal(after["events"][: len(before)], before)
    active = before["user_id"].n_unique()
    assert new["user_id"].n_unique() == round(share * active)
    assert new["ts"].is_between(FIRST, NEXT, closed="left").all()
    assert new.group_by("user_id").len()["len"].max() == EVENTS_A_USER
    did = before.select("user_id", "item_id", "behaviour").unique()
    assert len(new.join(did, on=did.columns, how="semi", nulls_equal=True)) == len(new)
    assert_frame_equal(changed(sources, share, seed=1)["events"], after["events"])


def test_tables_that_differ_are_named(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("a", "b", "c")]
    for home, probability in zip(homes, (0.25, 0.25, 0.25 + 1e-12), strict=True):
        publish_night(home, 1, rows(probability=probability))
    assert different(homes[0], homes[1]) == ""
    assert different(homes[0], homes[2]) == "item_demand, predictions"
