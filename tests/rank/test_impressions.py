"""Features of impressions, against SQL and by hand."""

from dataclasses import replace
from datetime import timedelta

import duckdb
import numpy as np
import polars as pl
import pytest

from rank.features import GROUPS, Features
from rank.impressions import Shown
from rank.known import PRIOR_EVENTS, Known

AGE = "epoch(as_of - s.ts) / 86400.0"
# Without an index of impressions two equal ones would be one.
BASE = """
WITH s AS (SELECT row_number() OVER () AS n, * FROM impressions),
seen AS (SELECT s.*, (SELECT min(e.ts) FROM events e
         WHERE e.user = s.user AND e.item = s.item AND e.ts >= s.ts) AS next FROM s),
rate AS (SELECT avg((coalesce(next - ts <= INTERVAL 1 DAY, false))::INT) AS prior FROM seen)
"""


def of(owner: str) -> str:
    return f"""SELECT {owner}, sum(power(0.5, {AGE} / 30)) AS {owner}_times_shown,
        (count(*) FILTER (next - ts <= INTERVAL 1 DAY) + {PRIOR_EVENTS} * any_value(prior))
        / (count(*) + {PRIOR_EVENTS}) AS {owner}_answer_rate
        FROM seen s, rate, clock GROUP BY {owner}"""


ORACLE = f"""{BASE}
SELECT coalesce(pair_times_shown, 0) AS pair_times_shown,
    coalesce(pair_times_ignored, 0) AS pair_times_ignored, pair_days_since_shown,
    coalesce(user_times_shown, 0) AS user_times_shown,
    coalesce(user_answer_rate, prior) AS user_answer_rate,
    coalesce(item_times_shown, 0) AS item_times_shown,
    coalesce(item_answer_rate, prior) AS item_answer_rate
FROM pairs p CROSS JOIN rate
LEFT JOIN (SELECT user, item, sum(power(0.5, {AGE} / 30)) AS pair_times_shown,
    count(*) FILTER (next IS NULL) AS pair_times_ignored, min({AGE}) AS pair_days_since_shown
    FROM seen s, clock GROUP BY user, item) t ON t.user = p.user AND t.item = p.item
LEFT JOIN ({of("user")}) u ON u.user = p.user LEFT JOIN ({of("item")}) i ON i.item = p.item
ORDER BY p.user, p.item
"""


def described(known: Known, pairs: pl.DataFrame, profiles: np.ndarray) -> pl.DataFrame:
    others = [group for group in GROUPS if group != "impressions"]
    return Features(known, without=others)(pairs, profiles)


def test_every_column_equals_the_sql_oracle(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray
) -> None:
    found = described(known, pairs, profiles)
    with duckdb.connect() as con:
        for name, frame in {
            "impressions": known.shown.impressions,
            "events": known.events.select("user", "item", "ts"),
            "pairs": pairs.select("user", "item"),
            "clock": pl.DataFrame({"as_of": [known.as_of]}),
        }.items():
            con.register(name, frame.to_arrow())
        oracle = con.sql(ORACLE).pl()
    assert set(found.columns) == set(oracle.columns)
    for name in found.columns:
        expected = oracle.get_column(name).cast(pl.Float64).fill_null(np.nan).to_numpy()
        np.testing.assert_allclose(found[name].to_numpy(), expected, rtol=1e-5, err_msg=name)
        assert len(np.unique(expected[~np.isnan(expected)])) > 3, name


@pytest.mark.parametrize(
    ("event_after", "ignored", "answered"),
    [(None, 2, 0), (-0.5, 2, 0), (0.0, 1, 1), (1.0, 1, 1), (1.01, 1, 0), (3.5, 0, 1)],
)
def test_an_answer_comes_within_a_day(
    known: Known, event_after: float | None, ignored: int, answered: int
) -> None:
    """User 0 is shown item 1 ten days and seven days ago; the event is so long after the first."""
    days = [10.0, 7.0]
    seen = rows([known.as_of - timedelta(days=d) for d in days])
    happened = [] if event_after is None else [10.0 - event_after]
    events = rows([known.as_of - timedelta(days=d) for d in happened])
    shown = Shown(known.as_of, seen, events, (2, 3))
    place = shown.pairs.find(np.array([0, 1]), np.array([1, 1]))
    columns = {name: values[place] for name, values in shown.pairs.columns.items()}
    assert columns["pair_times_ignored"].tolist() == [ignored, 0]
    np.testing.assert_allclose(columns["pair_days_since_shown"], [7.0, np.nan])
    decayed = 2 ** (-10 / 30) + 2 ** (-7 / 30)
    np.testing.assert_allclose(columns["pair_times_shown"], [decayed, 0])
    rate = shown.table("item")["item_answer_rate"]
    prior = answered / 2
    expected = (answered + PRIOR_EVENTS * prior) / (2 + PRIOR_EVENTS)
    np.testing.assert_allclose(rate, [prior, expected, prior])


def rows(times: list) -> pl.DataFrame:
    return pl.DataFrame(
        {"user": [0] * len(times), "item": [1] * len(times), "ts": times},
        {"user": pl.Int32, "item": pl.Int32, "ts": pl.Datetime("us")},
    )


def test_without_impressions_there_are_no_such_columns(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray
) -> None:
    assert described(replace(known, shown=None), pairs, profiles).width == 0
    nothing = replace(known.shown, impressions=known.shown.impressions.clear())
    blank = described(replace(known, shown=nothing), pairs, profiles)
    assert blank.width == 7
    assert blank.drop("pair_days_since_shown").to_numpy().max() == 0
