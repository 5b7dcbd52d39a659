"""Nights that are killed: readers see yesterday's or today's, and the rest is done as if never."""

import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from forks import CHUNK, QUICK, do_night, done, start
from nights import write_night
from polars.testing import assert_frame_equal

from jobs.ledger import STAGES
from jobs.nightly import Night
from jobs.publish import CURRENT, manifest_of, open_scores

KILLS = int(os.environ.get("NIGHTRANK_KILLS", "8"))
RUN = "today"
YESTERDAY = "yesterday"


@dataclass(frozen=True)
class World:
    """A night that nothing disturbed, after the one of the day before; what it took."""

    night: Night
    seconds: float
    encoded: int

    def trial(self, home: Path) -> Night:
        """The same night with the home as it was before, its vectors gone."""
        scores = self.night.home / f"scores-{YESTERDAY}.duckdb"
        home.mkdir()
        for file in (scores, manifest_of(scores)):
            shutil.copy(file, home)
        (home / CURRENT).symlink_to(scores.name)
        shutil.copytree(self.night.home / "models.before", home / "models")
        return replace(self.night, home=home)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("crash")
    night = write_night(folder, QUICK)
    before = replace(night, as_of=night.as_of - timedelta(days=1))
    assert done(do_night, before, YESTERDAY, folder / "ignored") == 0
    shutil.copytree(night.home / "models", night.home / "models.before")
    shutil.rmtree(night.home / "cache")
    started = time.monotonic()
    assert done(do_night, night, RUN, folder / "encoded") == 0
    return World(night, time.monotonic() - started, total(folder / "encoded"))


def total(path: Path) -> int:
    return sum(map(int, path.read_text().split())) if path.exists() else 0


@contextmanager
def reader(home: Path, known: dict[str, int]) -> Iterator[None]:
    """Ask the current night again and again in the body, and fail if an answer is none of two."""
    answers: list[object] = []
    over = threading.Event()

    def poll() -> None:
        while not over.wait(0.02):
            try:
                with open_scores(home / CURRENT) as connection:
                    answers.extend(
                        connection.sql(
                            "select run_id, count(*) from predictions group by 1"
                        ).fetchall()
                    )
            except Exception as error:
                answers.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert set(answers) <= set(known.items()), answers
    assert answers


def rows(home: Path, run_id: str) -> int:
    with open_scores(home / f"scores-{run_id}.duckdb") as connection:
        return connection.sql("select predictions from runs").fetchall()[0][0]


def published(home: Path) -> dict[str, pl.DataFrame]:
    """All that is the same however often a night was stopped: every table but `stages`."""
    with open_scores(home / CURRENT) as connection:
        names = connection.sql(
            "select table_name from duckdb_tables() where schema_name = 'main' order by all"
        ).fetchall()
        frames = {name: connection.sql(f'from "{name}"').pl() for (name,) in names}
    del frames["stages"]
    frames["runs"] = frames["runs"].drop("finished_at")
    return frames


def lists(home: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in home.glob(f"campaigns/*/{RUN}.*")}
    assert len(found) == 3  # CSV, Parquet and their manifest
    return found


def assert_same(night: Night, undisturbed: Night) -> None:
    assert lists(night.home) == lists(undisturbed.home)
    found, wanted = published(night.home), published(undisturbed.home)
    assert found.keys() == wanted.keys()
    for name, frame in wanted.items():
        assert_frame_equal(found[name], frame, check_exact=True)
    (version,) = found["runs"].get_column("model_version")
    assert (night.home / "models" / version / "report.html").exists()


def test_a_night_killed_at_every_boundary_is_the_same_night(world: World, tmp_path: Path) -> None:
    night = world.trial(tmp_path / "home")
    known = {name: rows(world.night.home, name) for name in (RUN, YESTERDAY)}
    encoded, passed = tmp_path / "encoded", tmp_path / "passed"
    kills = 0
    with reader(night.home, known):
        while (code := done(do_night, night, RUN, encoded, passed)) == -9:
            kills += 1
    assert code == 0
    boundaries = passed.read_text().splitlines()
    assert kills == len(boundaries) == len(set(boundaries))
    noted = STAGES.keys() - {"gates", "publish"}  # what is current is over, noted or not
    assert {f"after {stage}" for stage in noted} <= set(boundaries)
    for function in ("save", "build", "make_current"):
        assert {f"before {function}", f"after {function}"} <= set(boundaries)
    assert sum(boundary.startswith("after score:0") for boundary in boundaries) > 1
    assert total(encoded) == world.encoded  # no kill came while a batch was encoded
    assert_same(night, world.night)


def test_a_night_killed_at_random_moments_is_the_same_night(world: World, tmp_path: Path) -> None:
    """NIGHTRANK_KILLS says how many. A night that ends before its kill is followed by another."""
    known = {name: rows(world.night.home, name) for name in (RUN, YESTERDAY)}
    moments, kills, nights = random.Random(0), 0, 0
    while kills < KILLS:
        nights += 1
        folder = tmp_path / str(nights)
        folder.mkdir()
        night, before = world.trial(folder / "home"), kills
        with reader(night.home, known):
            code = -9
            while code == -9:
                process = start(do_night, night, RUN, folder / "encoded")
                if kills < KILLS:
                    process.join(moments.uniform(0, world.seconds))
                    process.kill()
                process.join()
                code = process.exitcode
                kills += code == -9
        assert code == 0
        lost = total(folder / "encoded") - world.encoded
        assert 0 <= lost <= CHUNK * (kills - before)
        assert_same(night, world.night)
