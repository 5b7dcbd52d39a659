"""Random sources: read, or refused with a message; no row is lost, and nothing else is raised."""

import csv
import io
import json
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embed import item_texts, review_texts
from jobs.config import Config
from jobs.contracts import contract
from jobs.errors import NightrankError
from jobs.ingest import read_inputs
from jobs.sources import read_source

AS_OF = datetime(2024, 6, 1)
RANDOM = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
COLUMNS = {
    "items": ["item_id", "title", "price", "available", "created_at", "size"],
    "users": ["user_id", "consent", "created_at", "extra"],
    "events": ["user_id", "item_id", "ts", "behaviour", "value"],
    "reviews": ["user_id", "item_id", "ts", "text", "title", "rating"],
}

SENSIBLE = st.sampled_from(
    [
        "a",
        "b",
        "1",
        "view",
        "buy",
        "2024-05-01",
        "2024-06-01T01:00+02:00",
        "true",
        "2.5",
        "<p>x</p>",
    ]
)
WORD = (
    SENSIBLE
    | st.text(max_size=12)
    | st.sampled_from(["", "nan", "infinity", "1e999", "\0", "\u2028"])
)
TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pl.String, WORD),
    (pl.String, WORD),
    (pl.Int64, st.integers(-(2**63), 2**63 - 1)),
    (pl.UInt64, st.integers(0, 2**64 - 1)),
    (pl.Float64, st.floats()),
    (pl.Boolean, st.booleans()),
    (pl.Date, st.dates(date(1, 1, 1))),
    (pl.Datetime("ns"), st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))),
    (pl.Datetime("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    (pl.Binary, st.binary(max_size=3)),
    (pl.List(pl.Int64), st.lists(st.integers(0, 9), max_size=2)),
    (pl.Null, st.none()),
]


@st.composite
def frames(draw: st.DrawFn, names: list[str]) -> pl.DataFrame:
    """Some of the columns in any order, mostly of text, with nulls."""
    height = draw(st.integers(0, 4))
    columns = []
    for name in draw(st.permutations(names)):
        kind, values = TYPES[0] if draw(st.integers(0, 9)) < 8 else draw(st.sampled_from(TYPES))
        cells = draw(st.lists(st.none() | values, min_size=height, max_size=height))
        columns.append(pl.Series(name, cells, dtype=kind))
    dropped = draw(st.integers(0, 20))  # now and then one is missing
    return pl.DataFrame([c for place, c in enumerate(columns) if place != dropped])


def config(ending: str) -> Config:
    sources: dict[str, Any] = {source: f"{source}.{ending}" for source in COLUMNS}
    return Config(
        name="shop",
        sources={**sources, "max_quarantined_share": 1},
        items={"attributes": ["size"]},
        events={"weights": {"view": 1, "buy": 5}},
        predict=[{"behaviour": "buy", "horizon_days": 7}],
    )


@RANDOM
@given(st.fixed_dictionaries({source: frames(names) for source, names in COLUMNS.items()}))
def test_random_frames_are_read_or_refused(sources: dict[str, pl.DataFrame]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for source, frame in sources.items():
            frame.write_parquet(Path(folder) / f"{source}.parquet")
        try:
            found = read_inputs(config("parquet"), as_of=AS_OF, root=Path(folder))
        except NightrankError:
            return
    read = {source: frame.height for source, frame in sources.items()}
    assert dict(found.report.select("source", "read").iter_rows()) == read
    for row in found.report.iter_rows(named=True):
        assert row["read"] == row["kept"] + row["quarantined"] + row["later"]
        bad = found.quarantine.filter(source=row["source"])
        assert bad.get_column("row").n_unique() == row["quarantined"]
    assert (found.events["ts"] < AS_OF).all()
    assert found.items["price"].drop_nulls().is_finite().all()
    texts = item_texts(found.items, template="{title}", max_characters=9)
    texts += review_texts(found.reviews, max_characters=9)
    assert max(map(len, texts), default=0) <= 9


# Any bytes, and pieces that mean something in CSV and JSON.
PIECES = st.binary(max_size=4) | st.sampled_from(
    [b",", b'"', b"\n", b"\r\n", b"\0", b"\xff", b"x", b"u1,a", b'{"user_id": 1}\n', b"{}", b"\\u"]
)
LINES = st.lists(PIECES, max_size=12).map(b"".join)


@RANDOM
@given(LINES, st.sampled_from([(".csv", b"user_id,extra\n"), (".ndjson", b'{"user_id": 7}\n')]))
def test_random_bytes_are_read_or_refused(content: bytes, kind: tuple[str, bytes]) -> None:
    ending, start = kind
    wanted = contract(config("csv"), "users")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"users{ending}").write_bytes(start + content)
        try:
            read = read_source(
                f"users{ending}", source="users", contract=wanted, root=Path(folder), attach={}
            )
        except NightrankError:
            return
    assert read.rows["row"].is_sorted()
    assert not set(read.rows["row"]) & set(read.broken["row"])


def as_csv(ids: list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        [["user_id", "consent"], *([i, ""] for i in ids)]
    )
    return out.getvalue().encode()


def as_ndjson(ids: list[str]) -> bytes:
    return b"".join(json.dumps({"user_id": i}).encode() + b"\n" for i in ids)


@RANDOM
# A carriage return is an end of line to DuckDB's reader of CSV, within quotes too.
@given(st.lists(st.text(min_size=1).filter(str.strip).filter(lambda i: "\r" not in i), max_size=6))
def test_ids_come_back_as_they_were_from_every_format(ids: list[str]) -> None:
    wanted = contract(config("csv"), "users")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "u.csv").write_bytes(as_csv(ids))
        (folder / "u.ndjson").write_bytes(as_ndjson(ids) or b'{"user_id": null}\n')
        pl.DataFrame({"user_id": ids}, schema={"user_id": pl.String}).write_parquet(
            folder / "u.parquet"
        )
        for ending in ("csv", "ndjson", "parquet"):
            read = read_source(
                f"u.{ending}", source="users", contract=wanted, root=folder, attach={}
            )
            assert read.rows["user_id"].drop_nulls().to_list() == ids, ending
            assert read.broken.is_empty()
