"""One source at a time: every format, every type, and what cannot be read."""

import gzip
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from jobs.config import Config
from jobs.contracts import Source, contract
from jobs.errors import ConfigError, DataRefused, InputMissing
from jobs.sources import SourceRows, read_source


def read(
    folder: Path,
    text: str,
    source: Source = "events",
    attributes: tuple[str, ...] = (),
    **attach: str,
) -> SourceRows:
    config = Config(
        name="shop",
        sources={"items": "i.csv", "events": "e.csv", "users": "u.csv"},
        items={"attributes": attributes},
        events={"weights": {"view": 1, "o'buy;": 2}},
        predict=[{"behaviour": "view", "horizon_days": 1}],
    )
    return read_source(
        text, source=source, contract=contract(config, source), root=folder, attach=attach
    )


def raw(rows: pl.DataFrame, column: str) -> list[Any]:
    return rows.get_column("raw").struct.field(column).to_list()


CSV = b"""user_id,item_id,ts,behaviour,value,shoe size
007,"a ""quoted"", id",2024-01-01,view,1.5,41
x;y,o'clock,2024-01-02T03:04:05+02:00,o'buy;,,
broken,line
u3,"two
lines",2024-01-03 00:00:00.5,view,,
toomany,i,2024-01-03,view,1,2,3
u4,caf\xe9,2024-01-03,view,,
u5,i5,yesterday,sleep,Free To Play,"x"
"""


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv(tmp_path: Path, name: str, newline: bytes, mark: bytes) -> None:
    content = mark + CSV.replace(b"\n", newline)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found = read(tmp_path, name)
    line_break = newline.decode()
    assert found.rows["user_id"].to_list() == ["007", "x;y", "u3", "u5"]
    assert found.rows["item_id"].to_list() == [
        'a "quoted", id',
        "o'clock",
        f"two{line_break}lines",
        "i5",
    ]
    assert found.rows["ts"].to_list() == [
        datetime(2024, 1, 1),
        datetime(2024, 1, 2, 1, 4, 5),
        datetime(2024, 1, 3, 0, 0, 0, 500_000),
        None,
    ]
    assert found.rows["behaviour"].to_list() == ["view", "o'buy;", "view", None]
    assert found.rows["value"].to_list() == [1.5, None, None, None]
    assert raw(found.rows, "ts") == [None, None, None, "yesterday"]
    assert raw(found.rows, "behaviour") == [None, None, None, "sleep"]
    assert raw(found.rows, "value") == [None, None, None, "Free To Play"]
    # The header is line 1; the row over two lines counts as one.
    assert found.rows["row"].to_list() == [2, 3, 5, 8]
    assert found.rows["file"].to_list() == [name] * 4
    assert found.broken["row"].to_list() == [4, 6, 7]
    assert found.broken["value"].to_list()[:2] == ["broken,line", "toomany,i,2024-01-03,view,1,2,3"]
    assert found.broken["value"].to_list()[2].startswith("u4,caf")
    assert found.ignored == ["shoe size"]


def test_csv_with_a_quote_that_never_closes(tmp_path: Path) -> None:
    lines = "user_id,item_id,ts,behaviour\na,i,2024-01-01,view\n"
    (tmp_path / "e.csv").write_text(lines + 'b,"i,2024-01-01,view')
    found = read(tmp_path, "e.csv")
    assert found.rows["user_id"].to_list() == ["a"]
    assert found.broken.rows() == [("e.csv", 3, 'b,"i,2024-01-01,view')]


def test_tsv(tmp_path: Path) -> None:
    (tmp_path / "e.tsv").write_text("behaviour\tts\titem_id\tuser_id\nview\t2024-01-01\t1,5\t7\n")
    assert read(tmp_path, "e.tsv").rows.select("user_id", "item_id").rows() == [("7", "1,5")]


def test_csv_of_another_dialect_is_refused_with_its_columns(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id;item_id;ts;behaviour\n1;2;2024-01-01;view\n")
    with pytest.raises(DataRefused, match="columns found: user_id;item_id;ts;behaviour"):
        read(tmp_path, "e.csv")
    sql = "from read_csv('e.csv', delim = ';')"
    assert read(tmp_path, sql).rows.select("user_id", "ts").rows() == [(1, datetime(2024, 1, 1))]


def test_csv_without_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("")
    with pytest.raises(DataRefused, match=r"e\.csv"):
        read(tmp_path, "e.csv")


NDJSON = b"""{"user_id": 7, "item_id": "i;'1", "ts": "2024-01-01", "behaviour": "view"}
{"user_id": "007", "item_id": 8,

{"item_id": 8.5, "user_id": "u\\u00e9", "ts": null, "behaviour": "o'buy;", "value": 1e2, "x": [1]}
[1, 2]
{"user_id": "u", "item_id": "caf\xe9"}
{"user_id": "", "item_id": "8", "ts": 1700000000, "behaviour": {"a": 1}, "value": true}
"""


@pytest.mark.parametrize("name", ["e.ndjson", "e.jsonl.gz"])
def test_ndjson(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(NDJSON) if name.endswith("gz") else NDJSON)
    found = read(tmp_path, name)
    assert found.rows["user_id"].to_list() == ["7", "ué", None]
    assert found.rows["item_id"].to_list() == ["i;'1", "8.5", "8"]
    assert found.rows["ts"].to_list() == [datetime(2024, 1, 1), None, None]
    assert found.rows["behaviour"].to_list() == ["view", "o'buy;", None]
    assert found.rows["value"].to_list() == [None, 100.0, None]
    assert raw(found.rows, "ts") == [None, None, "1700000000"]
    assert raw(found.rows, "behaviour") == [None, None, '{"a":1}']
    assert raw(found.rows, "value") == [None, None, "true"]
    assert found.rows["row"].to_list() == [1, 4, 7]
    assert found.broken["row"].to_list() == [2, 5, 6]
    assert found.broken["value"].to_list()[:2] == ['{"user_id": "007", "item_id": 8,', "[1, 2]"]
    assert found.ignored == ["x"]


def test_ndjson_without_a_required_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.ndjson").write_text('{"user_id": 1, "item_id": 2, "time": "2024-01-01"}\n')
    with pytest.raises(DataRefused, match=r"ts .* no such column") as error:
        read(tmp_path, "e.ndjson")
    assert "behaviour" in str(error.value)


def test_empty_ndjson_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "e.ndjson").write_text("")
    assert read(tmp_path, "e.ndjson").rows.height == 0


TIMES = {
    "date": ("date '2024-03-31'", datetime(2024, 3, 31)),
    "timestamp": ("timestamp '2024-03-31 02:30:00.0009'", datetime(2024, 3, 31, 2, 30, 0, 900)),
    "seconds": ("timestamp_s '2024-03-31 02:30:00'", datetime(2024, 3, 31, 2, 30)),
    "millis": ("timestamp_ms '2024-03-31 02:30:00.5'", datetime(2024, 3, 31, 2, 30, 0, 500_000)),
    "nanoseconds": (
        "timestamp_ns '2024-03-31 02:30:00.123456289'",
        datetime(2024, 3, 31, 2, 30, 0, 123456),
    ),
    "zoned": ("timestamptz '2024-03-31 02:30:00+02'", datetime(2024, 3, 31, 0, 30)),
    "text with Z": ("'2024-03-31T02:30:00Z'", datetime(2024, 3, 31, 2, 30)),
    "text with offset": ("'2024-03-31 02:30:00-05:30'", datetime(2024, 3, 31, 8)),
    "text without zone": ("' 2024-03-31 02:30 '", datetime(2024, 3, 31, 2, 30)),
    # Europe/Berlin went from +01 to +02 on 2024-03-31 at 01:00 UTC, and back on 2024-10-27.
    "winter": ("timestamp '2024-03-31 01:59:59' at time zone 'Europe/Berlin'",
               datetime(2024, 3, 31, 0, 59, 59)),
    "summer": ("timestamp '2024-03-31 03:00:00' at time zone 'Europe/Berlin'",
               datetime(2024, 3, 31, 1)),
    "named zone": ("'2024-10-27 04:00:00 Europe/Berlin'", datetime(2024, 10, 27, 3)),
    "epoch": ("to_timestamp(1700000000)", datetime(2023, 11, 14, 22, 13, 20)),
    "blank": ("''", None),
    "infinity": ("timestamp 'infinity'", None),
    "year 12024": ("timestamp '12024-01-01'", None),
    "no date": ("'2024-02-30'", None),
}  # fmt: skip


@pytest.mark.parametrize("case", TIMES)
def test_times_become_naive_utc(tmp_path: Path, case: str) -> None:
    sql, expected = TIMES[case]
    rows = read(tmp_path, f"select 1 user_id, 2 item_id, {sql} ts, 'view' behaviour").rows
    assert rows.schema["ts"] == pl.Datetime("us")
    assert rows["ts"].to_list() == [expected]
    understood = expected is not None or case == "blank"
    assert (raw(rows, "ts") == [None]) == understood


NUMBERS = {
    "1": 1.0, "1.5::decimal(9,2)": 1.5, "2::utinyint": 2.0, "3::hugeint": 3.0, "' 4.5 '": 4.5,
    "'1e3'": 1000.0, "0.1::float": pytest.approx(0.1), "''": None, "null": None,
}  # fmt: skip


@pytest.mark.parametrize("sql", NUMBERS)
def test_numbers(tmp_path: Path, sql: str) -> None:
    rows = read(tmp_path, f"select 1 item_id, 't' title, {sql} price", "items").rows
    assert rows["price"].to_list() == [NUMBERS[sql]]
    assert raw(rows, "price") == [None]


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("'nan'::double", "nan"),
        ("'-inf'::float", "-inf"),
        ("'NaN'", "NaN"),
        ("'inf'", "inf"),
        ("'Free To Play'", "Free To Play"),
        ("'1,5'", "1,5"),
    ],
)
def test_what_is_no_finite_number_keeps_its_raw_text(tmp_path: Path, sql: str, text: str) -> None:
    sql = f"select 1 item_id, 't' title, {sql} price, {sql} size"
    rows = read(tmp_path, sql, "items").rows
    assert rows["price"].to_list() == [None]
    assert raw(rows, "price") == [text]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("true", True), ("1", True), ("0::bigint", False), ("'1'", True), ("' False '", False),
        ("'no'", False), ("null", None), ("''", None), ("2", "2"), ("'perhaps'", "perhaps"),
    ],
)  # fmt: skip
def test_flags(tmp_path: Path, sql: str, expected: bool | str | None) -> None:
    rows = read(tmp_path, f"select 1 user_id, {sql} consent", "users").rows
    is_bad = isinstance(expected, str)
    assert rows["consent"].to_list() == [None if is_bad else expected]
    assert raw(rows, "consent") == [expected if is_bad else None]


@pytest.mark.parametrize(
    "width", ["tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "ubigint"]
)
def test_integer_ids_are_int64(tmp_path: Path, width: str) -> None:
    rows = read(tmp_path, f"select 7::{width} user_id", "users").rows
    assert rows.schema["user_id"] == pl.Int64
    assert rows["user_id"].to_list() == [7]


def test_an_integer_beyond_64_bits_keeps_its_raw_text(tmp_path: Path) -> None:
    rows = read(tmp_path, "select 18446744073709551615::ubigint user_id", "users").rows
    assert rows["user_id"].to_list() == [None]
    assert raw(rows, "user_id") == ["18446744073709551615"]


def test_text_ids_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text('user_id\n007\n" x \'y\';--"\n"   "\n7\n')
    assert read(tmp_path, "u.csv", "users").rows["user_id"].to_list() == [
        "007", " x 'y';--", None, "7",
    ]  # fmt: skip
    uuid = "select '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid user_id"
    assert read(tmp_path, uuid, "users").rows["user_id"].to_list() == [
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    ]


def test_attributes_are_numbers_or_text(tmp_path: Path) -> None:
    sql = "select 1 item_id, 't' title, 1.5 size, 'red' colour, true new, 'nan'::double weight"
    rows = read(tmp_path, sql, "items", ("size", "colour", "new", "weight")).rows
    assert rows.select("size", "colour", "new", "weight").rows() == [(1.5, "red", 1.0, None)]
    assert raw(rows, "weight") == ["nan"]
    with pytest.raises(DataRefused, match=r"height .* no such column"):
        read(tmp_path, sql, "items", ("height",))


def test_parquet_files_of_different_shape_fit_together(tmp_path: Path) -> None:
    day = {"behaviour": ["view"], "ts": [date(2024, 1, 1)]}
    berlin = timezone(timedelta(hours=1))
    pl.DataFrame({"user_id": [1], "item_id": [2], **day}).write_parquet(tmp_path / "e1.parquet")
    pl.DataFrame(
        {
            "item_id": ["x"],
            "user_id": pl.Series([3], dtype=pl.UInt16),
            "ts": [datetime(2024, 1, 2, 12, tzinfo=berlin)],
            "value": pl.Series([1.5], dtype=pl.Float32),
            "behaviour": pl.Series(["view"], dtype=pl.Categorical),
        }
    ).write_parquet(tmp_path / "e2.parquet")
    rows = read(tmp_path, "e*.parquet").rows
    assert rows.select("user_id", "item_id", "ts", "value", "file", "row").rows() == [
        (1, "2", datetime(2024, 1, 1), None, "e1.parquet", 1),
        (3, "x", datetime(2024, 1, 2, 11), 1.5, "e2.parquet", 1),
    ]


def test_a_folder_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "it's [a] *"
    folder.mkdir()
    (folder / "u.csv").write_text("user_id\n1\n")
    pl.DataFrame({"user_id": [1]}).write_parquet(folder / "u[1].parquet")
    assert read(folder, "u.csv", "users").rows.height == 1
    assert read(folder, "*.parquet", "users").rows["file"].to_list() == ["u[1].parquet"]
    assert read(folder, "from 'u.csv'", "users").rows.height == 1


def test_sql_reads_attached_databases_but_cannot_change_them(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as con:
        con.execute("create table people as select 7 as user_id, 'yes' as consent")
    sql = "with p as (from shop.people) select *, 'é;--' note from p; -- é\n; -- the end"
    rows = read(tmp_path, sql, "users", shop="shop.duckdb").rows
    assert rows.select("user_id", "consent", "file", "row").rows() == [(7, True, None, 1)]
    with pytest.raises(ConfigError, match="single select"):
        read(tmp_path, "with p as (select 1) insert into shop.people from p", "users",
             shop="shop.duckdb")  # fmt: skip
    with pytest.raises(InputMissing, match=r"sources\.attach\.shop: .*nope\.duckdb"):
        read(tmp_path, sql, "users", shop="nope.duckdb")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select user_id frm users", "syntax error"),
        ("select * from shop.people", "does not exist"),
        ("select 1 user_id; select 2", "single select"),
        ("select case when range = 99999 then 'x'::int else range end user_id from range(100000)",
         "Could not convert string '...'"),
    ],
)  # fmt: skip
def test_bad_sql_names_source_and_reason(tmp_path: Path, sql: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read(tmp_path, sql, "users")
    assert str(error.value).startswith("sources.users: ")


def test_missing_and_unreadable_input(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=f"no file matches {tmp_path}/\\*.csv"):
        read(tmp_path, "*.csv")
    with pytest.raises(InputMissing, match=r"sources.users.*nope\.parquet"):
        read(tmp_path, "from 'nope.parquet'", "users")
    (tmp_path / "e.parquet").write_text("not parquet")
    with pytest.raises(InputMissing, match=f"{tmp_path}/e.parquet cannot be read"):
        read(tmp_path, "e.parquet")
    whole = gzip.compress(b"user_id\n" + b"".join(b"%d\n" % n for n in range(5000)))
    (tmp_path / "u.csv.gz").write_bytes(whole[:-2000])
    with pytest.raises(InputMissing, match=r"u\.csv\.gz cannot be read"):
        read(tmp_path, "u.csv.gz", "users")


def test_every_wrong_column_is_refused_at_once_with_a_hint(tmp_path: Path) -> None:
    sql = """select 1.5::double user_id, 2 item_id, 1700000000 ts, {'a': 1} behaviour, true "value",
             3 customer"""
    with pytest.raises(DataRefused) as error:
        read(tmp_path, sql)
    lines = str(error.value).split("\n")
    assert lines[0] == "sources.events does not fit its contract:"
    assert lines[1].split() == ["column", "expected", "found", "hint"]
    expected = {
        "user_id": ("DOUBLE", "cast(user_id as bigint) as user_id"),
        "ts": ("INTEGER", "to_timestamp(ts) for seconds, make_timestamp(ts)"),
        "behaviour": ("STRUCT(a INTEGER)", "cast(behaviour as ...)"),
        "value": ("BOOLEAN", "cast(value as integer) as value"),
    }
    assert {line.split()[0] for line in lines[2:-1]} == set(expected)
    for line in lines[2:-1]:
        assert all(part in line for part in expected[line.split()[0]])
    assert "customer" in lines[-1]


def test_a_missing_column_is_refused_with_the_nearest(tmp_path: Path) -> None:
    pl.DataFrame({"product_id": [1], "title": [["a"]]}).write_parquet(tmp_path / "i.parquet")
    with pytest.raises(DataRefused) as error:
        read(tmp_path, "i.parquet", "items")
    message = str(error.value)
    assert "sources.items (i.parquet) does not fit" in message
    assert "in SQL: product_id as item_id" in message
    assert "array_to_string(title, ' ') as title" in message


def test_column_names_are_not_case_sensitive(tmp_path: Path) -> None:
    assert read(tmp_path, 'select 1 as "User_ID"', "users").rows["user_id"].to_list() == [1]
