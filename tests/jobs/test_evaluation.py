import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.evaluation import head, segments

SCHEMA = {"user": pl.Int32, "item": pl.Int32}


def make_pairs(*rows: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def test_segments_by_hand() -> None:
    # Ten events: item 1 has 6, item 2 has 2, items 3 and 4 have one each. 6 + 2 are 80%.
    events = make_pairs(
        (0, 1), (0, 1), (0, 2), (1, 1), (1, 1), (2, 1), (2, 1), (2, 2), (2, 3), (1, 4)
    )
    pairs = make_pairs((0, 1), (0, 3), (2, 2), (7, 2), (7, 9))
    targets = make_pairs((0, 4), (7, 9), (2, 1))
    found = {
        name: (of_pairs.tolist(), targets.filter(pl.Series(of_targets)).rows())
        for name, (of_pairs, of_targets) in segments(events, pairs, targets).items()
    }
    yes, no = True, False
    assert found == {
        "all": ([yes, yes, yes, yes, yes], [(0, 4), (7, 9), (2, 1)]),
        "user:warm": ([yes, yes, yes, no, no], [(0, 4), (2, 1)]),
        "user:cold": ([no, no, no, yes, yes], [(7, 9)]),
        "item:warm": ([yes, yes, yes, yes, no], [(0, 4), (2, 1)]),
        "item:cold": ([no, no, no, no, yes], [(7, 9)]),
        "pair:repeat": ([yes, no, yes, no, no], [(2, 1)]),
        "pair:new": ([no, yes, no, yes, yes], [(0, 4), (7, 9)]),
        "item:head": ([yes, no, yes, yes, no], [(2, 1)]),
        "item:long_tail": ([no, yes, no, no, yes], [(0, 4), (7, 9)]),
    }


some_pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=40)


@settings(max_examples=40)
@given(past=some_pairs, candidates=some_pairs, after=some_pairs)
def test_segments_equal_sql(
    past: list[tuple[int, int]], candidates: list[tuple[int, int]], after: list[tuple[int, int]]
) -> None:
    events, pairs, targets = (make_pairs(*rows) for rows in (past, candidates, after))
    found = segments(events, pairs, targets)
    with duckdb.connect() as connection:
        for place, frame in enumerate((pairs, targets)):
            connection.register("events", events.to_arrow())
            connection.register("pairs", frame.with_row_index("row").to_arrow())
            expected = connection.sql(
                """
                with head as (
                    select item from (
                        select item, n, sum(n) over (order by n desc, item) as up_to
                        from (select item, count(*) as n from events group by item)
                    ) where up_to - n < 0.8 * (select count(*) from events)
                )
                select user in (select user from events) as "user:warm",
                       item in (select item from events) as "item:warm",
                       (user, item) in (select (user, item) from events) as "pair:repeat",
                       item in (from head) as "item:head"
                from pairs order by row
                """
            ).pl()
            for name, other in (
                ("user:warm", "user:cold"),
                ("item:warm", "item:cold"),
                ("pair:repeat", "pair:new"),
                ("item:head", "item:long_tail"),
            ):
                inside = expected.get_column(name).to_numpy()
                np.testing.assert_array_equal(found[name][place], inside)
                np.testing.assert_array_equal(found[other][place], ~inside)


def test_without_events_everything_is_cold_and_new() -> None:
    pairs = make_pairs((0, 1), (1, 1))
    found = segments(make_pairs(), pairs, make_pairs())
    for name in ("user:cold", "item:cold", "pair:new", "item:long_tail"):
        assert found[name][0].all()
    assert len(found["all"][1]) == 0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([8, 1, 1], [0]),  # the first alone holds 80%
        ([7, 2, 1], [0, 1]),
        ([1, 1, 1, 1, 1], [0, 1, 2, 3]),  # ties by item
        ([1, 5], [1]),
    ],
)
def test_the_head_holds_four_fifths_of_the_events(counts: list[int], expected: list[int]) -> None:
    items = [item for item, n in enumerate(counts) for _ in range(n)]
    assert head(pl.DataFrame({"item": items})).get_column("item").to_list() == expected
