"""Half-lives and intervals, against SQL and examples to follow by hand."""

from dataclasses import replace
from datetime import timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from rank import tables
from rank.features import GROUPS, Features
from rank.known import Known

AGE = "epoch(as_of - ts) / 86400.0"
GROUPS_HERE = ("half_lives", "intervals")
INT = {"user": pl.Int32, "item": pl.Int32}


def half_lives(of: str) -> str:
    columns = []
    for name in ("view", "cart", "buy"):
        counts = {
            days: f"coalesce(sum(power(0.5, {AGE} / {days})) FILTER (behaviour = '{name}'), 0)"
            for days in (1, 7, 30)
        }
        columns += [f"{count} AS {of}_{name}_half_{days}d" for days, count in counts.items()]
        columns.append(
            f"({counts[7]} / 7) / nullif({counts[30]} / 30, 0) AS {of}_{name}_trend",
        )
    return f"SELECT {of}, {', '.join(columns)} FROM events, clock GROUP BY {of}"


def intervals(of: str) -> str:
    return f"""SELECT {of}, avg(gap) AS {of}_gap_mean, stddev_samp(gap) AS {of}_gap_deviation,
        min(day) / avg(gap) AS {of}_gaps_since
        FROM (SELECT {of}, day, lead(day) OVER (PARTITION BY {of} ORDER BY day) - day AS gap
              FROM (SELECT DISTINCT {of}, floor({AGE})::INT AS day FROM events, clock))
        GROUP BY {of}"""


ORACLE = f"""
SELECT a.* EXCLUDE user, b.* EXCLUDE item, c.* EXCLUDE user, d.* EXCLUDE item, due.pair_due
FROM pairs p
LEFT JOIN ({half_lives("user")}) a USING (user) LEFT JOIN ({half_lives("item")}) b USING (item)
LEFT JOIN ({intervals("user")}) c USING (user) LEFT JOIN ({intervals("item")}) d USING (item)
LEFT JOIN due ON due.user = p.user AND due.item = p.item
ORDER BY p.user, p.item
"""


@pytest.fixture(scope="module")
def described(known: Known, pairs: pl.DataFrame, profiles: np.ndarray) -> pl.DataFrame:
    others = [group for group in GROUPS if group not in GROUPS_HERE]
    return Features(known, without=others)(pairs, profiles)


def test_every_column_equals_the_sql_oracle(
    known: Known, pairs: pl.DataFrame, described: pl.DataFrame
) -> None:
    due = known.due.tocoo()
    sources = {
        "pairs": pairs,
        "events": known.events,
        "clock": pl.DataFrame({"as_of": [known.as_of]}),
        "due": pl.DataFrame({"user": due.row, "item": due.col, "pair_due": due.data}),
    }
    with duckdb.connect() as connection:
        for name, table in sources.items():
            connection.register(name, table.to_arrow())
        oracle = connection.sql(ORACLE).pl()
    assert set(described.columns) == set(oracle.columns)
    for name in described.columns:
        counted = "_half_" in name  # no event is a count of nought, not unknown
        expected = oracle.get_column(name).cast(pl.Float64).fill_null(0.0 if counted else np.nan)
        found = described.get_column(name)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=name)


def dated(known: Known, rows: list[tuple[int, int, float, str]]) -> Known:
    """With these events only: user, item, days before `as_of`, behaviour."""
    oldest_first = sorted(rows, key=lambda row: -row[2])
    events = [(u, i, known.as_of - timedelta(days=age), b) for u, i, age, b in oldest_first]
    return replace(known, events=pl.DataFrame(events, schema=known.events.schema, orient="row"))


def test_an_event_counts_half_after_each_half_life(known: Known) -> None:
    shop = dated(known, [(0, 1, 7.0, "view"), (0, 2, 14.0, "view"), (1, 2, 30.0, "cart")])
    of_user, of_item = tables.user_half_lives(shop), tables.item_half_lives(shop)
    assert of_user["user_view_half_7d"][:3].tolist() == [0.75, 0.0, 0.0]
    assert of_user["user_view_half_1d"][0] == 2**-7 + 2**-14
    assert of_user["user_cart_half_30d"][:2].tolist() == [0.0, 0.5]
    assert of_item["item_view_half_7d"][1:3].tolist() == [0.5, 0.25]
    lately = (2**-1 / 7) / (2 ** (-7 / 30) / 30)
    assert of_item["item_view_trend"][1] == pytest.approx(lately)
    assert np.isnan(of_item["item_view_trend"][[0, 3]]).all()


def test_a_steady_rate_has_a_trend_of_one_and_a_rising_one_more(known: Known) -> None:
    steady = [(0, 1, day + 0.5, "view") for day in range(1000)]
    rising = [(1, 2, day + 0.5, "view") for day in range(1000) if day < 7 or day % 5 == 0]
    trend = tables.user_half_lives(dated(known, steady + rising))["user_view_trend"]
    assert trend[0] == pytest.approx(1.0, abs=0.01)
    assert trend[1] > 1.3


def test_gaps_lie_between_days_and_not_between_events(known: Known) -> None:
    """User 0 on days 2 (twice), 6 and 14; user 1 on days 3 and 5; user 2 on one day only."""
    rows = [(0, 1, age, "view") for age in (2.1, 2.9, 6.5, 14.0)]
    rows += [(1, 1, 3.0, "cart"), (1, 4, 5.9, "buy"), (2, 4, 9.0, "buy"), (2, 4, 9.5, "buy")]
    shop = dated(known, rows)
    columns = tables.user_intervals(shop)
    assert columns["user_gap_mean"][:2].tolist() == [6.0, 2.0]
    assert columns["user_gap_deviation"][0] == pytest.approx(np.sqrt(8))
    assert np.isnan(columns["user_gap_deviation"][1:]).all()  # of one gap there is none
    assert columns["user_gaps_since"][:2].tolist() == pytest.approx([2 / 6, 3 / 2])
    assert np.isnan(columns["user_gap_mean"][2:]).all()
    assert np.isnan(columns["user_gaps_since"][2:]).all()
    # Item 1 on days 2, 3, 6 and 14; item 4 on 5 and 9.
    item = tables.item_intervals(shop)
    assert item["item_gap_mean"][[1, 4]].tolist() == [4.0, 4.0]
    assert item["item_gaps_since"][[1, 4]].tolist() == [0.5, 1.25]


def test_a_pair_used_today_is_not_due_and_one_never_used_is_not_known(
    known: Known, profiles: np.ndarray
) -> None:
    due = sp.csr_array((np.float32([0.0, 0.5]), ([0, 1], [2, 0])), shape=(12, 16))
    asked = pl.DataFrame({"user": [0, 0, 1, 2], "item": [2, 3, 0, 2]}, schema_overrides=INT)
    others = [group for group in GROUPS if group != "intervals"]
    found = Features(replace(known, due=due), without=others)(asked, profiles[:3])
    np.testing.assert_array_equal(found.get_column("pair_due"), [0.0, np.nan, 0.5, np.nan])
