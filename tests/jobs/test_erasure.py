"""Somebody is erased: nothing below the home tells of them, and all else is as it was."""

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import numpy as np
import polars as pl
import pytest
from campaign_nights import AS_OF, RUN, chosen, small_night
from erasures import (
    ANNA,
    HASHED,
    KEY,
    SHARED,
    TODAY,
    VARIABLE,
    YESTERDAY,
    World,
    all_tables,
    make_world,
    remains,
    write_shop_of_anna,
)  # fmt: skip
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from embed.cache import hash_texts
from jobs import models, nightly, nights, publish
from jobs.campaigns.feedback import take_feedback
from jobs.campaigns.files import write_list
from jobs.cli import app
from jobs.erasing.erase import erase
from jobs.erasing.lists import names_of
from jobs.erasing.person import Person
from jobs.erasing.tombstones import FILE, Tombstones
from jobs.errors import AlreadyRunning, ConfigError, InputMissing
from jobs.manifest import Damaged, verify
from jobs.nightly import Night
from jobs.session import one_at_a_time
from jobs.vectors import cache_of, encoder_of

READER = """
import duckdb, sys
night = duckdb.connect(sys.argv[1], read_only=True)
print("open", flush=True)
sys.stdin.readline()
print(night.execute("select count(*) from predictions where user_id = ?", [sys.argv[2]]).fetchall())
"""


@dataclass(frozen=True)
class Gone:
    """Anna, erased from a copy of the home.

    Attributes:
        night: of the copy.
        certificate: of the erasure.
        operations: files that were renamed or removed meanwhile.
        reader: what somebody saw afterwards who had opened the current night before.
    """

    night: Night
    certificate: dict[str, Any]
    operations: int
    reader: str


class Killed(BaseException):
    """As if by SIGKILL: whatever is tried afterwards fails too."""


@contextmanager
def killed_after(operations: float) -> Iterator[list[int]]:
    """Let the process die at a rename or removal; the number of those that were done."""
    done = [0]

    def counted(function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if done[0] >= operations:
                raise Killed
            done[0] += 1
            return function(*arguments, **options)

        return wrapped

    names = ("replace", "rename", "unlink", "rmdir")
    with patch.multiple(os, **{name: counted(getattr(os, name)) for name in names}):
        yield done


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with patch.dict(os.environ, {VARIABLE: KEY}):
        yield make_world(tmp_path_factory.mktemp("anna"))


@pytest.fixture(scope="module")
def gone(world: World, tmp_path_factory: pytest.TempPathFactory) -> Gone:
    night = world.copy(tmp_path_factory.mktemp("gone"))
    command = [sys.executable, "-c", READER, str(nights.current(night.home)), ANNA]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        with killed_after(np.inf) as done:
            certificate = erase(night, ANNA)
        seen, _ = reader.communicate("\n")
    return Gone(night, certificate, done[0], seen.strip())


def test_no_byte_below_the_home_tells_of_her(world: World, gone: Gone) -> None:
    before = remains(world.night.home, world.needles)
    assert {name for names in before.values() for name in names} == set(world.needles)
    places = {place.split("/")[0] for place in before}
    assert places == {
        "cache", "campaigns", "feedback", "models", "runs",
        f"scores-{TODAY}.duckdb", f"scores-{YESTERDAY}.duckdb",
    }  # fmt: skip
    assert remains(gone.night.home, world.needles) == {}


def test_the_certificate_says_what_was_removed_and_not_of_whom(gone: Gone) -> None:
    told = dict(gone.certificate)
    seal = told.pop("sha256")
    assert seal == hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    text = json.dumps(told, ensure_ascii=False)
    assert ANNA not in text
    assert HASHED not in text
    assert all(told["rows"][kind] > 0 for kind in told["rows"] if kind != "pages")
    assert told["lists"] == [
        {"campaign": name, "run_id": run, "sent": run == YESTERDAY}
        for name in ("hashed", "summer")
        for run in (TODAY, YESTERDAY)
    ]
    assert told["not_ours"] == []
    stones = Tombstones.of(gone.night.home)
    (digest, *_) = stones.stones[told["tombstone"]]["digests"]
    assert told["user_digest"] == digest == stones.digest(ANNA)
    assert stat.S_IMODE((gone.night.home / FILE).stat().st_mode) == 0o600
    assert stones.hold(pl.Series([ANNA, HASHED, "u10000", None])).to_list() == [
        True, True, False, False,
    ]  # fmt: skip


def test_nights_lose_her_rows_and_nothing_else(world: World, gone: Gone) -> None:
    person = Person(frozenset({ANNA, HASHED}))
    for name in (TODAY, YESTERDAY):
        old = world.night.home / f"scores-{name}.duckdb"
        new = gone.night.home / old.name
        before, after = all_tables(old), all_tables(new)
        assert before.keys() == after.keys()
        for table in before:
            kept, _ = person.without(before[table])
            assert_frame_equal(after[table], kept, check_exact=True)
        assert len(after["main.users"]) == len(before["main.users"]) - 1
        assert comments(new) == comments(old)
        assert nights.problem(new) is None
        about = verify(publish.manifest_of(new))
        assert about["rows"]["predictions"] == len(after["main.predictions"])
        assert about["erased"][0]["tombstone"] == gone.certificate["tombstone"]
        assert stat.S_IMODE(new.stat().st_mode) == 0o444
    assert nights.current(gone.night.home) == gone.night.home / f"scores-{TODAY}.duckdb"
    history = after["history.predictions"]
    assert history.is_empty()  # of the first night; that of the second was compared above


def comments(scores: Path) -> list[Any]:
    """Of all columns, tables and views, and what the views are."""
    with publish.open_scores(scores) as connection:
        found = connection.sql(
            "select schema_name, table_name, column_name, data_type, comment "
            "from duckdb_columns() where not internal union all "
            "select schema_name, table_name, null, null, comment from duckdb_tables() union all "
            "select schema_name, view_name, null, sql, comment from duckdb_views() "
            "where not internal order by all"
        ).fetchall()
    assert len(found) > 100
    return found


def test_the_current_night_has_a_page_without_her(gone: Gone) -> None:
    home = gone.night.home
    current = nights.current(home)
    assert current is not None
    page = nights.page_of(home, nights.run_of(current)).read_text()
    assert (home / nights.PAGE).read_text() == page
    assert not Person(frozenset({ANNA})).in_text(page)


def test_a_reader_keeps_the_night_that_was_opened(gone: Gone) -> None:
    assert int(gone.reader.strip("[(,)]")) > 0


def test_lists_lose_her_lines_and_nothing_else(world: World, gone: Gone) -> None:
    old, new = world.night.home, gone.night.home
    for path in sorted(old.glob("campaigns/*/**/*.csv")):
        lines = path.read_bytes().splitlines(keepends=True)
        theirs = (ANNA.encode(), HASHED.encode())
        others = [line for line in lines if not any(name in line for name in theirs)]
        assert (new / path.relative_to(old)).read_bytes() == b"".join(others)
        assert len(others) < len(lines)
    for path in sorted(new.glob("campaigns/*/*.json")):
        about = json.loads(path.read_bytes())
        rows = pl.read_parquet(path.with_suffix(".parquet"))
        audience = pl.read_parquet(
            new / "feedback" / "audiences" / path.parent.name / f"{path.stem}.parquet"
        )
        arms = dict(audience.get_column("arm").value_counts().rows())
        items = rows.get_column("items").sum() if "items" in rows.columns else len(rows)
        assert (about["lines"], about["users"]) == (items, arms["mailed"])
        assert about["holdout"] == arms.get("holdout", 0)
        assert about["erased"][0]["tombstone"] == gone.certificate["tombstone"]
        for name, digest in about["sha256"].items():
            assert hashlib.sha256((path.parent / name).read_bytes()).hexdigest() == digest


def test_vectors_of_others_and_models_stay(world: World, gone: Gone) -> None:
    encoder = encoder_of(gone.night.config, gone.night.home)
    cache, before = (cache_of(night.home, encoder) for night in (gone.night, world.night))
    hers, shared = hash_texts(world.texts), hash_texts([SHARED])
    assert (before.find(hers) >= 0).all()
    assert (cache.find(hers) < 0).all()
    assert len(cache) == len(before) - len(set(hers))
    assert np.array_equal(cache.take(cache.find(shared)), before.take(before.find(shared)))
    for folder in models.folders(gone.night.home):
        models.load(folder)


def test_runs_that_published_keep_their_ledger_and_others_go(gone: Gone) -> None:
    left = {str(path.relative_to(gone.night.home)) for path in gone.night.home.glob("runs/*/*")}
    assert left == {f"runs/{name}/ledger.jsonl" for name in (TODAY, YESTERDAY)}


def test_later_nights_and_feedback_do_not_take_her_in_again(
    world: World, gone: Gone, tmp_path: Path
) -> None:
    shutil.copytree(gone.night.home, tmp_path / "home", symlinks=True)
    night = nightly.Night(gone.night.config, gone.night.as_of, gone.night.root, tmp_path / "home")
    rows = ["message_id,campaign,run_id,user_id,event,ts"]
    rows += [
        f"{n},hashed,{YESTERDAY},{name},clicked,2025-05-31" for n, name in enumerate((ANNA, HASHED))
    ]
    rows.append(f"{HASHED},hashed,{YESTERDAY},{HASHED},sent,2025-05-31,too,many")
    (tmp_path / "told.csv").write_text("\n".join(rows) + "\n")
    taken = take_feedback(tmp_path / "told.csv", home=night.home)
    assert (taken.read, taken.new, taken.quarantined, taken.erased) == (3, 0, 1, 2)
    nightly.run(night, nightly.begin(night, "later"), override="nobody: five trees", again=True)
    found = remains(night.home, world.needles)
    assert found == {}
    with publish.open_scores(night.home / publish.CURRENT) as connection:
        counts = dict(connection.sql("select source, erased from sources").fetchall())
        assert connection.sql("select run_id from runs").fetchall() == [("later",)]
    assert min(counts[name] for name in ("users", "events", "reviews")) > 0
    again = erase(night, ANNA)
    # Of the new night, what stood in other people's bad cells.
    assert {kind for kind, rows in again["rows"].items() if rows} == {"nights"}
    assert again["tombstone"] == gone.certificate["tombstone"]


def test_a_night_is_that_of_sources_that_never_had_her(tmp_path: Path) -> None:
    nights_of_both = []
    with patch.dict(os.environ, {VARIABLE: KEY}):
        for with_anna in (True, False):
            night = write_shop_of_anna(tmp_path / str(with_anna), with_anna=with_anna)
            night = replace(night, started_at=night.as_of)
            if with_anna:
                night.home.mkdir()
                told = erase(night, ANNA)  # nothing is kept yet: the tombstone alone
                assert set(told["rows"].values()) == {0}
            nightly.run(night, nightly.begin(night, "run"), override="nobody: five trees")
            lists = [path.read_bytes() for path in sorted(night.home.glob("campaigns/*/*.csv"))]
            nights_of_both.append((all_tables(night.home / publish.CURRENT), lists))
    (found, lists), (wanted, other_lists) = nights_of_both
    assert lists == other_lists
    assert len(lists) == 2
    # Seconds differ, and how many rows were read; of her broken line only the place is told.
    passing = {f"main.{name}" for name in ("stages", "runs", "sources", "quarantine")}
    for table in wanted.keys() - passing:
        assert_frame_equal(found[table], wanted[table], check_exact=True)
    ours = found["main.quarantine"].filter(source="reviews", rule="broken_line")
    assert ours.get_column("value").to_list() == [None]


@pytest.mark.parametrize("part", range(6))
def test_after_a_crash_erasing_again_does_the_rest(
    world: World, gone: Gone, tmp_path: Path, part: int
) -> None:
    night = world.copy(tmp_path)
    last = gone.operations * (part + random.Random(part).random()) / 6
    with pytest.raises(Killed), killed_after(int(last)):
        erase(night, ANNA)
    erase(night, ANNA)
    assert remains(night.home, world.needles) == {}
    assert all(nights.problem(scores) is None for scores in nights.kept(night.home))
    for folder in models.folders(night.home):
        models.load(folder)
    for place in ("campaigns", "feedback"):
        files = [path for path in (gone.night.home / place).rglob("*.*") if path.is_file()]
        for path in files:
            found = night.home / path.relative_to(gone.night.home)
            if path.suffix != ".json":  # which tells when
                assert found.read_bytes() == path.read_bytes()


def test_the_command_reads_the_id_from_standard_input(gone: Gone, tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ["erase", str(gone.night.root / "small.toml"), "-", "--home", str(home)]
    words += ["--root", str(gone.night.root)]
    done = CliRunner().invoke(app, words, input="nobody\n")
    assert done.exit_code == 0
    told = json.loads(done.stdout[done.stdout.index("{") :])
    assert set(told["rows"].values()) == {0}
    assert "nobody" not in done.output
    assert Tombstones.of(home).hold(pl.Series(["nobody", "somebody"])).to_list() == [True, False]
    assert isinstance(CliRunner().invoke(app, words, input="\n").exception, ConfigError)
    with one_at_a_time(home, "a night"):
        assert isinstance(CliRunner().invoke(app, words, input="x\n").exception, AlreadyRunning)


def test_a_damaged_tombstone_lets_nobody_back_in(gone: Gone, tmp_path: Path) -> None:
    text = (gone.night.home / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace(gone.certificate["user_digest"], "0" * 64))
    with pytest.raises(Damaged):
        Tombstones.of(tmp_path)


def test_hashed_ids_of_a_list_without_audience_need_the_key(tmp_path: Path, gone: Gone) -> None:
    with patch.dict(os.environ, {VARIABLE: KEY}):
        (selection,) = chosen(small_night(), {"hash_ids_with": VARIABLE})
        write_list(selection, home=tmp_path, run_id=RUN, at=AS_OF, sent=())
        with_key = names_of(tmp_path, gone.night.config, "1")
    listed = pl.read_parquet(tmp_path / "campaigns" / "c0" / f"{RUN}.parquet")
    assert len(with_key) == 2
    assert with_key & set(listed.get_column("user_id"))
    with patch.dict(os.environ):
        del os.environ[VARIABLE]
        assert names_of(tmp_path, gone.night.config, "1") == with_key
        shutil.rmtree(tmp_path / "feedback")
        with pytest.raises(InputMissing, match=VARIABLE):
            names_of(tmp_path, gone.night.config, "1")


def test_pages_that_name_a_user() -> None:
    person = Person(frozenset({"a'b&c"}))
    assert person.in_text("<td>a&#39;b&amp;c</td>")
    assert person.in_text('{"user": "a\'b&c"}')
    assert not person.in_text("<td>xa'b&c</td>")
    assert not Person(frozenset({"7"})).in_text("17, 70 and 7th")


@pytest.mark.parametrize("kind", [pl.String, pl.Int64])
def test_frames_and_tables_lose_the_same(kind: type[pl.DataType]) -> None:
    people = pl.Series([1, 2, 3, None, 1]).cast(kind)
    rows = pl.DataFrame(
        {
            "user_id": people,
            "evidence_user_id": people.reverse(),
            "evidence_at": [AS_OF] * 5,
            "source": ["items", "users", "items", "users", "users"],
            "rule": "r",
            "row": range(5),
            "value": ["a", "b", None, None, "c"],
        }
    )
    for columns in (
        rows.columns,
        ["user_id"],
        ["evidence_user_id", "row"],
        ["rule", "row", "value"],
    ):
        part = rows.select(columns)
        person = Person(frozenset({"1"}))
        selected, stays, touched = person.sql(part.columns)
        with duckdb.connect() as connection:
            connection.register("part", part.to_arrow())
            found = connection.sql(f"select {selected} from part where {stays}").pl()
            count = connection.sql(f"select count(*) from part where {touched}").pl().item()
        kept, counted = person.without(part)
        assert_frame_equal(found, kept)
        assert count == counted > 0
