"""Broken and hostile input: a known answer for each, within bounds of memory and time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hostile
import pytest

MEMORY = 4_000_000_000  # what the reading process may allocate, in bytes
PEAK = 1_500_000_000  # what it may touch, the corpus itself being in its memory
SECONDS = 120  # of computing

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
