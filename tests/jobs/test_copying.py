"""Copies of the mart in other stores."""

from pathlib import Path

import duckdb
import polars as pl
import pytest
from marts import ask, night_file
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from jobs.cli import app
from jobs.copying import fill, to_parquet, to_postgres
from jobs.errors import ConfigError, InputMissing, ResourceError

MINIMAL = """
name = "shop"
[sources]
items = "items.parquet"
events = "events.parquet"
[events]
weights = { buy = 1 }
[[predict]]
behaviour = "buy"
horizon_days = 14
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three nights, the last current."""
    last = None
    for night in range(3):
        last = night_file(tmp_path, night, last=last)
    (tmp_path / "current.duckdb").symlink_to(last.name)
    return tmp_path


def point(home: Path, night: int) -> Path:
    link = home / "current.duckdb"
    link.unlink()
    link.symlink_to(f"scores-{night}.duckdb")
    return link


def test_parquet_files_hold_the_views_row_by_row(home, tmp_path) -> None:
    rows = to_parquet(home / "current.duckdb", tmp_path / "copy")
    assert len(rows) == 12
    assert rows["runs_v1"] == 3
    for view, count in rows.items():
        copied = pl.read_parquet(tmp_path / "copy" / "current" / f"{view}.parquet")
        own = ask(home / "current.duckdb", f"from mart.{view}")
        if view == "freshness_v1":
            assert copied.columns == ["run_id", "as_of", "finished_at", "stale_after_hours"]
            own = own.select(copied.columns)
        assert len(copied) == count
        assert_frame_equal(copied, own)


def test_the_copy_is_swapped_whole_and_only_the_one_before_stays(home, tmp_path) -> None:
    folder = tmp_path / "copy"
    copies = []
    for night in (0, 1, 2, 2):
        to_parquet(point(home, night), folder)
        runs = pl.read_parquet(folder / "current" / "runs_v1.parquet")
        assert runs.get_column("run_id")[0] == f"run-{night}"
        copies.append((folder / "current").resolve())
        assert set(folder.glob("mart-*")) == set(copies[-2:])


def test_a_database_gets_new_rows_in_the_same_tables(home, tmp_path) -> None:
    """The statements for Postgres, on a DuckDB file."""
    target = tmp_path / "target.duckdb"
    for night in (0, 2):
        with duckdb.connect() as connection:
            connection.execute(f"attach '{target}' as target")
            rows = fill(connection, point(home, night))
    assert rows["predictions_v1"] == 72
    for view in rows:
        own = ask(home / "current.duckdb", f"from mart.{view}")
        copied = ask(target, f"from mart.{view}")
        assert_frame_equal(copied, own.select(copied.columns))


def test_a_copy_that_fails_leaves_what_was_there(home, tmp_path) -> None:
    target = tmp_path / "target.duckdb"
    with duckdb.connect() as connection:
        connection.execute(f"attach '{target}' as target")
        connection.execute("create schema target.mart")
        connection.execute("create table target.mart.calibration_v1 as select 'old' as run_id")
        with pytest.raises(duckdb.Error):
            fill(connection, home / "current.duckdb")
    assert ask(target, "from mart.calibration_v1").rows() == [("old",)]
    assert ask(target, "select count(*) from duckdb_tables()").item() == 1


def test_a_password_is_not_in_the_error(home) -> None:
    """Without the extension or without the server, it fails all the same."""
    with pytest.raises(ResourceError, match="nothing is copied") as error:
        to_postgres(home / "current.duckdb", "postgres://shop:secret@127.0.0.1:1/shop")
    assert "secret" not in str(error.value)
    assert error.value.exit_code == 5


def test_the_command(home, tmp_path) -> None:
    config = tmp_path / "shop.toml"
    config.write_text(MINIMAL)
    words = ["copy", str(config), "--home", str(home), "--to"]
    done = CliRunner().invoke(app, [*words, "parquet", str(tmp_path / "copy")])
    assert done.exit_code == 0, done.output
    assert "predictions_v1 72" in done.output
    for wrong in (["parquet"], ["csv", "x"], ["postgres://h/d", "x"]):
        failed = CliRunner().invoke(app, [*words, *wrong])
        assert isinstance(failed.exception, ConfigError)
    words[3] = str(tmp_path / "nowhere")
    failed = CliRunner().invoke(app, [*words, "parquet", str(tmp_path / "copy")])
    assert isinstance(failed.exception, InputMissing)
