"""A night that nothing disturbed, homes to do it again in, and what must then be the same."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import polars as pl
from forks import TINY, do_night, done, tiny_shop
from nights import write_night
from polars.testing import assert_frame_equal

from jobs.nightly import Night
from jobs.publish import CURRENT, manifest_of, open_scores

RUN = "today"
YESTERDAY = "yesterday"
SECONDS_BETWEEN_ANSWERS = 2.0


@dataclass(frozen=True)
class World:
    """A night that nothing disturbed, after an earlier one; what it took."""

    night: Night
    seconds: float
    encoded: int

    @classmethod
    def make(cls, folder: Path, *, days: int) -> "World":
        """The night `days` after the earlier one: from 7 on, it trains."""
        night = write_night(folder, TINY, tiny_shop())
        before = replace(night, as_of=night.as_of - timedelta(days=days))
        assert done(do_night, before, YESTERDAY, folder / "ignored") == 0
        shutil.copytree(night.home / "models", folder / "models")
        shutil.rmtree(night.home / "cache")
        started = time.monotonic()
        assert done(do_night, night, RUN, folder / "encoded") == 0
        return cls(night, time.monotonic() - started, total(folder / "encoded"))

    def trial(self, home: Path) -> Night:
        """The same night with the home as it was before, its vectors gone."""
        scores = self.night.home / f"scores-{YESTERDAY}.duckdb"
        home.mkdir(parents=True, exist_ok=True)
        for file in (scores, manifest_of(scores)):
            shutil.copy(file, home)
        (home / CURRENT).symlink_to(scores.name)
        shutil.copytree(self.night.home.parent / "models", home / "models")
        return replace(self.night, home=home)

    def known(self) -> dict[str, int]:
        """The rows of the nights that a reader may see."""
        return {name: rows(self.night.home, name) for name in (RUN, YESTERDAY)}


def total(path: Path) -> int:
    """The texts encoded, of which `do_night` wrote a line for each batch."""
    return sum(map(int, path.read_text().split())) if path.exists() else 0


@contextmanager
def reader(home: Path, known: dict[str, int]) -> Iterator[None]:
    """Ask the current night again and again in the body, and fail if an answer is none of two.

    Opening a file takes tens of milliseconds of a processor, which the night wants too. So the
    link is looked at every few milliseconds, and asked through when it or its file has changed,
    and now and then besides.
    """
    answers: list[object] = []
    over = threading.Event()

    def poll() -> None:
        last, asked = None, 0.0
        while not over.wait(0.005):
            try:
                found = looked_at(home / CURRENT)
                if found == last and time.monotonic() - asked < SECONDS_BETWEEN_ANSWERS:
                    continue
                last, asked = found, time.monotonic()
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


def looked_at(link: Path) -> tuple[str, int, int, int]:
    """Where a link leads, and what tells whether the file there is another or was written."""
    file = os.stat(link)
    return os.readlink(link), file.st_ino, file.st_size, file.st_mtime_ns


def rows(home: Path, run_id: str) -> int:
    with open_scores(home / f"scores-{run_id}.duckdb") as connection:
        return connection.sql("select predictions from runs").fetchall()[0][0]


def published(home: Path) -> dict[str, pl.DataFrame]:
    """All that is the same however often a night was stopped: every table but `stages`."""
    with open_scores(home / CURRENT) as connection:
        names = connection.sql(
            "select schema_name, table_name from duckdb_tables() "
            "where schema_name in ('main', 'history') order by all"
        ).fetchall()
        frames = {f"{s}.{name}": connection.sql(f'from {s}."{name}"').pl() for s, name in names}
    del frames["main.stages"]
    for runs in ("main.runs", "history.runs"):
        frames[runs] = frames[runs].drop("finished_at")
    return frames


_wanted = cache(published)  # of a night that nothing changes any more


def lists(home: Path, run: str = RUN) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in home.glob(f"campaigns/*/{run}.*")}
    assert len(found) == 3  # CSV, Parquet and their manifest
    return found


def assert_same(night: Night, undisturbed: Night) -> None:
    assert lists(night.home) == lists(undisturbed.home)
    found, wanted = published(night.home), _wanted(undisturbed.home)
    assert found.keys() == wanted.keys()
    for name, frame in wanted.items():
        assert_frame_equal(found[name], frame, check_exact=True)
    (version,) = found["main.runs"].get_column("model_version")
    assert (night.home / "models" / version / "report.html").exists()
