"""The command line as a person or a scheduler meets it: in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from forks import QUICK, tiny_shop, told
from nights import SHOP, write_night

from jobs.errors import STATUSES

ROOT = Path(__file__).resolve().parents[2]
PURCHASE = """
[[predict]]
behaviour = "purchase"
horizon_days = 14
"""


def nightrank(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"} | variables
    line = [sys.executable, "-m", "jobs.cli", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)


def forked(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The same in a process that need not import what the server of `forks` has."""
    return told([str(word) for word in words], folder / "said")


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, json, jobs.cli\n"
        "try: jobs.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))
    assert "typer" in loaded
    assert not loaded & {"torch", "faiss", "lightgbm", "duckdb", "polars", "pydantic", "numpy"}
    assert "Do a whole night" in ended.stdout


def test_memory_given_on_the_command_line_comes_before_the_environment(tmp_path) -> None:
    config = tmp_path / "shop.toml"
    config.write_text('name = "shop"')
    ended = nightrank("run", config, "--memory", "4GB", NIGHTRANK__SCORING__MEMORY="1GiB")
    assert ended.returncode == 2
    assert "NIGHTRANK__SCORING__MEMORY: scoring.memory = '4GB'" in ended.stderr


def test_a_whole_night_then_its_parts(tmp_path) -> None:
    night = write_night(tmp_path, QUICK, tiny_shop())
    config, home = night.root / "small.toml", tmp_path / "home"
    where = ("--as-of", "2025-06-01", "--root", night.root, "--home", home)
    assert nightrank("status", config, "--home", home).stdout.startswith("nothing is published")
    missing = forked(tmp_path, "score", config, *where)
    assert missing.returncode == 4
    assert "nightrank train" in missing.stderr
    trained = forked(tmp_path, "train", config, *where)
    assert trained.returncode == 0, trained.stderr
    assert "normalised_entropy" in trained.stdout
    scored = forked(tmp_path, "score", config, *where)
    assert scored.returncode == 0, scored.stderr
    for said in ("Rows", "Texts", "Stages", "campaign summer", "candidates", "select"):
        assert said in scored.stdout
    (listed,) = (home / "campaigns" / "summer").glob("*.csv")
    content = listed.read_bytes()
    listed.unlink()
    assert forked(tmp_path, "export", config, "--home", home).returncode == 0
    assert listed.read_bytes() == content
    status = nightrank("status", config, "--home", home)
    assert "Current night" in status.stdout
    assert "model" in status.stdout


def test_a_backtest_with_and_without_text_keeps_no_model(tmp_path) -> None:
    night = write_night(tmp_path, QUICK + PURCHASE)
    config, home = night.root / "small.toml", tmp_path / "home"
    where = ("--as-of", "2025-06-01", "--root", night.root, "--home", home)
    unknown = forked(tmp_path, "evaluate", config, *where, "--without", "colours")
    assert unknown.returncode == 2
    assert "'colours' is no group" in unknown.stderr
    assert "pair_history" in unknown.stderr
    assert not home.exists()  # before anything is read
    figures = tmp_path / "figures.parquet"
    options = ("--backtest", "2", "--without", "text", "--without", "price", "--figures", figures)
    rolled = forked(tmp_path, "evaluate", config, *where, *options)
    assert rolled.returncode == 0, rolled.stderr
    assert rolled.stdout.count("text and price: full minus without") == 2
    assert "±" in rolled.stdout
    assert "item:long_tail" in rolled.stdout
    written = pl.read_parquet(figures)
    assert set(written.get_column("variant")) == {"full", "without"}
    assert written.get_column("as_of").n_unique() == 2
    for time in ("2025-05-18", "2025-06-01"):
        assert f"as_of {time}, without" in rolled.stderr
    early = forked(tmp_path, "evaluate", config, *where, "--backtest", "40")
    assert early.returncode == 3
    assert "as_of 2023-12-03: " in early.stderr  # 39 times 14 days earlier
    assert not (home / "models").exists()


def test_the_effective_configuration_shows_defaults_and_environment(tmp_path) -> None:
    (tmp_path / "small.toml").write_text(SHOP)
    shown = nightrank(
        "config", tmp_path / "small.toml", NIGHTRANK__SCORING__USERS_PER_SHARD="77"
    ).stdout
    assert "users_per_shard = 77" in shown
    assert "max_quarantined_share = 0.05" in shown


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("horizon_days = 14", "horizon_dais = 14"), 2, "horizon_days"),
        (('"items.parquet"', '"gone.parquet"'), 4, "gone.parquet"),
        (('"items.parquet"', "\"select 1 as item from 'items.parquet'\""), 3, "item_id"),
        (('"packaged/wordllama"', '"no/such-model"'), 2, "no/such-model"),
    ],
)
def test_what_a_user_can_mend_has_a_code_and_a_sentence(
    tmp_path, change: tuple[str, str], code: int, said: str
) -> None:
    night = write_night(tmp_path, SHOP)
    config = night.root / "small.toml"
    config.write_text(SHOP.replace(*change))
    where = ("--as-of", "2025-06-01", "--root", night.root, "--home", tmp_path / "h")
    ended = forked(tmp_path, "run", config, *where)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    last = json.loads(ended.stdout.splitlines()[-1])
    assert (last["exit_code"], last["status"]) == (code, STATUSES[code])


def test_an_unreadable_date_is_named(tmp_path) -> None:
    (tmp_path / "small.toml").write_text(SHOP)
    ended = nightrank("run", tmp_path / "small.toml", "--as-of", "tomorrow")
    assert ended.returncode == 2
    assert "tomorrow" in ended.stderr


def test_what_nobody_foresaw_is_exit_code_1_with_a_traceback_in_the_log(tmp_path) -> None:
    (tmp_path / "small.toml").write_text(SHOP)
    (tmp_path / "home").write_text("no folder")
    ended = nightrank("run", tmp_path / "small.toml", "--home", tmp_path / "home")
    assert ended.returncode == 1
    said = json.loads(ended.stdout.splitlines()[-1])
    assert (said["exit_code"], said["status"]) == (1, "crashed")
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert (line["event"], line["exit_code"], line["run_id"]) == ("failed", 1, said["run_id"])
    assert "Traceback" in line["exception"]
