"""Copies of the mart in other stores."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from adbc_driver_postgresql import dbapi
from marts import ask, night_file
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from jobs.cli import app
from jobs.copying import to_parquet, to_postgres
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


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a Postgres server of its own; the tests are skipped where none is installed.

    A server refuses to run as root: then it runs as the user that its package made.
    """
    found = shutil.which(
        "initdb", path=":".join(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    )
    initdb = found or shutil.which("initdb")
    if initdb is None:
        pytest.skip("no Postgres server is installed here (apt-get install postgresql)")
    root, user = os.geteuid() == 0, None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if root:
        user = "postgres"
        shutil.chown(folder, user)
    run = partial(subprocess.run, check=True, capture_output=True, user=user, cwd="/")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, control = str(folder / "data"), str(Path(initdb).with_name("pg_ctl"))
    run([initdb, "-D", data, "-U", "shop", "--auth=trust", "--no-sync"])
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run([control, "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start"])
    try:
        yield f"postgresql://shop@127.0.0.1:{port}/postgres"
    finally:
        run([control, "-D", data, "-m", "immediate", "stop"])
        shutil.rmtree(folder)


def told(server: str, sql: str) -> pl.DataFrame:
    with dbapi.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        frame = pl.from_arrow(cursor.fetch_arrow_table())
        connection.commit()
    assert isinstance(frame, pl.DataFrame)
    return frame


def test_postgres_gets_new_rows_in_the_same_tables(home, server: str) -> None:
    for night in (0, 2):
        rows = to_postgres(point(home, night), server)
        if night == 0:  # a table that is made anew would lose them
            told(server, "create view public.seen as select run_id from mart.runs_v1")
    assert rows["predictions_v1"] == 72
    assert told(server, "select count(*) from public.seen").item() == 3
    for view, count in rows.items():
        copied = told(server, f"select * from mart.{view}")
        own = ask(home / "current.duckdb", f"from mart.{view}").select(copied.columns)
        assert len(copied) == count
        casts = {n: t for n, t in own.schema.items() if not isinstance(t, pl.List)}
        assert_frame_equal(copied.cast(casts), own, check_row_order=False)


def test_a_copy_that_fails_leaves_what_was_there(home, server: str) -> None:
    told(server, "drop schema if exists mart cascade")
    told(server, "create schema mart")
    told(server, "create table mart.runs_v1 as select 'old' as run_id")
    with pytest.raises(ResourceError, match="nothing is copied"):
        to_postgres(home / "current.duckdb", server)
    assert told(server, "select run_id from mart.runs_v1").rows() == [("old",)]
    tables = "select count(*) from information_schema.tables where table_schema = 'mart'"
    assert told(server, tables).item() == 1


def test_a_password_is_not_in_the_error(home) -> None:
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
