from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from benchmarks import publish

ROWS = 3000
KEYS = ["user_id", "position"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish.write_rows(tmp_path, ROWS)
    return tmp_path


def read(target: Path, way: str) -> pl.DataFrame:
    if way == publish.COPY:
        return pl.read_parquet(target)
    with duckdb.connect(str(target), read_only=True) as connection:
        return connection.sql("select * from predictions").pl()


def test_every_way_writes_the_rows_of_the_shards(folder: Path) -> None:
    expected = pl.read_parquet(folder / "shards" / "*.parquet").sort(KEYS)
    assert expected.select("user_id", "item_id").is_unique().all()
    for way in publish.WAYS:
        target = publish.target_of(folder, way)
        publish.timed(way, folder / "shards", target, ROWS // publish.PER_USER)
        found = read(target, way)
        if way == "nightrank":
            assert_frame_equal(found.select(KEYS), expected.select(KEYS))
        assert_frame_equal(found.select(expected.columns).sort(KEYS), expected)


def test_the_key_refuses_a_pair_that_is_there_twice(folder: Path) -> None:
    first, *_ = sorted((folder / "shards").glob("*.parquet"))
    (folder / "shards" / "999999.parquet").write_bytes(first.read_bytes())
    with pytest.raises(duckdb.ConstraintException):
        publish.with_key(folder / "shards", folder / "keyed.db")
