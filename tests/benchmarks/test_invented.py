from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from benchmarks.invented import DAYS, END, write_shop


def test_a_shop_of_the_wanted_size(tmp_path: Path) -> None:
    write_shop(tmp_path, users=400, items=300, events=6000)
    items, rows = (pl.read_parquet(tmp_path / f"{n}.parquet") for n in ("items", "interactions"))
    assert len(items) == items["item_id"].n_unique() == items["title"].n_unique() == 300
    assert len(rows) == 6000
    assert rows.select("user_id", "item_id").is_unique().all()
    assert rows["user_id"].is_between(0, 399).all()
    assert rows["item_id"].is_between(0, 299).all()
    assert rows["timestamp"].is_between(END - DAYS * 86_400, END - 1).all()
    assert_frame_equal(rows, rows.sort("user_id", "timestamp"))
    sold = rows.group_by("item_id").len().get_column("len").sort(descending=True)
    assert sold[:30].sum() > 0.2 * len(rows)  # a tenth of the items, twice its share


def test_the_same_seed_gives_the_same_shop(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shop(tmp_path / name, users=50, items=40, events=300)
    for file in ("items.parquet", "interactions.parquet"):
        one, two = (pl.read_parquet(tmp_path / name / file) for name in ("one", "two"))
        assert_frame_equal(one, two)
