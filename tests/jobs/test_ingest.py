"""From sources to positions: the rules, the cut in time, and known answers."""

import re
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from jobs.config import Config
from jobs.contracts import cells, contract
from jobs.errors import DataRefused
from jobs.ingest import SOURCES, Inputs, read_inputs
from jobs.shop import make_shop, write_shop
from jobs.sources import read_source

AS_OF = datetime(2024, 6, 1)
BEHAVIOURS = ("view", "buy", "purchase", "review")
FRAMES = ("items", "users", "events", "reviews")

ITEMS = ["item_id,title,price,available,created_at", "b,Boots,10,1,", "a,,,,2024-01-01"]
USERS = ["user_id,consent,created_at", "u9,true,2023-01-01"]
EVENTS = ["user_id,item_id,ts,behaviour,value", "u1,a,2024-02-01,view,"]
REVIEWS = ["user_id,item_id,ts,text,title,rating", "u2,b,2024-03-01,nice,,5"]
FILES = {"items": ITEMS, "users": USERS, "events": EVENTS, "reviews": REVIEWS}


def make_config(bound: float = 1.0, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "name": "shop",
        "sources": {source: f"{source}.csv" for source in SOURCES},
        "events": {"weights": {"view": 1, "buy": 5}},
        "predict": [{"behaviour": "buy", "horizon_days": 7}],
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    values["sources"]["max_quarantined_share"] = bound
    return Config(**values)


def ingest(folder: Path, bound: float = 1.0, **more: list[str]) -> Inputs:
    """What is read of the files above with more lines."""
    for source, lines in FILES.items():
        text = "\n".join([*lines, *more.get(source, [])])
        (folder / f"{source}.csv").write_text(text + "\n", encoding="utf-8")
    return read_inputs(make_config(bound), as_of=AS_OF, root=folder)


def counts(inputs: Inputs) -> dict[str, tuple[int, int, int, int]]:
    columns = inputs.report.select("source", "read", "kept", "quarantined", "later")
    return {source: tuple(rest) for source, *rest in columns.iter_rows()}


def test_a_small_shop_by_hand(tmp_path: Path) -> None:
    found = ingest(
        tmp_path,
        users=["u2,0,"],
        events=["u9,b,2024-01-01T10:00:00+02:00,buy,9.5", "u1,b,2024-02-01,buy,3"],
        reviews=["u0,a,2024-01-15,,bad,1"],
    )
    assert found.items.rows() == [
        ("a", None, None, None, None, None, True, datetime(2024, 1, 1)),
        ("b", "Boots", None, None, None, 10.0, True, None),
    ]
    assert found.items.columns == [
        "item_id", "title", "description", "category", "brand", "price", "available", "created_at",
    ]  # fmt: skip
    assert found.users.columns == ["user_id", "consent", "created_at", "known_since"]
    assert found.users.rows() == [
        ("u0", None, None, datetime(2024, 1, 15)),
        ("u1", None, None, datetime(2024, 2, 1)),
        ("u2", False, None, datetime(2024, 3, 1)),
        ("u9", True, datetime(2023, 1, 1), datetime(2023, 1, 1)),
    ]
    assert dict(found.events.schema) == {
        "user": pl.Int32,
        "item": pl.Int32,
        "ts": pl.Datetime("us"),
        "behaviour": pl.Enum(["view", "buy"]),
        "value": pl.Float64,
    }
    assert found.events.rows() == [
        (3, 1, datetime(2024, 1, 1, 8), "buy", 9.5),
        (1, 0, datetime(2024, 2, 1), "view", None),
        (1, 1, datetime(2024, 2, 1), "buy", 3.0),
    ]
    assert found.reviews.columns == ["user", "item", "ts", "title", "text", "rating"]
    assert found.reviews.rows() == [
        (0, 0, datetime(2024, 1, 15), "bad", None, 1.0),
        (2, 1, datetime(2024, 3, 1), None, "nice", 5.0),
    ]
    assert found.quarantine.is_empty()
    assert counts(found) == {
        "items": (2, 2, 0, 0),
        "users": (2, 2, 0, 0),
        "events": (3, 3, 0, 0),
        "reviews": (2, 2, 0, 0),
    }


BROKEN = {
    # source, line: rule, column, value
    ("items", ",No id,1,1,"): ("missing_item_id", "item_id", None),
    ("items", "c,Cap,Free To Play,1,"): ("price_not_a_number", "price", "Free To Play"),
    ("items", "c,Cap,NaN,1,"): ("price_not_a_number", "price", "NaN"),
    ("items", "c,Cap,1,2,"): ("available_not_a_boolean", "available", "2"),
    ("items", "c,Cap,1,1,soon"): ("created_at_not_a_time", "created_at", "soon"),
    ("items", "a,Again,1,1,"): ("duplicate_id", "item_id", "a"),
    ("items", "c,Cap"): ("broken_line", None, "c,Cap"),
    ("users", "  ,1,"): ("missing_user_id", "user_id", None),
    ("users", "u3,maybe,"): ("consent_not_a_boolean", "consent", "maybe"),
    ("users", "u3,1,2024-99-01"): ("created_at_not_a_time", "created_at", "2024-99-01"),
    ("users", "u9,0,"): ("duplicate_id", "user_id", "u9"),
    ("events", ",a,2024-02-02,view,"): ("missing_user_id", "user_id", None),
    ("events", "u1,,2024-02-02,view,"): ("missing_item_id", "item_id", None),
    ("events", "u1,a,,view,"): ("missing_time", "ts", None),
    ("events", "u1,a,1700000000,view,"): ("unparseable_time", "ts", "1700000000"),
    ("events", "u1,a,2024-02-02,sleep,"): ("unknown_behaviour", "behaviour", "sleep"),
    ("events", "u1,a,2024-02-02,,"): ("unknown_behaviour", "behaviour", None),
    ("events", "u1,a,2024-02-02,view,inf"): ("value_not_a_number", "value", "inf"),
    ("events", "u1,A,2024-02-02,view,"): ("unknown_item", "item_id", "A"),
    ("events", "u1,a,2024-02-01 00:00,view,"): ("exact_duplicate", None, None),
    ("reviews", "u1,'x; drop',2024-02-02,,,"): ("unknown_item", "item_id", "'x; drop'"),
    ("reviews", "u1,a,2024-02-02,,,five"): ("rating_not_a_number", "rating", "five"),
    ("reviews", "u1,a,,,,"): ("missing_time", "ts", None),
    ("reviews", "u2,b,2024-03-01,nice,,5.0"): ("exact_duplicate", None, None),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return ingest(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize(("case", "expected"), BROKEN.items(), ids=lambda value: value[-1])
def test_each_rule_by_hand(
    tmp_path: Path,
    sound: Inputs,
    case: tuple[str, str],
    expected: tuple[str, str | None, str | None],
) -> None:
    source, line = case
    rule, column, value = expected
    found = ingest(tmp_path, **{source: [line]})
    row = len(FILES[source]) + 1
    assert found.quarantine.rows() == [(source, rule, f"{source}.csv", row, column, value)]
    for name in FRAMES:
        assert_frame_equal(getattr(found, name), getattr(sound, name))
    read, kept, quarantined, later = counts(found)[source]
    assert (read, kept, quarantined, later) == (row - 1, row - 2, 1, 0)


def test_a_row_is_listed_for_every_rule_it_breaks(tmp_path: Path) -> None:
    found = ingest(tmp_path, events=["u1,nope,then,sleep,nan"])
    assert found.quarantine.select("rule", "value").sort("rule").rows() == [
        ("unknown_behaviour", "sleep"),
        ("unknown_item", "nope"),
        ("unparseable_time", "then"),
        ("value_not_a_number", "nan"),
    ]
    assert counts(found)["events"] == (2, 1, 1, 0)


def test_long_values_are_cut(tmp_path: Path) -> None:
    found = ingest(tmp_path, events=[f"u1,{'é' * 500},2024-02-02,view,"])
    assert found.quarantine["value"].to_list() == ["é" * 200]


def test_a_broken_row_stands_for_no_good_one(tmp_path: Path) -> None:
    found = ingest(
        tmp_path,
        items=["c,Cap,cheap,1,", "c,Cap,3,1,", "c,Hat,4,1,"],
        events=["u1,a,2024-02-02,buy,x", "u1,a,2024-02-02,buy,", "u1,a,2024-02-02,buy,y"],
    )
    assert found.items.filter(item_id="c").select("title", "price").rows() == [("Cap", 3.0)]
    assert found.events.filter(behaviour="buy").height == 1
    assert found.quarantine.select("rule", "row").rows() == [
        ("price_not_a_number", 4),
        ("duplicate_id", 6),
        ("value_not_a_number", 3),
        ("value_not_a_number", 5),
    ]


def test_integers_beyond_64_bits_and_odd_attributes(tmp_path: Path) -> None:
    sql = (
        "select * from (values (1::hugeint, 'one', 5.0::double, 'red'), "
        "(18446744073709551616, 'two', 6, 'red'), (3, 'three', 'nan', null)) "
        "t(item_id, title, size, colour)"
    )
    config = make_config(
        sources={"items": sql, "events": "select 7 user_id, 1 item_id, 'view' behaviour, "
                 "date '2024-01-01' ts", "users": None, "reviews": None},
        items={"attributes": ["size", "colour"]},
    )  # fmt: skip
    found = read_inputs(config, as_of=AS_OF, root=tmp_path)
    assert found.items.select("item_id", "size", "colour").rows() == [(1, 5.0, "red")]
    assert found.quarantine.select("rule", "file", "row", "column", "value").rows() == [
        ("item_id_not_a_64_bit_integer", None, 2, "item_id", "18446744073709551616"),
        ("size_not_a_number", None, 3, "size", "nan"),
    ]
    assert found.users.rows() == [(7, None, None, datetime(2024, 1, 1))]
    assert found.reviews.is_empty()
    assert found.report["source"].to_list() == ["items", "events"]


def test_ids_of_mixed_type_become_text_everywhere(tmp_path: Path) -> None:
    sources = {
        "items": "select range as item_id, 't' as title from range(12)",
        "events": "from (values (2, '10', 'view', date '2024-01-01'), (10, '9', 'view', "
        "date '2024-01-02')) t(user_id, item_id, behaviour, ts)",
        "users": "select unnest([2, 30]) as user_id",
        "reviews": None,
    }
    found = read_inputs(make_config(sources=sources), as_of=AS_OF, root=tmp_path)
    items = found.items["item_id"].to_list()
    assert items == sorted(str(n) for n in range(12))
    assert [items[item] for item in found.events["item"]] == ["10", "9"]
    assert found.users["user_id"].to_list() == [2, 10, 30]
    assert found.events["user"].to_list() == [0, 1]
    sources["users"] = "select unnest(['2', 'x']) as user_id"
    found = read_inputs(make_config(sources=sources), as_of=AS_OF, root=tmp_path)
    assert found.users["user_id"].to_list() == ["10", "2", "x"]
    assert found.events["user"].to_list() == [1, 0]


def test_events_at_one_time_keep_the_order_of_their_files(tmp_path: Path) -> None:
    for n, values in enumerate([[3, 1], [2, 5, 4]]):
        pl.DataFrame(
            {
                "user_id": ["u"] * len(values),
                "item_id": ["a"] * len(values),
                "ts": [datetime(2024, 1, 1)] * len(values),
                "behaviour": ["view"] * len(values),
                "value": values,
            }
        ).write_parquet(tmp_path / f"events{n}.parquet")
    (tmp_path / "items.csv").write_text("\n".join(ITEMS))
    sources = {"events": "events*.parquet", "users": None, "reviews": None}
    found = read_inputs(make_config(sources=sources), as_of=AS_OF, root=tmp_path)
    assert found.events["value"].to_list() == [3, 1, 2, 5, 4]


def test_rows_from_as_of_on_are_later(tmp_path: Path) -> None:
    found = ingest(
        tmp_path,
        items=["c,Cap,1,1,2024-05-31 23:59:59.999999", "d,Dress,1,1,2024-06-01"],
        users=["u1,1,2024-06-02"],
        events=[
            "u1,a,2024-05-31 23:59:59.999999,view,",
            "u1,a,2024-06-01,view,",
            "u1,a,2024-06-01T01:59:59+02:00,buy,",
            "u1,d,2024-05-01,view,",
            "u3,nope,2024-07-01,sleep,nan",
        ],
        reviews=["u4,d,2024-05-01,,,", "u4,b,2024-06-01,,,"],
    )
    assert found.items["item_id"].to_list() == ["a", "b", "c"]
    assert found.events["ts"].to_list() == [
        datetime(2024, 2, 1),
        datetime(2024, 5, 31, 23, 59, 59),
        datetime(2024, 5, 31, 23, 59, 59, 999_999),
    ]
    # Known by the event, not by the row that is created later.
    assert found.users.row(by_predicate=pl.col("user_id") == "u1") == (
        "u1", None, None, datetime(2024, 2, 1),
    )  # fmt: skip
    assert found.users["user_id"].to_list() == ["u1", "u2", "u9"]
    assert found.quarantine.is_empty()
    assert counts(found) == {
        "items": (4, 3, 0, 1),
        "users": (2, 1, 0, 1),
        "events": (6, 3, 0, 3),
        "reviews": (3, 1, 0, 2),
    }


EARLY_DAYS = st.integers(1, 300).map(lambda days: AS_OF - timedelta(hours=8 * days))
LATE_DAYS = st.integers(0, 300).map(lambda days: AS_OF + timedelta(hours=8 * days))
ITEM_IDS = st.sampled_from(["a", "b", "c", "01", "é'\"", ""])
USER_IDS = st.sampled_from(["u1", "u2", "U1", "007", "7", ""])
NUMBER = st.sampled_from(["", "1", "2.5", "nan", "free"])
BEHAVIOUR = st.sampled_from(["view", "buy", "sleep", ""])
FLAG = st.sampled_from(["", "0", "1", "2"])
TEXT = st.sampled_from(["", "Boots", "x"])


def rows_of(times: st.SearchStrategy[datetime]) -> st.SearchStrategy[dict[str, list[tuple]]]:
    """Rows of every source, good and bad, in the column order of the files above."""
    rows = {
        "items": st.tuples(ITEM_IDS, TEXT, NUMBER, FLAG, times),
        "users": st.tuples(USER_IDS, FLAG, times),
        "events": st.tuples(USER_IDS, ITEM_IDS, times, BEHAVIOUR, NUMBER),
        "reviews": st.tuples(USER_IDS, ITEM_IDS, times, TEXT, TEXT, NUMBER),
    }
    return st.fixed_dictionaries({name: st.lists(row, max_size=6) for name, row in rows.items()})


@settings(max_examples=15)
@given(early=rows_of(EARLY_DAYS), late=rows_of(LATE_DAYS), data=st.data())
def test_later_rows_change_nothing(early: dict, late: dict, data: st.DataObject) -> None:
    def written(folder: Path, rows: dict[str, list[tuple]]) -> Inputs:
        for source, lines in FILES.items():
            header = lines[0].split(",")
            given_rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
            given_rows += [dict(zip(header, map(str, row), strict=True)) for row in rows[source]]
            frame = pl.DataFrame(given_rows, schema=dict.fromkeys(header, pl.String))
            frame.write_csv(folder / f"{source}.csv")
        return read_inputs(make_config(), as_of=AS_OF, root=folder)

    mixed = {
        source: data.draw(st.permutations([(0, n) for n in range(len(early[source]))]
                                          + [(1, n) for n in range(len(late[source]))]))
        for source in FILES
    }  # fmt: skip
    ordered = {}
    for source, places in mixed.items():
        kept = iter(early[source])  # the early rows keep their order
        ordered[source] = [late[source][n] if is_late else next(kept) for is_late, n in places]
    with tempfile.TemporaryDirectory() as folder:
        expected = written(Path(folder), early)
        found = written(Path(folder), ordered)
    for name in FRAMES:
        assert_frame_equal(getattr(found, name), getattr(expected, name))
    for inputs in (found, expected):
        balance = inputs.report.select(pl.sum_horizontal("kept", "quarantined", "later"))
        assert balance.to_series().to_list() == inputs.report["read"].to_list()
    # An event of an item that only a later row holds is later, and no longer of an unknown item.
    columns = ("source", "rule", "column", "value")
    quarantines = [
        inputs.quarantine.filter(pl.col("rule") != "unknown_item").select(columns)
        for inputs in (found, expected)
    ]
    later_items = {row[0] for row in late["items"]} - {row[0] for row in early["items"]}
    if not later_items - {"a", "b", ""}:
        assert_frame_equal(*quarantines)


def test_before_cuts_again_with_the_same_positions(tmp_path: Path) -> None:
    more = {
        "items": ["c,Cap,1,1,2024-04-01"],
        "events": ["u5,c,2024-04-02,buy,1", "u1,b,2024-01-05,buy,1"],
        "reviews": ["u0,a,2024-05-01,late,,"],
    }
    found = ingest(tmp_path, **more)
    cut = found.before(datetime(2024, 3, 1))
    assert_frame_equal(cut.items, found.items)
    assert_frame_equal(cut.users, found.users)
    assert cut.events.select("user", "item", "ts").rows() == [
        (1, 1, datetime(2024, 1, 5)),
        (1, 0, datetime(2024, 2, 1)),
    ]
    assert cut.reviews.is_empty()
    assert found.before(datetime(2024, 3, 1, 0, 0, 0, 1)).reviews.height == 1
    assert_frame_equal(found.before(AS_OF).events, found.events)


def test_the_share_of_bad_rows_is_bounded(tmp_path: Path) -> None:
    good = [f"u1,a,2024-02-02 00:{n:02},view," for n in range(18)]  # 19 with the one above
    later = ["u1,a,2025-01-01,view,"] * 50
    bad = ["u1,nope,2024-02-02,view,"]
    assert counts(ingest(tmp_path, 0.05, events=good + bad))["events"] == (20, 19, 1, 0)
    with pytest.raises(DataRefused) as error:
        ingest(tmp_path, 0.05, events=[*good, *later, *bad, "u1,a,tomorrow,view,"], items=["x"])
    lines = str(error.value).split("\n")
    assert lines[:2] == [
        "items: 1 of 3 rows (33.3%) break the contract",
        "events: 2 of 21 rows (9.5%) break the contract",
    ]
    assert [line.split() for line in lines[2:-1]] == [
        ["source", "rule", "rows", "first", "of", "them"],
        ["items", "broken_line", "1", "items.csv:4", "'x'"],
        ["events", "unknown_item", "1", "events.csv:71", "'nope'"],
        ["events", "unparseable_time", "1", "events.csv:72", "'tomorrow'"],
    ]
    assert "sources.max_quarantined_share allows 5.0%" in lines[-1]


def test_no_item_or_event_before_as_of_is_refused(tmp_path: Path) -> None:
    ingest(tmp_path)
    config = make_config()
    with pytest.raises(DataRefused, match=r"events: no row before 2024-01-15 00:00 UTC .* 1 later"):
        read_inputs(config, as_of=datetime(2024, 1, 15), root=tmp_path)
    (tmp_path / "items.csv").write_text(ITEMS[0] + "\n")
    with pytest.raises(DataRefused, match=r"items: no row .* of the 0 read"):
        read_inputs(config, as_of=AS_OF, root=tmp_path)


def test_empty_reviews_and_users_are_fine(tmp_path: Path) -> None:
    ingest(tmp_path)
    (tmp_path / "reviews.csv").write_text(REVIEWS[0] + "\n")
    (tmp_path / "users.csv").write_text(USERS[0])
    found = read_inputs(make_config(0.0), as_of=AS_OF, root=tmp_path)
    assert found.reviews.is_empty()
    assert found.users.rows() == [("u1", None, None, datetime(2024, 2, 1))]


def test_impressions_are_no_events(tmp_path: Path) -> None:
    ingest(
        tmp_path,
        events=["u7,b,2024-02-02,shown,", "u1,b,2024-07-01,shown,", "u1,b,2024-02-01,buy,1"],
    )
    config = make_config(events={"impressions": "shown"})
    found = read_inputs(config, as_of=AS_OF, root=tmp_path)
    assert found.events.select("user", "behaviour").rows() == [(0, "view"), (0, "buy")]
    assert found.events.schema["behaviour"] == pl.Enum(["view", "buy"])
    assert found.impressions.rows() == [(2, 1, datetime(2024, 2, 2))]
    assert found.users.row(2)[0] == "u7"
    assert found.users.row(2)[-1] == datetime(2024, 2, 2)
    assert found.quarantine.is_empty()
    assert counts(found)["events"] == (4, 3, 0, 1)
    assert found.before(datetime(2024, 2, 2)).impressions.is_empty()


def test_ignored_columns_are_reported(tmp_path: Path) -> None:
    ingest(tmp_path)
    (tmp_path / "users.csv").write_text("shoe,user_id,hat\n1,u1,2\n")
    found = read_inputs(make_config(), as_of=AS_OF, root=tmp_path)
    assert found.report.filter(source="users")["ignored_columns"].to_list() == ["hat, shoe"]


def test_as_of_must_be_naive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="naive UTC"):
        read_inputs(make_config(), as_of=AS_OF.astimezone(), root=tmp_path)


def test_the_invented_shop_loses_exactly_its_broken_rows(tmp_path: Path) -> None:
    shop = make_shop(users=30, items=12, days=40, seed=3)
    write_shop(shop, tmp_path)
    weights = dict.fromkeys(shop.events["behaviour"].unique().to_list(), 1.0)
    config = Config(
        name="shop",
        sources={source: f"{source}.parquet" for source in SOURCES} | {"max_quarantined_share": 1},
        events={"weights": weights},
        predict=[{"behaviour": "purchase", "horizon_days": 7}],
    )
    found = read_inputs(config, as_of=datetime(2100, 1, 1), root=tmp_path)
    assert sorted(found.quarantine.select("source", "rule", "value").rows(), key=str) == sorted(
        [
            ("items", "price_not_a_number", "nan"),
            ("users", "missing_user_id", None),
            ("events", "missing_item_id", None),
            ("events", "missing_time", None),
            ("events", "unknown_behaviour", "teleport"),
            ("events", "unknown_item", "I99999"),
            ("events", "value_not_a_number", "nan"),
            ("events", "exact_duplicate", None),
            ("reviews", "unknown_item", "I99999"),
            ("reviews", "rating_not_a_number", "nan"),
            ("reviews", "missing_user_id", None),
        ],
        key=str,
    )
    for source in ("items", "events", "reviews"):
        assert getattr(found, source).height == getattr(shop, source).height


@pytest.mark.realdata
def test_steam_reviews_against_sql(shared_data: Path) -> None:
    root = shared_data / "steam-au"
    config = Config(
        name="steam",
        sources={
            "items": "select item_id, title, genres as category, developer as brand, "
            "try_cast(price as double) as price from 'items.parquet'",
            "reviews": "select user_id, item_id, date as ts, review_text as text "
            "from 'reviews.parquet'",
            "events": "select user_id, item_id, date as ts, 'review' as behaviour "
            "from 'reviews.parquet'",
        },
        events={"weights": {"review": 1.0}},
        predict=[{"behaviour": "review", "horizon_days": 30}],
    )
    found = read_inputs(config, as_of=datetime(2015, 1, 1), root=root)

    def ask(sql: str) -> tuple[Any, ...]:
        with duckdb.connect() as con:
            con.execute(f"set file_search_path = '{root}'")
            return con.sql(sql).fetchall()[0]

    is_known = "item_id in (select item_id from 'items.parquet')"
    expected = ask(f"""select count(*), count(*) filter (date is null),
        count(*) filter (not {is_known} and (date is null or date < '2015-01-01')),
        count(*) filter ({is_known} and date < '2015-01-01'),
        count(*) filter (date >= '2015-01-01'),
        count(*) filter (not {is_known}) from 'reviews.parquet'""")
    read, undated, unknown, kept, later, all_unknown = expected
    assert (undated, all_unknown) == (2, 290)
    rules = found.quarantine.filter(source="reviews").group_by("rule").len()
    assert dict(rules.iter_rows()) == {"missing_time": 2, "unknown_item": unknown}
    assert found.reviews.height == found.events.height == kept
    bad = found.quarantine.filter(source="reviews")["row"].n_unique()
    assert counts(found)["reviews"] == (read, kept, bad, later)
    assert counts(found)["items"] == (32741, 32741, 0, 0)
    joined = found.reviews.with_columns(
        found.users["user_id"].gather(found.reviews["user"]),
        found.items["item_id"].gather(found.reviews["item"]),
    )
    digest = "count(*), sum(hash(user_id, item_id, date::timestamp, review_text))::varchar"
    with duckdb.connect() as con:
        con.register("joined", joined.to_arrow())
        sql = f"select {digest} from (select *, ts as date, text as review_text from joined)"
        assert con.sql(sql).fetchall()[0] == ask(
            f"select {digest} from 'reviews.parquet' where {is_known} and date < '2015-01-01'"
        )


def test_docs_name_every_column_and_rule() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    expected = {"broken_line"}
    for source in SOURCES:
        schema = contract(make_config(), source)
        raw = pl.Struct(dict.fromkeys(schema.column_names(), pl.String))
        _, failure = schema.filter(schema.create_empty().cast({"raw": raw}))
        expected |= {*failure.details().columns, *(cell.name for cell in cells(schema))}
    assert len(expected) > 30
    assert expected - {"raw", "item"} <= set(re.findall(r"`([a-z0-9_]+)`", text))


def test_the_sql_of_the_docs_runs(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "views").mkdir()
    with duckdb.connect() as con:
        con.execute(f"set file_search_path = '{tmp_path}'")
        for name, columns in {
            "products": "1 sku, 'a' \"name\", '1.5' price, 1 item_id, 't' title, ['x'] tags",
            "items": "1 item_id, 't' title",
            "orders": "1 user_id, 1 item_id, date '2024-01-01' ordered_at, 9.5 amount",
            "views/1": "1 user_id, 1 item_id, date '2024-01-02' seen_at",
            "reviews": "1 user_id, 1 item_id, date '2024-01-02' ts",
            "events": "1 user_id, 1 item_id, timestamp '2024-07-01' ts, 'view' behaviour",
            "purchases": "1 user_id, 1 item_id, date '2024-01-01' \"day\" from range(3)",
        }.items():
            con.sql(f"select {columns}").write_parquet(str(tmp_path / f"{name}.parquet"))
    queries = [
        q for block in re.findall(r"```sql\n(.*?)```", text, re.S) for q in block.split("\n\n")
    ]
    for query in queries:
        source = "events" if re.search("user_id|events", query) else "items"
        schema = contract(make_config(events={"weights": dict.fromkeys(BEHAVIOURS, 1)}), source)
        read = read_source(query, source=source, contract=schema, root=tmp_path, attach={})
        assert read.rows.height >= 1
        assert read.rows.select(pl.col("raw").struct.unnest()).null_count().row(0) == (
            (read.rows.height,) * len(read.rows.schema["raw"].fields)
        )
    assert len(queries) == 6
