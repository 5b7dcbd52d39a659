"""A night on a disk that fills up, and with a bit flipped in whatever it has written."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from forks import do_night, done, try_night
from published import flip
from trials import RUN, YESTERDAY, World, assert_same, reader

from jobs import nights
from jobs.nightly import Night
from jobs.publish import CURRENT

KIB = 2**10
# What is made anew from what is left, models apart. The others stop the run with their name.
REBUILT = (
    "cache/*/*/*",
    "campaigns/*/*",
    "campaigns/*/delta/*",
    "feedback/audiences/*/*",
    f"runs/{RUN}/index/*.parquet",
    f"runs/{RUN}/index/*/*",
    f"runs/{RUN}/state/*",
    f"runs/{RUN}/vectors/*",
    f"runs/{RUN}/shards/*",
    f"runs/{RUN}/reasons/*",
    f"runs/{RUN}/health/*",
    f"runs/{RUN}/users/*",
    f"scores-{RUN}.*",
)
STOPPING = (f"runs/{RUN}/inputs/*", f"runs/{RUN}/ledger.jsonl", f"scores-{YESTERDAY}.*")
# The page is written once more from the models; nothing reads it.
OF_MODELS = ("click.json", "click.ranker.txt", "projection.npz", "manifest.json")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("damage"), days=8)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A folder on a disk of its own, and what gives that so many bytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1000m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    try:
        yield folder, resize
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_the_night_and_with_room_it_goes_on(
    world: World, disk: tuple[Path, Callable[[int], None]], tmp_path: Path
) -> None:
    """Each time it gets a little more room, so that the disk is full at one stage after another."""
    folder, resize = disk
    night, said = world.trial(folder / "home"), tmp_path / "said"
    yesterday, stopped = night.home / f"scores-{YESTERDAY}.duckdb", []
    with reader(night.home, world.known()):
        size = used(folder)
        while resize(size) or (code := done(try_night, night, RUN, said)) != 0:
            assert code == 5, said.read_text()
            assert nights.current(night.home) == yesterday
            assert nights.problem(yesterday) is None
            stopped.append(last_step(night))
            size = max(size, used(folder)) + 2 ** len(stopped) * 16 * KIB
    assert len(set(stopped)) > 3, stopped  # steps that were the last to be noted
    assert_same(night, world.night)


def used(folder: Path) -> int:
    return shutil.disk_usage(folder).used


def last_step(night: Night) -> str:
    """What the run has noted last."""
    ledger = night.home / "runs" / RUN / "ledger.jsonl"
    found = re.findall(r'"step": "(\w+)', ledger.read_text()) if ledger.exists() else []
    return found[-1] if found else "nothing"


@pytest.fixture(scope="module")
def stopped(world: World, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A night that was killed when all was written and nothing of it current."""
    folder = tmp_path_factory.mktemp("stopped")
    night = world.trial(folder / "home")
    code = done(do_night, night, RUN, folder / "encoded", None, "before make_current")
    assert code == -9
    return night


def copy_of(stopped: Night, home: Path) -> Night:
    shutil.copytree(stopped.home, home, symlinks=True)
    return replace(stopped, home=home)


def files(home: Path, *patterns: str) -> list[Path]:
    """What the patterns match; each of them matches something."""
    found = {pattern: [p for p in home.glob(pattern) if p.is_file()] for pattern in patterns}
    assert all(found.values()), found
    return sorted(path for paths in found.values() for path in paths)


def test_every_kind_of_file_is_damaged_here(stopped: Night) -> None:
    known = files(stopped.home, *REBUILT, *STOPPING, "models/*/*")
    others = {path for path in stopped.home.rglob("*") if path.is_file()} - set(known)
    assert {path.name for path in others} == {CURRENT}  # the link


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_what_can_be_made_anew_is(world: World, stopped: Night, tmp_path: Path, place) -> None:
    night = copy_of(stopped, tmp_path / "home")
    for path in files(night.home, *REBUILT):
        flip(path, place, bit=2)
    assert done(do_night, night, RUN, tmp_path / "encoded") == 0
    assert_same(night, world.night)


@pytest.mark.parametrize("name", OF_MODELS)
def test_damaged_models_are_trained_anew(world: World, stopped: Night, tmp_path, name) -> None:
    night = copy_of(stopped, tmp_path / "home")
    newest = max((night.home / "models").iterdir())
    flip(newest / name, 0.5)
    assert done(do_night, night, RUN, tmp_path / "encoded") == 0
    assert_same(night, world.night)
    assert (newest.parent / f".damaged-{newest.name}").exists()


def test_what_cannot_be_made_anew_stops_the_night_with_its_name(
    world: World, stopped: Night, tmp_path: Path
) -> None:
    night, said = copy_of(stopped, tmp_path / "home"), tmp_path / "said"
    for path in files(night.home, *STOPPING):
        flip(path, 0.5)
        assert done(try_night, night, RUN, said) == 5
        assert path.name in said.read_text()
        flip(path, 0.5)
    assert done(do_night, night, RUN, tmp_path / "encoded") == 0
    assert_same(night, world.night)
