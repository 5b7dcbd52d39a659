"""Nights that are killed: readers see yesterday's or today's, and the rest is done as if never."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from forks import CHUNK, do_night, done, start
from trials import RUN, World, assert_same, reader, total

from jobs.ledger import STAGES

KILLS = int(os.environ.get("NIGHTRANK_KILLS", "200"))
# Most nights find their models. Of those that grow them, growing is the longest part, and is one
# step: more kills there would hit nothing else.
OF_TRAINING = 0.05
# Of what a night takes. One that is killed goes on where it was, so later kills come later in it.
LONGEST_WAIT = 0.35


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("training"), days=8)


@pytest.fixture(scope="module")
def scoring(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("scoring"), days=1)


def test_a_night_killed_at_every_boundary_is_the_same_night(
    training: World, tmp_path: Path
) -> None:
    night = training.trial(tmp_path / "home")
    encoded, passed = tmp_path / "encoded", tmp_path / "passed"
    kills = 0
    with reader(night.home, training.known()):
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
    assert total(encoded) == training.encoded  # no kill came while a batch was encoded
    assert_same(night, training.night)


def test_a_night_killed_at_random_moments_is_the_same_night(
    training: World, scoring: World, tmp_path: Path
) -> None:
    """NIGHTRANK_KILLS says how many, each after a time of its own from a start of the night."""
    worlds = ((training, OF_TRAINING, 1.0), (scoring, 1 - OF_TRAINING, LONGEST_WAIT))
    for world, share, longest in worlds:
        kills = round(KILLS * share)
        # Squared, as most steps are short, and a night that is killed later is longer at it.
        moments = [longest * ((n + 0.5) / kills) ** 2 for n in range(kills)]
        seconds = world.seconds
        random.Random(0).shuffle(moments)
        while moments:
            seconds = killed_at(moments, seconds, world, tmp_path / "trial")
            shutil.rmtree(tmp_path / "trial")


def killed_at(moments: list[float], seconds: float, world: World, folder: Path) -> float:
    """Do a night until it is done, killing it at moments that are taken from the list.

    A moment that comes after the end of what was left of the night stays in the list.

    Args:
        moments: shares of the seconds of a whole night, each counted from a start.
        seconds: what the last whole night took.
        world: whose night it is.
        folder: where.

    Returns:
        `seconds`, or what this night took if no kill came before its end.
    """
    night, kills, code = world.trial(folder / "home"), 0, -9
    with reader(night.home, world.known()):
        while code == -9:
            started = time.monotonic()
            process = start(do_night, night, RUN, folder / "encoded")
            process.join(moments[-1] * seconds if moments else None)
            process.kill()
            process.join()
            code = process.exitcode
            if code == -9:
                moments.pop()
                kills += 1
    assert code == 0
    assert 0 <= total(folder / "encoded") - world.encoded <= CHUNK * kills
    assert_same(night, world.night)
    if kills:
        moments[:] = moments[-1:] + moments[:-1]
        return seconds
    return time.monotonic() - started
