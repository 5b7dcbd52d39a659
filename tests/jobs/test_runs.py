"""Runs as a scheduler meets them: exit codes, the last line, the log, signals, the lock."""

import configparser
import errno
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
import typer
from forks import QUICK
from shops import Shop

from jobs import errors
from jobs.cli import app
from jobs.session import one_at_a_time

ROOT = Path(__file__).resolve().parents[2]
REFUSED = QUICK + "\n[gates]\nleast_positives = 1\nnormalised_entropy = 0.001\n"
ANYHOW = ("--force", "nobody: five trees know little")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("runs"), REFUSED)


def contents(folder: Path) -> dict[str, int]:
    """When each file was written, manifests apart: those are written again from the same files."""
    files = (path for path in folder.rglob("*") if path.name != "manifest.json")
    return {str(path): path.lstat().st_mtime_ns for path in files}


def test_a_night_that_is_stopped_refused_and_published(shop: Shop) -> None:
    code, planned, _ = shop("run", "--dry-run")
    assert code == 0
    assert planned["status"] == "dry_run"
    assert planned["needs"]["minutes"] is None  # no night is kept that could tell
    assert not shop.home.exists()

    code, stopped, log = shop("run", signal_at="score:000000")
    assert (code, stopped["exit_code"], stopped["status"]) == (143, 143, "stopped")
    assert "stopped by SIGTERM" in log
    assert "nightrank resume" in log
    run = shop.home / "runs" / stopped["run_id"]
    assert [path.name for path in (run / "shards").iterdir()] == ["000000.parquet"]
    assert stopped["as_of"] == "2025-06-01T00:00:00"

    code, refused, log = shop("resume")
    assert (code, refused["status"]) == (6, "gate_refused")
    assert "normalised_entropy of click" in log
    assert refused["run_id"] == stopped["run_id"]
    assert not (shop.home / "current.duckdb").exists()

    shards = contents(run / "shards")
    code, _, log = shop("resume", "--from-stage", "scoring")
    assert code == 2
    assert "'scoring' is none of ingest, embed" in log
    assert shop("resume", "--from-stage", "score")[0] == 6
    again = contents(run / "shards")
    assert again.keys() == shards.keys()
    assert not again.items() & shards.items()  # every one was written anew
    shards = again
    code, published, _ = shop("resume", *ANYHOW)
    assert (code, published["status"], published["exit_code"]) == (0, "published", 0)
    assert published["run_id"] == stopped["run_id"]
    assert contents(run / "shards") == shards  # nothing was scored again
    with duckdb.connect(published["paths"]["current"], read_only=True) as connection:
        assert connection.sql("select count(*) from predictions").fetchall() == [
            (published["rows"],)
        ]
    for path in (published["paths"]["model"], published["paths"]["lists"]["summer"]):
        assert Path(path).exists()
    assert not (run / "inputs").exists()


def test_what_is_published_is_not_done_again_unless_it_is_asked_for(shop: Shop) -> None:
    runs = sorted((shop.home / "runs").iterdir())
    code, said, log = shop("run")
    assert (code, said["status"]) == (99, "nothing_to_do")
    assert "--again" in log
    assert sorted((shop.home / "runs").iterdir()) == runs
    code, said, _ = shop("resume")
    assert (code, said["status"]) == (99, "nothing_to_do")
    for option, anew in (("--again", False), ("--full", True)):
        code, said, _ = shop("run", option, *ANYHOW)
        assert (code, said["status"]) == (0, "published")
        assert said["run_id"] not in [path.name for path in runs]
        with duckdb.connect(said["paths"]["current"], read_only=True) as connection:
            counts = connection.sql("select sum(encoded), sum(cached) from texts").fetchall()
        assert [[count > 0 for count in row] for row in counts] == [[anew, not anew]]


def test_another_event_before_the_time_makes_another_night_and_a_later_one_does_not(
    shop: Shop,
) -> None:
    path = shop.root / "events.parquet"
    events = pl.read_parquet(path)
    late = events.filter(pl.col("ts") >= pl.datetime(2025, 6, 1)).head(1)
    assert len(late) == 1
    pl.concat([events, late]).write_parquet(path)
    assert shop("run")[0] == 99
    early = late.with_columns(pl.col("ts") - pl.duration(days=60))
    pl.concat([events, early]).write_parquet(path)
    assert shop("run")[0] == 6  # it goes on to the gates
    events.write_parquet(path)


def test_a_dry_run_tells_what_there_is_and_writes_nothing(shop: Shop) -> None:
    before = contents(shop.home)
    code, said, _ = shop("run", "--dry-run")
    assert code == 0
    assert contents(shop.home) == before
    assert said["needs"]["minutes"] > 0
    assert said["needs"]["memory MiB"] > 100
    assert said["needs"]["disk MiB"] > 1
    shown = next(shop.folder.glob(f"{len(shop.logs) - 1}-run.stdout")).read_text()
    with duckdb.connect(str(shop.home / "current.duckdb"), read_only=True) as connection:
        kept = connection.sql("select sum(kept) from sources").fetchall()[0][0]
        texts = connection.sql("select source, texts from texts").fetchall()
    assert said["rows"] == kept
    for source, count in texts:
        assert re.search(rf"{source} +{count} +0 ", shown)  # all of them are cached


def test_a_second_start_names_who_is_there(shop: Shop) -> None:
    with one_at_a_time(shop.home, "the first"):
        for name in ("run", "resume", "score", "train"):
            code, said, log = shop(name)
            assert (code, said["status"]) == (75, "already_running")
            assert f"run the first, process {os.getpid()}" in log
    with one_at_a_time(shop.home, "the next"):
        pass


def test_the_lock_is_asked_for_before_anything_heavy_is_imported(shop: Shop) -> None:
    script = (
        "import sys\nfrom jobs import cli\n"
        f"sys.argv = ['nightrank', 'run', {str(shop.config)!r}, '--home', {str(shop.home)!r}]\n"
        "try: cli.main()\n"
        "except SystemExit as end: print(end.code, sorted(sys.modules))"
    )
    with one_at_a_time(shop.home, "the first"):
        said = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
        ).stdout.splitlines()[-1]
    assert said.startswith("75 ")
    for module in ("jobs.config", "polars", "numpy", "torch", "duckdb", "lightgbm", "faiss"):
        assert f"'{module}'" not in said


def test_a_disk_without_room_is_exit_code_5(tmp_path: Path) -> None:
    shop = Shop(tmp_path, QUICK)
    code, said, log = shop("run", largest_file=20_000)
    assert (code, said["status"]) == (5, "resources")
    assert os.strerror(errno.EFBIG) in log


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 5),
        (MemoryError(), 5),
        (duckdb.OutOfMemoryException("no"), 5),
        (duckdb.IOException(f"Could not write file: {os.strerror(errno.ENOSPC)}"), 5),
        (OSError("5120 requested and 5088 written"), 5),  # numpy, on a full disk
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), 1),
        (errors.AlreadyRunning("no"), 75),
        (errors.Stopped(2), 130),
        (ValueError("no"), 1),
    ],
)
def test_exit_codes_of_errors(error: Exception, code: int) -> None:
    assert errors.exit_code(error) == code
    assert code in errors.STATUSES


def run_of_every_line(log: Path) -> str | None:
    """The run that the last line on standard output names: all of the log is of it."""
    said = json.loads(log.with_suffix(".stdout").read_text().splitlines()[-1])
    found = {json.loads(line).get("run_id") for line in log.read_text().splitlines()}
    assert found <= {said["run_id"]}, log
    run: str | None = said["run_id"]
    return run if found else None


def test_every_line_of_a_log_is_json_with_the_run_and_without_a_person(shop: Shop) -> None:
    users = pl.read_parquet(shop.root / "users.parquet").get_column("user_id").drop_nulls()
    reviews = pl.read_parquet(shop.root / "reviews.parquet").get_column("text").drop_nulls()
    broken = shop.root / "broken.toml"
    broken.write_text(REFUSED.replace("[sources]", "[sources]\nmax_quarantined_share = 0.0001"))
    good, shop.config = shop.config, broken
    code, _, log = shop("run", "--again")
    shop.config = good
    assert code == 3
    assert "first of them" in log
    lines = [line for path in shop.logs for line in path.read_text().splitlines()]
    assert len(lines) > 50
    runs = [run for path in shop.logs if (run := run_of_every_line(path))]
    assert len(set(runs)) >= 5
    text = "\n".join(lines)
    words = set(re.findall(r"\w+", text))
    assert not words & set(users.cast(pl.String))
    assert [review for review in reviews if len(review) > 5 and review in text] == []


def test_the_runbook_has_every_exit_code() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    headings = re.findall(r"^### (\d+) (\w+)$", page, flags=re.MULTILINE)
    assert [(int(code), status) for code, status in headings] == list(errors.STATUSES.items())


def commands_of(examples: Path) -> Iterator[list[str]]:
    service = configparser.RawConfigParser(strict=False)
    service.optionxform = str  # type: ignore[method-assign,assignment]
    service.read(examples / "nightrank.service")
    yield shlex.split(service["Service"]["ExecStart"])[1:]
    (cron,) = re.findall(r"nightrank (run .*) >> .* 2>>", (examples / "nightrank.cron").read_text())
    yield shlex.split(cron)
    for path in sorted(examples.glob("*.py")):
        compile(path.read_text(), path, "exec")
    script = (examples / "airflow_dag.py").read_text().replace("\\\\\n", " ")
    for line in re.findall(r"nightrank ((?:resume|run) .*?)(?: &&|$)", script, re.MULTILINE):
        yield shlex.split(re.sub(r"{{.*?}}", "2025-06-01", line))


def test_the_examples_start_commands_that_there_are() -> None:
    group = typer.main.get_command(app)
    found = list(commands_of(ROOT / "examples" / "ops"))
    assert [words[0] for words in found] == ["run", "run", "resume", "run"]
    for name, *words in found:
        context = group.commands[name].make_context(name, words)  # fails on an unknown option
        assert context.params["config"] == Path("shop.toml")
