"""What is kept of a run while it goes, and which run is gone on with."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from nights import SHOP, write_night

from jobs.config import Config
from jobs.errors import ConfigError, InputMissing, NothingToDo, ResourceError
from jobs.frozen import FRAMES, digests, freeze
from jobs.ingest import read_inputs
from jobs.ledger import (
    Ledger,
    new_run_id,
    settings_digest,
    to_resume,
    unfinished,
    write_parquet,
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return write_night(tmp_path, SHOP).config


def begun(home: Path, run_id: str, config: Config, *, at: int = 1) -> Ledger:
    return Ledger.start(
        home, run_id, started_at=f"2025-06-0{at}T00:00:00", settings=settings_digest(config)
    )


def make_current(home: Path, run_id: str) -> None:
    (home / f"scores-{run_id}.duckdb").touch()
    (home / "current.duckdb").unlink(missing_ok=True)
    (home / "current.duckdb").symlink_to(f"scores-{run_id}.duckdb")


def test_what_is_noted_is_there_when_the_file_is_read_again(tmp_path: Path, config) -> None:
    ledger = begun(tmp_path, "a", config)
    ledger.note("train", version="v1", measured=(2.5, 100.0))
    again = Ledger(tmp_path / "runs" / "a")
    assert again["train"]["version"] == "v1"
    assert again.measured() == {"train": (2.5, 100.0)}
    assert again.last == "train"
    assert "index" not in again


def test_a_line_that_was_not_finished_was_never_written(tmp_path: Path, config) -> None:
    begun(tmp_path, "a", config).note("ingest")
    path = tmp_path / "runs" / "a" / "ledger.jsonl"
    whole = path.read_bytes()
    for cut in (1, 10, len(whole.splitlines()[-1])):  # the newline alone, and more
        path.write_bytes(whole[:-cut])
        torn = Ledger(path.parent)
        assert "ingest" not in torn
        torn.note("ingest")
        steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
        assert steps == ["start", "ingest"]


def test_a_damaged_line_is_named(tmp_path: Path, config) -> None:
    begun(tmp_path, "a", config).note("ingest")
    path = tmp_path / "runs" / "a" / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step": "ingest"', b'"stop": "ingest"'))
    with pytest.raises(ResourceError, match=r"ledger\.jsonl:2 is damaged"):
        Ledger(path.parent)


def test_a_bit_flipped_in_the_ledger_is_noticed_or_undoes_the_last_step(tmp_path, config) -> None:
    """Else a shard could count as done that was not, as one bit makes a 0 of score:000000 a 1."""
    begun(tmp_path, "a", config).note("score:000000")
    path = tmp_path / "runs" / "a" / "ledger.jsonl"
    whole = path.read_bytes()
    start, shard = whole.splitlines(keepends=True)
    for place in range(len(whole)):
        for bit in (1 << n for n in range(8)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            if place == len(whole) - 1:  # no newline, no line
                assert Ledger(path.parent).last == "start"
            else:
                with pytest.raises(ResourceError, match=r"ledger\.jsonl:\d"):
                    Ledger(path.parent)
    path.write_bytes(start + shard)
    assert Ledger(path.parent).last == "score:000000"


def test_a_step_holds_while_its_files_are_as_they_were(tmp_path: Path, config) -> None:
    ledger = begun(tmp_path, "a", config)
    path = write_parquet(pl.DataFrame({"x": [1, 2]}), ledger.folder / "shards" / "0.parquet")
    assert [found.name for found in path.parent.iterdir()] == ["0.parquet"]
    ledger.note("score:0", path)
    assert ledger.holds("score:0")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert not ledger.holds("score:0")
    path.unlink()
    assert not ledger.holds("score:0")
    assert ledger.damaged("score:0") == [path]


def test_what_is_forgotten_takes_all_that_comes_after_with_it(tmp_path: Path, config) -> None:
    ledger = begun(tmp_path, "a", config)
    for step in ("ingest", "embed:items", "train", "index", "score:0", "score"):
        ledger.note(step)
    for folder in ("inputs", "index", "shards"):
        (ledger.folder / folder).mkdir()
    ledger.forget("index")
    for known in (ledger, Ledger(ledger.folder)):
        assert [s for s in ("embed:items", "train", "index", "score:0", "score") if s in known] == [
            "embed:items",
            "train",
        ]
    assert (ledger.folder / "inputs").exists()
    assert not (ledger.folder / "index").exists()
    assert not (ledger.folder / "shards").exists()
    with pytest.raises(ConfigError, match="'scores' is none of ingest, embed"):
        ledger.forget("scores")


def test_the_newest_unfinished_run_is_gone_on_with(tmp_path: Path, config) -> None:
    with pytest.raises(NothingToDo):
        to_resume(tmp_path, None, config)
    begun(tmp_path, "b", config, at=1)
    begun(tmp_path, "a", config, at=2)
    assert to_resume(tmp_path, None, config).run_id == "a"
    assert to_resume(tmp_path, "b", config).run_id == "b"
    with pytest.raises(InputMissing, match=r"no run c; unfinished: b, a"):
        to_resume(tmp_path, "c", config)


def test_a_run_older_than_the_current_night_must_be_named(tmp_path: Path, config) -> None:
    begun(tmp_path, "old", config, at=1)
    begun(tmp_path, "good", config, at=2).note("publish")
    make_current(tmp_path, "good")
    with pytest.raises(NothingToDo, match="newer than the current night"):
        to_resume(tmp_path, None, config)
    assert to_resume(tmp_path, "old", config).run_id == "old"
    assert [ledger.run_id for ledger in unfinished(tmp_path)] == ["old"]


def test_a_run_that_readers_see_is_over_even_if_it_could_not_note_it(tmp_path, config) -> None:
    begun(tmp_path, "a", config)
    make_current(tmp_path, "a")
    assert unfinished(tmp_path) == []
    with pytest.raises(NothingToDo, match="a is published"):
        to_resume(tmp_path, "a", config)


def test_another_configuration_is_another_run(tmp_path: Path, config: Config) -> None:
    begun(tmp_path, "a", config)
    other = config.model_copy(update={"name": "other"})
    with pytest.raises(ConfigError, match="a was started with another configuration"):
        to_resume(tmp_path, "a", other)
    moved = config.sources.model_copy(update={"attach": {"shop": "password=new"}})
    same = config.model_copy(update={"sources": moved})
    assert to_resume(tmp_path, "a", same).run_id == "a"


@pytest.mark.parametrize("name", FRAMES)
def test_rows_of_any_kind_make_another_night_and_later_or_bad_ones_do_not(
    name: str, tmp_path: Path
) -> None:
    night = write_night(tmp_path, SHOP)
    inputs = read_inputs(night.config, as_of=night.as_of, root=night.root)
    frame = getattr(inputs, name)
    more = pl.concat([frame, frame.tail(1)]) if len(frame) else frame.clear(1)
    found = []
    for run_id, rows in (("a", inputs), ("b", replace(inputs, **{name: more}))):
        ledger = begun(tmp_path, run_id, night.config)
        ledger.note("ingest", *freeze(rows, ledger))
        found.append(digests(ledger))
    assert (found[0] == found[1]) == (name in ("quarantine", "report"))


def test_names_sort_by_the_time_they_look_at_then_by_start() -> None:
    days = [datetime(2025, 6, day) for day in (1, 2, 3)]
    names = [new_run_id(as_of, at) for as_of in days for at in days]
    assert names == sorted(names)
    assert len({new_run_id(days[0], days[0]) for _ in range(20)}) > 10
