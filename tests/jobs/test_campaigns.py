"""Who is on a list: consent, cool-off, probability and places, against a small known night."""

from datetime import datetime

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.campaigns import export, select_list
from jobs.config_sections import CampaignConfig

SCHEMA = """
create table predictions as select 'r1' as run_id, timestamp '2025-06-01' as as_of, * from (values
    (1, 'a', 'buy', 14, 1, 0.0, 0.30::double, ['nearest', 'popular'], 'So.'),
    (1, 'b', 'buy', 14, 2, 0.0, 0.20, ['popular'], null),
    (1, 'c', 'buy', 14, 3, 0.0, 0.01, ['popular'], null),
    (2, 'a', 'buy', 14, 1, 0.0, 0.40, ['popular'], null),
    (3, 'a', 'buy', 14, 1, 0.0, 0.50, ['popular'], null),
    (4, 'a', 'buy', 14, 1, 0.0, 0.60, ['popular'], null),
    (5, 'b', 'click', 14, 1, 0.0, 0.90, ['popular'], null)
) t(user_id, item_id, behaviour, horizon_days, position, score, probability, generators, reason);
create table users as from (values (1, true), (2, false), (3, null), (4, true), (5, true))
    t(user_id, consent);
create table items as from (values ('a', '=cmd()'), ('b', 'Bowl'), ('c', null))
    t(item_id, title);
create table user_behaviours as from (values
    (4, 'buy', 1, timestamp '2025-05-28'), (1, 'click', 9, timestamp '2025-05-31'))
    t(user_id, behaviour, events, last_at);
"""


@pytest.fixture
def night() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(SCHEMA)
    return connection


def lines(night: duckdb.DuckDBPyConnection, **options: object) -> list[tuple[int, str]]:
    campaign = CampaignConfig(name="c", behaviour="buy", **options)
    return select_list(night, campaign).select("user_id", "item_id").rows()


def test_only_a_clear_yes_is_consent(night) -> None:
    assert lines(night) == [(1, "a"), (1, "b"), (1, "c"), (4, "a")]
    everybody = lines(night, require_consent=False)
    assert [user for user, _ in everybody] == [1, 1, 1, 2, 3, 4]


def test_who_bought_lately_is_left_out(night) -> None:
    assert lines(night, cool_off_days=7) == [(1, "a"), (1, "b"), (1, "c")]
    assert lines(night, cool_off_days=3) == lines(night)  # bought exactly four days ago
    assert lines(night, cool_off_days=7, cool_off_after="click") == [(4, "a")]


def test_items_per_user_and_least_probability(night) -> None:
    assert lines(night, items_per_user=1) == [(1, "a"), (4, "a")]
    assert lines(night, min_probability=0.2) == [(1, "a"), (1, "b"), (4, "a")]


def test_both_files_hold_the_same_lines_and_formulas_are_harmless(night, tmp_path) -> None:
    campaign = CampaignConfig(name="spring", behaviour="buy")
    path, count = export(night, campaign, home=tmp_path, run_id="r1")
    text = pl.read_csv(path)
    exact = pl.read_parquet(path.with_suffix(".parquet"))
    assert count == len(text) == len(exact) == 4
    assert path == tmp_path / "campaigns" / "spring" / "r1.csv"
    assert exact.get_column("title").to_list() == ["=cmd()", "Bowl", None, "=cmd()"]
    assert text.get_column("title").to_list() == ["'=cmd()", "Bowl", None, "'=cmd()"]
    assert text.get_column("as_of").unique().to_list() == ["2025-06-01T00:00:00Z"]
    assert exact.get_column("as_of").unique().to_list() == [datetime(2025, 6, 1)]
    assert text.get_column("generators")[0] == "nearest popular"
    assert text.get_column("reason").to_list() == ["So.", None, None, None]
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


@settings(max_examples=25, deadline=None)
@given(
    consent=st.lists(st.sampled_from([True, False, None]), min_size=6, max_size=6),
    bought=st.lists(st.one_of(st.none(), st.integers(1, 20)), min_size=6, max_size=6),
    probability=st.lists(st.floats(0, 1), min_size=6, max_size=6),
    cool_off=st.integers(0, 20),
    least=st.floats(0, 1),
)
def test_nobody_who_must_not_be_mailed_is_on_a_list(
    consent: list[bool | None],
    bought: list[int | None],
    probability: list[float],
    cool_off: int,
    least: float,
) -> None:
    with duckdb.connect() as night:
        night.execute(SCHEMA)
        night.execute("delete from predictions; delete from users; delete from user_behaviours")
        for user in range(6):
            night.execute("insert into users values (?, ?)", [user, consent[user]])
            night.execute(
                "insert into predictions values "
                "('r1', timestamp '2025-06-01', ?, 'a', 'buy', 14, 1, 0.0, ?, ['popular'], null)",
                [user, probability[user]],
            )
            if bought[user] is not None:
                night.execute(
                    "insert into user_behaviours values "
                    "(?, 'buy', 1, timestamp '2025-06-01' - to_days(?::integer))",
                    [user, bought[user]],
                )
        rows = lines(night, cool_off_days=cool_off, min_probability=least)
    expected = [
        (user, "a")
        for user in range(6)
        if consent[user] is True
        and probability[user] >= least
        and (bought[user] is None or bought[user] > cool_off)
    ]
    assert rows == expected
