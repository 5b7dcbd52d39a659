"""Broken and hostile input: a known answer for each, within bounds of memory and time."""

import csv
import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import hostile
import numpy as np
import polars as pl
import pytest
from forks import TINY, bounded_night, done, tiny_shop
from nights import SHOP, read, write_night

from jobs import nightly
from jobs.config import Config
from jobs.errors import ConfigError
from jobs.ingest import read_inputs
from jobs.options import parse_as_of

MEMORY = 4_000_000_000  # what the reading process may allocate, in bytes
PEAK = 1_500_000_000  # what it may touch, the corpus itself being in its memory
SECONDS = 120  # of computing
NIGHT_PEAK = 1_700  # MiB that a whole night may touch, half of them libraries

Outcomes = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("hostile")
    script = [sys.executable, hostile.__file__, str(folder), str(MEMORY), str(SECONDS)]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(script, capture_output=True, text=True, cwd=root,
                          env={"PYTHONPATH": root, "POLARS_MAX_THREADS": "2"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


def test_every_case_ends_within_the_memory(outcomes: Outcomes) -> None:
    assert list(outcomes) == list(hostile.CORPUS)
    assert max(found["peak"] for found in outcomes.values()) < PEAK


REFUSED = {
    "UTF-16": ("DataRefused", "events.csv): line 1, the header, is no CSV in UTF-8"),
    "UTF-16 without a mark": ("DataRefused", "line 1, the header, is no CSV in UTF-8 (it holds"),
    "a header in Latin-1": ("DataRefused", "reviews.csv): line 1, the header, is no CSV in UTF-8"),
    "nothing but NUL": ("DataRefused", "line 1, the header, is no CSV in UTF-8 (it holds NUL"),
    "a header over two lines": ("DataRefused", "line 1, the header, is no CSV in UTF-8 (unexp"),
    "a column twice": ("DataRefused", "(case is all one): ['user_id', 'User_ID']"),
    "a column missing": ("DataRefused", "no such column"),
    "a bomb of rows": ("DataRefused", "events.csv.gz): unpacks to more than 100 times its"),
    "a bomb of one line": ("DataRefused", "unpacks to more than 100 times its"),
    "a bomb of NUL": ("DataRefused", "unpacks to more than 100 times its"),
    "a bomb of blank lines": ("DataRefused", "unpacks to more than 100 times its"),
    "a cut gzip": ("InputMissing", "events.csv.gz cannot be read: Truncated"),
    "a cut Parquet": ("InputMissing", "events.parquet cannot be read: "),
    "a Parquet of no bytes": ("InputMissing", "events.parquet cannot be read: "),
    "a gzip that is none": ("InputMissing", "events.csv.gz cannot be read: "),
    "no bytes": ("DataRefused", "columns found: (no header)"),
    "no rows": ("DataRefused", "events: no row before 2024-06-01 00:00 UTC is left of the 0 read"),
    "a line of 40 MB": ("DataRefused", "events.ndjson): 1 of its 3 lines are lost"),
    "a quote open over a million lines": ("DataRefused", "of its 1000004 lines are lost"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_message(outcomes: Outcomes, name: str) -> None:
    error, message = REFUSED[name]
    assert outcomes[name]["error"] == error
    assert message in outcomes[name]["message"]
    assert len(outcomes[name]["message"]) < 1000


# Source, its rows read, kept, quarantined and later, and rule and row of the quarantine.
READ: dict[str, tuple[str, list[int], list[tuple[str, int]]]] = {
    "a review of 1 MB": ("reviews", [2, 2, 0, 0], []),
    "a review of 10 MB": ("reviews", [3, 2, 1, 0], [("broken_line", 3)]),
    "nested tags": ("reviews", [2, 2, 0, 0], []),
    "lone surrogates": ("reviews", [3, 1, 2, 0], [("broken_line", 2), ("broken_line", 3)]),
    "surrogate bytes": ("reviews", [2, 1, 1, 0], [("broken_line", 3)]),
    "NUL bytes": ("reviews", [2, 2, 0, 0], []),
    "Latin-1": ("reviews", [3, 1, 2, 0], [("broken_line", 3), ("broken_line", 4)]),
    "not finite": ("events", [4, 1, 3, 0], [("value_not_a_number", n) for n in (3, 4, 5)]),
    "times that are none": ("events", [7, 1, 6, 0], [("unparseable_time", n) for n in range(3, 9)]),
    "a cut CSV": ("events", [2, 1, 1, 0], [("broken_line", 3)]),
    "a quote open to the end": ("events", [101, 1, 100, 0], [("broken_line", 3)] * 100),
    "line breaks in cells": ("reviews", [2, 2, 0, 0], []),
    "line ends of two kinds": ("events", [2, 2, 0, 0], []),
    "NDJSON with line ends of two kinds": ("events", [2, 2, 0, 0], []),
    "columns in another order, one added": ("events", [1, 1, 0, 0], []),
    "columns without a name": ("events", [1, 1, 0, 0], []),
    "ten thousand keys": ("events", [1, 1, 0, 0], []),
    "a deep object": (
        "events",
        [2, 1, 1, 0],
        [("missing_user_id", 2), ("missing_item_id", 2), ("missing_time", 2),
         ("unknown_behaviour", 2)],
    ),
    "late and twice": ("events", [4, 2, 1, 1], [("exact_duplicate", 4)]),
    "one user's million events": ("events", [1_000_001, 1_000_001, 0, 0], []),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_read_but_for_what_is_quarantined(outcomes: Outcomes, name: str) -> None:
    source, counts, quarantine = READ[name]
    found = outcomes[name]
    assert found["counts"][source] == counts
    assert [(rule, row) for _, rule, row, _ in found["quarantine"]] == quarantine
    assert {source for source, *_ in found["quarantine"]} <= {source}


def test_every_case_has_an_answer() -> None:
    assert sorted([*REFUSED, *READ]) == sorted(hostile.CORPUS)


def test_what_is_left_of_texts(outcomes: Outcomes) -> None:
    assert outcomes["a review of 1 MB"]["texts"] == ["nice", "word " * 8]
    assert outcomes["a review of 10 MB"]["texts"] == ["nice", "fine"]
    assert outcomes["nested tags"]["texts"] == ["nice", ""]
    assert outcomes["NUL bytes"]["texts"] == ["nice", "xy"]
    assert outcomes["line breaks in cells"]["texts"] == ["nice", "two lines"]


def test_added_columns_are_named_and_not_without_end(outcomes: Outcomes) -> None:
    ignored = {name: found["ignored"]["events"] for name, found in outcomes.items()
               if "ignored" in found}  # fmt: skip
    assert ignored["columns in another order, one added"] == "new"
    assert ignored["columns without a name"] == "column 1, column 6"
    assert ignored["ten thousand keys"].endswith(" and 9981 more")
    assert len(ignored["ten thousand keys"]) < 200


def test_a_whole_night_with_one_user_of_a_million_events(tmp_path: Path) -> None:
    """As a robot makes them: in their last month, on items at random, one every few seconds."""
    night = write_night(tmp_path, TINY, tiny_shop())
    path = night.root / "events.parquet"
    events = pl.read_parquet(path)
    robot = events.get_column("user_id").drop_nulls()[0]
    rows = 1_000_000
    items = pl.read_parquet(night.root / "items.parquet").get_column("item_id").drop_nulls()
    ends = night.as_of.replace(tzinfo=None)
    made = pl.select(
        user_id=pl.repeat(robot, rows, dtype=events.schema["user_id"]),
        item_id=items.gather(np.random.default_rng(0).integers(0, len(items), rows)),
        ts=ends - pl.duration(microseconds=pl.int_range(rows) * 2_500_000 + 1),
        behaviour=pl.lit("click"),
    )
    pl.concat([events, made], how="diagonal_relaxed").write_parquet(path)
    code = done(bounded_night, night, "robot", tmp_path / "said", MEMORY, SECONDS)
    assert code == 0, (tmp_path / "said").read_text()
    counted = "select sum(events) from user_behaviours join users using (user_id) where user_id = "
    assert read(night, f"{counted}'{robot}'").item() > 0.9 * rows  # an item is unknown
    assert read(night, "select max(peak_mib) from stages").item() < NIGHT_PEAK


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        ("2024-03-30T00:00:00+01:00", "2024-03-31T00:00:00+01:00", 24),
        ("2024-03-31T00:00:00+01:00", "2024-04-01T00:00:00+02:00", 23),
        ("2024-10-27T00:00:00+02:00", "2024-10-28T00:00:00+01:00", 25),
    ],
)
def test_days_of_23_and_25_hours(tmp_path: Path, start: str, end: str, hours: int) -> None:
    """An event each half hour: those before the end of a day of Berlin, less those before it."""
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime.fromisoformat(start)
    times = [(first + timedelta(minutes=30 * n)).astimezone(berlin) for n in range(-48, 100)]
    for source, head in {"items": hostile.ITEMS, "events": hostile.EVENTS}.items():
        (tmp_path / f"{source}.csv").write_bytes(head)
    with (tmp_path / "events.csv").open("a") as file:
        file.writelines(f"u1,a,{ts.isoformat()},view,\n" for ts in times)
    config = Config(
        name="shop",
        sources={"items": "items.csv", "events": "events.csv"},
        events={"weights": {"view": 1}},
        predict=[{"behaviour": "view", "horizon_days": 1}],
    )
    kept = [
        read_inputs(config, as_of=parse_as_of(as_of), root=tmp_path).events.height
        for as_of in (start, end)
    ]
    assert kept[1] - kept[0] == 2 * hours


def test_a_time_that_no_calendar_holds_is_refused_with_a_message() -> None:
    with pytest.raises(ConfigError, match="is no date"):
        parse_as_of("0001-01-01T00:00:00+14:00")


ODD = ["o'brien", 'say "hi"', "a;b,c", "two\nlines", "😀", "007", "7", "=1+1", "@x", " lead",
       "trail ", "NULL", "nan", "L" * 2000, "é", "e\u0301", "\t", "x\0y", "../up", "{0}", "%s",
       "\\"]  # fmt: skip


def test_odd_ids_come_back_exactly_in_tables_and_lists(tmp_path: Path) -> None:
    night = write_night(tmp_path, SHOP.replace("max_rounds = 60", "max_rounds = 5"))
    odd = {"item_id": odd_ids(night.root, "item"), "user_id": odd_ids(night.root, "user")}
    for source in ("items", "users", "events", "reviews"):
        frame = pl.read_parquet(night.root / f"{source}.parquet")
        frame.with_columns(
            pl.col(name).cast(pl.String).replace(ids) for name, ids in odd.items() if name in frame
        ).write_parquet(night.root / f"{source}.parquet")
    outcome = nightly.run(night)

    published = read(night, "select user_id, item_id from predictions")
    for name, ids in odd.items():
        assert set(published[name].to_list()) <= set(ids.values())
        assert set(read(night, f"select {name} from {name[:4]}s")[name]) >= set(published[name])
    (made,) = (made for made in outcome.lists if made.campaign == "summer")
    path, lines = made.path, made.lines
    exact = pl.read_parquet(path.with_suffix(".parquet")).select("user_id", "item_id")
    assert set(exact.rows()) <= set(published.rows())
    with path.open(newline="", encoding="utf-8") as file:
        written = [(row["user_id"], row["item_id"]) for row in csv.DictReader(file)]
    harmless = [tuple("'" + i if i[0] in "=+-@\t\r" else i for i in row) for row in exact.rows()]
    assert written == harmless
    assert lines == len(written) > 0
    assert {i for row in exact.rows() for i in row} & set(ODD)


def odd_ids(root: Path, kind: str) -> dict[str, str]:
    """An odd id, told apart by a number where they are used up, for each id of a source."""
    ids = pl.read_parquet(root / f"{kind}s.parquet")[f"{kind}_id"].drop_nulls().unique().sort()
    return {
        str(old): ODD[n] if n < len(ODD) else f"{ODD[n % len(ODD)]}{n}" for n, old in enumerate(ids)
    }
