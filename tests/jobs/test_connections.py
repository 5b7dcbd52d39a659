import re
import subprocess
import sys
from pathlib import Path

from jobs.connections import connect

ROOT = Path(__file__).resolve().parents[2]
# DuckDB draws its bar after so many milliseconds, two thousand if not told.
SOON = "set progress_bar_time = 50"
LONG = "select count(*) filter (hash(a.i, b.i) % 7 = 0) from range(10000) a(i), range(9000) b(i)"


def printed(opening: str) -> str:
    imports = "import duckdb; from jobs.connections import connect"
    code = f"{imports}\n{opening}.execute({SOON!r}).execute({LONG!r})"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return child.stdout


def test_nothing_is_drawn_on_standard_output() -> None:
    assert "%" in printed("duckdb.connect()")  # else this shows nothing
    assert printed("connect()") == ""


def test_a_file_is_opened_as_told(tmp_path: Path) -> None:
    with connect(tmp_path / "x.duckdb", temp_directory=str(tmp_path / "spilled")) as connection:
        connection.execute("create table t as select 1 as a")
        found = connection.sql("select current_setting('temp_directory')").fetchall()
    assert found == [(str(tmp_path / "spilled"),)]
    with connect(tmp_path / "x.duckdb", read_only=True) as connection:
        assert connection.sql("from t").fetchall() == [(1,)]


def test_no_other_file_of_jobs_opens_connections() -> None:
    opening = re.compile(r"duckdb\.connect\(")
    found = [p.name for p in (ROOT / "jobs").rglob("*.py") if opening.search(p.read_text("utf-8"))]
    assert found == ["connections.py"]
