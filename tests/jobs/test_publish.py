"""Publishing, going back, and what is left of it when it fails."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
from nights import SHOP
from published import EMPTY, flip, night_run, publish_night, rows

from jobs import doctor, nights, publish
from jobs.config_sections import MartConfig
from jobs.errors import GateRefused, InputMissing, exit_code, is_disk_full
from jobs.manifest import Damaged, read, sha256

ROOT = Path(__file__).resolve().parents[2]


def run_shown(home: Path) -> str:
    """The run that a reader of the current night sees, all of whose tables must be there."""
    with publish.open_scores(home / publish.CURRENT) as connection:
        connection.sql("select count(*) from predictions join items using (item_id)").fetchall()
        return connection.sql("select run_id from runs").fetchall()[0][0]


def test_a_night_is_read_only_and_its_manifest_tells_what_is_in_it(tmp_path: Path) -> None:
    scores = publish_night(tmp_path, 1, rows(3), rows(5).filter(pl.col("user_id") > "u2"))
    assert scores.stat().st_mode & 0o777 == 0o444
    content = (tmp_path / f"{scores.stem}.json").read_text()
    assert sha256(scores) in content
    about = read(publish.manifest_of(scores))
    assert about["as_of"] == "2025-06-02T00:00:00"
    assert {name: rows for name, rows in about["rows"].items() if name not in EMPTY} == {
        "gates": 2, "items": 2, "predictions": 10, "reasons": 1, "runs": 1, "stages": 1,
        "user_behaviours": 1, "users": 3,
        "item_demand": 6,  # of each item, of both brands, of a category and of none
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        publish.CURRENT, "runs", scores.name, f"{scores.stem}.json",
    ]  # fmt: skip
    with publish.open_scores(scores) as connection, pytest.raises(duckdb.Error, match="read-only"):
        connection.execute("create table other as select 1")


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        ((rows(3, probability=None),), "6 of 6 rows without a probability"),
        ((rows(3, probability=float("nan")),), "6 of 6 rows without a probability"),
        ((rows(3, probability=1.5),), "6 of 6 rows without a probability"),
        ((rows(3), rows(1)), "2 rows with a user, item and behaviour of another"),
    ],
)
@pytest.mark.parametrize("held", [1, 4, publish.ROWS_CHECKED])
def test_rows_that_readers_would_stumble_over_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shards: tuple[pl.DataFrame, ...],
    said: str,
    held: int,
) -> None:
    monkeypatch.setattr(publish, "ROWS_CHECKED", held)
    publish_night(tmp_path, 1)
    with pytest.raises(GateRefused, match=said):
        publish_night(tmp_path, 2, *shards)
    assert run_shown(tmp_path) == night_run(1).run_id
    assert not list(tmp_path.glob(".build-*"))
    assert len(nights.kept(tmp_path)) == 1


def test_a_damaged_shard_stops_the_night_by_its_name(tmp_path: Path) -> None:
    first = publish_night(tmp_path, 1)
    folder = tmp_path / "runs" / night_run(1).run_id
    for name, place in (("shards/000000.parquet", 0.4), ("reasons/000000.parquet", 0.9)):
        flip(folder / name, place)
        with pytest.raises(Damaged, match=name):
            publish.build(
                tmp_path,
                night_run(2),
                shards=folder / "shards",
                reasons=folder / "reasons",
                inputs=None,  # type: ignore[arg-type]
                tables={},
                derive=lambda _: {},
                options=MartConfig(),
            )
        flip(folder / name, place)
    assert nights.current(tmp_path) == first


def test_an_open_reader_keeps_its_night_while_others_are_published(tmp_path: Path) -> None:
    publish_night(tmp_path, 1, rows(3))
    with publish.open_scores(tmp_path / publish.CURRENT) as reader:
        for number in (2, 3):
            publish_night(tmp_path, number, rows(number + 5))
            assert run_shown(tmp_path) == night_run(number).run_id
            assert reader.sql("select run_id from runs").fetchall() == [(night_run(1).run_id,)]
            assert reader.sql("select count(*) from predictions").fetchall() == [(6,)]


def test_rollback_goes_to_the_last_whole_night_before(tmp_path: Path) -> None:
    first, second, third, fourth = (publish_night(tmp_path, number) for number in (1, 2, 3, 4))
    flip(third, 0.5)
    nights.check_current(tmp_path)
    flip(fourth, 0.5)
    with pytest.raises(Damaged, match=f"{fourth.name} is damaged.*`nightrank rollback`"):
        nights.check_current(tmp_path)
    flip(fourth, 0.5)
    assert nights.rollback(tmp_path) == second
    assert run_shown(tmp_path) == night_run(2).run_id
    assert nights.rollback(tmp_path) == first
    with pytest.raises(InputMissing, match=f"no night before .*{night_run(4).run_id}"):
        nights.rollback(tmp_path)
    assert nights.rollback(tmp_path, to=night_run(4).run_id) == fourth
    with pytest.raises(Damaged, match=f"nothing is changed.*{third.name} is damaged"):
        nights.rollback(tmp_path, to=night_run(3).run_id)
    with pytest.raises(InputMissing, match="no night elsewhere"):
        nights.rollback(tmp_path, to="elsewhere")
    assert run_shown(tmp_path) == night_run(4).run_id


def test_rollback_finds_a_night_where_the_current_one_is_gone(tmp_path: Path) -> None:
    publish_night(tmp_path, 1)
    publish_night(tmp_path, 2).unlink()
    assert not (tmp_path / publish.CURRENT).exists()
    nights.rollback(tmp_path)
    assert run_shown(tmp_path) == night_run(1).run_id


def test_the_status_names_what_is_current_and_what_is_damaged(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish_night(tmp_path, number)
    flip(nights.kept(tmp_path)[0], 0.2)
    publish.manifest_of(nights.kept(tmp_path)[1]).unlink()
    shown = nights.frame(tmp_path)
    assert shown.get_column("current").to_list() == [None, None, "current"]
    assert shown.get_column("predictions").to_list() == [None, None, 6]
    damaged, unknown, whole = shown.get_column("whole")
    assert "is damaged" in damaged
    assert ".json is missing" in unknown
    assert whole == "yes"


def test_a_run_sweeps_what_killed_ones_left_and_nothing_else(tmp_path: Path) -> None:
    scores = publish_night(tmp_path, 1)
    litter = (
        ".build-a.duckdb", ".build-a.duckdb.wal", ".current-scores-a", f"{scores.name}.wal",
        "scores-a.json", "models/.build-b/click.json", "campaigns/summer/.a.building",
        ".training-a/click 20250501 0.arrow",
        ".scores-a.json.building",
    )  # fmt: skip
    good = ("models/a/click.json", "campaigns/summer/a.csv", "shop.duckdb.wal", "cache/f/.new-a/x")
    for name in (*litter, *good):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    nights.sweep(tmp_path)
    assert [name for name in litter if (tmp_path / name).exists()] == []
    assert [name for name in good if not (tmp_path / name).exists()] == []
    assert run_shown(tmp_path) == night_run(1).run_id


def test_a_log_that_a_tool_left_beside_a_night_is_named_and_goes(tmp_path: Path) -> None:
    """One of another database keeps readers from opening the file."""
    scores = publish_night(tmp_path, 1)
    with duckdb.connect(str(tmp_path / "other.duckdb")) as other:
        other.execute("create table t as select 1; insert into t values (2)")
        shutil.copy(tmp_path / "other.duckdb.wal", f"{scores}.wal")
    with pytest.raises(duckdb.Error, match="WAL"):
        run_shown(tmp_path)
    assert f"{scores}.wal may keep readers" in str(nights.problem(scores))
    assert "docs/bi.md" in str(doctor.current(tmp_path).remedy)
    nights.sweep(tmp_path)
    assert nights.problem(scores) is None
    assert doctor.current(tmp_path).remedy is None
    assert run_shown(tmp_path) == night_run(1).run_id


def test_a_file_that_was_not_closed_cleanly_is_not_finished(tmp_path: Path) -> None:
    building = tmp_path / ".build-a.duckdb"
    with duckdb.connect(str(building)) as connection:
        connection.execute("create table t as select 1")
        connection.execute("set checkpoint_threshold = '1TB'")
        connection.execute("insert into t values (2)")
        shutil.copy(f"{building}.wal", tmp_path / "wal")
    shutil.move(tmp_path / "wal", f"{building}.wal")
    with pytest.raises(OSError, match="was not closed cleanly"):
        publish.settle(building)
    publish.discard(building)
    assert list(tmp_path.iterdir()) == []


def test_going_back_loads_nothing_heavy(tmp_path: Path) -> None:
    """What takes seconds to import is not needed: going back is a matter of one."""
    for number in (1, 2):
        publish_night(tmp_path, number)
    (tmp_path / "small.toml").write_text(SHOP)
    words = ["nightrank", "rollback", str(tmp_path / "small.toml"), "--home", str(tmp_path)]
    script = (
        f"import sys\nfrom jobs import cli\nsys.argv = {words!r}\n"
        "try: cli.main()\n"
        "except SystemExit as end: print(end.code, sorted(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.splitlines()
    assert said[0].startswith(f"current is {night_run(1).run_id}")
    assert said[1].startswith("0 ")
    for module in ("jobs.nightly", "polars", "numpy", "torch", "duckdb", "lightgbm", "faiss"):
        assert f"'{module}'" not in said[1]
    assert run_shown(tmp_path) == night_run(1).run_id


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_the_last_night(small_disk: Path) -> None:
    publish_night(small_disk, 1)
    wide = rows(3000).with_columns(reason=pl.col("user_id").hash().cast(pl.String).repeat_by(9))
    wide = wide.with_columns(pl.col("reason").list.join(" "))
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_bsize - 2**20))
    with pytest.raises(Exception, match="No space left") as caught:
        publish_night(small_disk, 2, wide)
    assert is_disk_full(caught.value)
    assert exit_code(caught.value) == 5
    assert run_shown(small_disk) == night_run(1).run_id
    assert not list(small_disk.glob(".build-*"))
    assert nights.problem(nights.kept(small_disk)[0]) is None
    (small_disk / "filler").unlink()


def test_a_command_says_that_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    publish_night(small_disk, 1)
    config = tmp_path / "small.toml"
    config.write_text(SHOP)
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_bsize))
    command = [sys.executable, "-m", "jobs.cli", "export", str(config), "--home", str(small_disk)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 5, done.stderr
    assert "no room is left" in done.stderr
    assert "Traceback" not in done.stderr
    assert run_shown(small_disk) == night_run(1).run_id
