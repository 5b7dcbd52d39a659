"""What became of messages is noticed when damaged: no night can make it anew."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from campaign_nights import AS_OF, RUN, chosen, small_night
from nights import SHOP, write_night
from published import flip
from typer.testing import CliRunner

from jobs import doctor, nightly
from jobs.campaigns import records
from jobs.campaigns.feedback import messages, quarantine, take_feedback
from jobs.campaigns.files import write_list
from jobs.campaigns.lift import campaign_lift
from jobs.cli import app
from jobs.errors import AlreadyRunning, exit_code
from jobs.ingest import Inputs
from jobs.manifest import Damaged
from jobs.session import one_at_a_time

ROWS = [
    "message_id,campaign,run_id,user_id,event,ts",
    f"m1,c0,{RUN},1,sent,2025-06-01T10:00:00Z",
    f"m2,c0,{RUN},77,sent,2025-06-01T10:00:00Z",  # who is not on the list
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A list, of which feedback was taken."""
    (selection,) = chosen(small_night(), {"holdout_share": 0.4})
    home = tmp_path / "home"
    write_list(selection, home=home, run_id=RUN, at=AS_OF, sent=())
    take_feedback(told(tmp_path, ROWS), home=home)
    return home


def told(folder: Path, rows: list[str]) -> Path:
    (folder / "told.csv").write_text("\n".join(rows) + "\n")
    return folder / "told.csv"


def test_a_bit_flipped_in_any_of_it_is_noticed_and_named(home: Path) -> None:
    kept = list(records.kept(home))
    assert [path.stem for path in kept] == ["messages", "quarantine", RUN]
    for path in kept:
        for file in (path, records.manifest_of(path)):
            for place, bit in ((0.0, 0), (0.3, 2), (0.6, 5), (0.99, 1)):
                flip(file, place, bit)
                with pytest.raises(
                    Damaged, match=f"{path.stem}.* is (damaged|missing).*from a backup"
                ):
                    records.read(path)
                flip(file, place, bit)
            file.rename(file.with_name("away"))
            with pytest.raises(Damaged, match=f"{file.name} is missing"):
                records.read(path)
            file.with_name("away").rename(file)
    assert doctor.feedback(home).said == "3 verified"


def test_whoever_needs_it_stops_with_its_name_and_changes_nothing(home: Path) -> None:
    damaged, *_, audience = records.kept(home)
    before = {path: path.read_bytes() for path in (home / records.FOLDER).rglob("*.*")}
    flip(audience, 0.5)
    nothing = pl.DataFrame()
    inputs = Inputs(AS_OF, *[nothing] * 7)
    with pytest.raises(Damaged, match=str(audience)):
        campaign_lift(home, inputs, as_of=AS_OF)
    with pytest.raises(Damaged, match=str(audience)) as error:
        take_feedback(told(home.parent, ROWS), home=home)
    assert exit_code(error.value) == 5
    flip(audience, 0.5)
    flip(damaged, 0.5)
    with pytest.raises(Damaged, match=str(damaged)):
        take_feedback(told(home.parent, ROWS), home=home)
    night = replace(write_night(home.parent), home=home)
    with pytest.raises(Damaged, match=str(damaged)):  # a cap counts what was sent
        nightly.run(night)
    assert not (home / "runs").exists()
    (finding,) = (found for found in doctor.examine(night) if found.remedy)
    assert (finding.check, str(damaged) in finding.said) == ("feedback", True)
    flip(damaged, 0.5)
    assert {path: path.read_bytes() for path in before} == before


class Killed(BaseException):
    """As if by SIGKILL."""


@contextmanager
def killed_after(renames: int) -> Iterator[None]:
    done, replaced = 0, os.replace

    def counted(*names: str) -> None:
        nonlocal done
        if done == renames:
            raise Killed
        done += 1
        replaced(*names)

    with patch("os.replace", counted), pytest.raises(Killed):
        yield


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("renames", range(6))
def test_killed_while_it_is_taken_it_is_as_before_or_after(
    home: Path, renames: int, first: bool
) -> None:
    """Each of the two files has three renames, of which the second is its own."""
    for path in (home / records.FOLDER).glob("*.*") if first else ():
        path.unlink()
    kept, apart = counts(home)
    rows = [ROWS[0], ROWS[1].replace("m1", "m3"), ROWS[2].replace("77", "78")]
    file = told(home.parent, rows)
    with killed_after(renames):
        take_feedback(file, home=home)
    assert counts(home) == (kept + (renames > 1), apart + (renames > 4))
    take_feedback(file, home=home)
    assert counts(home) == (kept + 1, apart + 1)


def counts(home: Path) -> tuple[int, int]:
    return len(messages(home)), len(quarantine(home))


def test_two_do_not_take_feedback_at_once(home: Path) -> None:
    config = home.parent / "small.toml"
    config.write_text(SHOP)
    file = told(home.parent, [ROWS[0], ROWS[1].replace("m1", "m9")])
    words = ["feedback", str(config), str(file), "--home", str(home)]
    with one_at_a_time(home / records.FOLDER, "feedback"):
        assert isinstance(CliRunner().invoke(app, words).exception, AlreadyRunning)
    assert len(messages(home)) == 1
    with one_at_a_time(home, "a night"):  # which takes hours
        assert CliRunner().invoke(app, words).exit_code == 0
    assert len(messages(home)) == 2
