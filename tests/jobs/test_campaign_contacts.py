"""Segments that can do nothing but judge a user; consent and suppression, whole or not at all."""

import os
from datetime import UTC, timedelta
from pathlib import Path

import polars as pl
import pytest
from campaign_nights import AS_OF, chosen, removed, shop, small_night, users_of

from jobs.campaigns.segments import check_segments, members
from jobs.errors import ConfigError, DataRefused, InputMissing

SENT_AS_TEXT = pl.DataFrame(schema={"user_id": pl.String, "sent_at": pl.Datetime("us")})
USERS = pl.DataFrame({"user_id": [1, 2], "country": ["DE", "FR"], "address": ["x", "y"]})


def write(folder: Path, name: str, *lines: str) -> str:
    (folder / name).write_text("\n".join(lines) + "\n")
    return name


@pytest.mark.parametrize(
    "segment",
    [
        "country = 'DE'",
        "users.country in ('DE', 'FR') and not address ilike '%x'",
        "created_at > as_of - interval 30 days or consent",
        "case when country is null then user_id % 2 = 0 else length(address) between 1 and 2 end",
        "COUNTRY = 'DE' -- only these",
    ],
)
def test_conditions_on_columns_of_users_are_segments(segment: str) -> None:
    check_segments(shop({"segment": segment}))


@pytest.mark.parametrize(
    ("segment", "said"),
    [
        ("country = 'DE') or (true", "one condition"),
        ("true; drop table users", "one condition"),
        ("country, address", "one condition"),
        ("", "one condition"),
        ("user_id in (from 'people.csv')", "only use columns of the user"),
        ("exists(select 1 from read_text('/etc/passwd'))", "only use columns of the user"),
        ("(select count(*) from users) > 1", "only use columns of the user"),
        ("count(*) > 1", "rejects it"),
        ("columns('c.*') = 'x'", "only use columns of the user"),
        ("user_id = $1", "only use columns of the user"),
        ("counrty = 'DE'", "the nearest is country"),
        ("random() < 0.5", "answers differently"),
        ("created_at > now()", "answers differently"),
        ("current_setting('home_directory') = ''", "answers differently"),
        ("read_text('/etc/passwd') is not null", "rejects it"),
        ("country + 1 > 2", "rejects it"),
    ],
)
def test_anything_else_is_refused(segment: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        judge(segment)
    assert "campaign 'c0': segment = " in str(error.value)
    assert said in str(error.value)


def judge(segment: str) -> None:
    check_segments(shop({"segment": segment}))
    members(USERS, segment, as_of=AS_OF, name="c0")


def test_suppression_holds_for_all_campaigns_or_for_one(tmp_path) -> None:
    source = write(tmp_path, "no.csv", "user_id,campaign", "1,", "0002, C0", "3,c1", "77,")
    first, second = chosen(small_night(), {}, {}, root=tmp_path, suppression=source)
    assert users_of(first) == [3, 4, 5, 6]
    assert users_of(second) == [2, 4, 5, 6]
    assert removed(first)["suppressed"] == (2, 8)


def test_suppression_ignores_case_and_blanks(tmp_path) -> None:
    night = small_night()
    for table in ("users", "predictions", "user_behaviours"):
        night.execute(f"alter table {table} alter user_id type varchar using 'U' || user_id")
    source = write(tmp_path, "no.csv", "user_id", "u1", " U2 ")
    (mine,) = chosen(night, {}, root=tmp_path, suppression=source, sent=SENT_AS_TEXT)
    assert users_of(mine) == ["U3", "U4", "U5", "U6"]


def test_an_address_is_suppressed_with_any_of_its_users(tmp_path) -> None:
    source = write(tmp_path, "no.csv", "user_id", "1")
    by_address = {"deduplicate_by": "address"}
    (mine,) = chosen(small_night(), by_address, root=tmp_path, suppression=source)
    assert users_of(mine) == [3, 4, 5, 6]


def test_the_consent_source_beats_the_users_column_and_any_no_counts(tmp_path) -> None:
    rows = ("1,true,", "1,false,c0", "2,true,c1", "3,true,", "7,true,", "8,,")
    source = write(tmp_path, "yes.csv", "user_id,consent,campaign", *rows)
    first, second, third = chosen(
        small_night(), {}, {}, {"require_consent": False}, root=tmp_path, consent=source
    )
    assert users_of(first) == [3, 7]
    assert users_of(second) == [1, 2, 3, 7]
    assert len(users_of(third)) == 8


@pytest.mark.parametrize(
    ("lines", "error", "said"),
    [
        (None, InputMissing, "no file matches"),
        (["id", "1"], DataRefused, "user_id"),
        (["user_id", "1", "x7"], DataRefused, "row 3: user_id is no number"),
        (["user_id,campaign", "1,", ",c0"], DataRefused, "row 3: missing_user_id"),
        (
            ["user_id,campaign", "1,", '2,"c0'],
            DataRefused,
            "bad rows, the first: row 3: broken_line",
        ),
        (["user_id,exported_at", "1,2025-05-24T23:59:59"], DataRefused, "2025-05-24 23:59 UTC"),
        (["user_id,exported_at", "1,soon"], DataRefused, "exported_at_not_a_time"),
    ],
)
def test_without_a_whole_fresh_suppression_there_is_no_list(
    tmp_path, lines: list[str] | None, error: type[Exception], said: str
) -> None:
    if lines:
        write(tmp_path, "no.csv", *lines)
    lists = chosen(small_night(), {}, {}, root=tmp_path, suppression="no.csv")
    for n, mine in enumerate(lists):
        assert type(mine.refused) is error
        assert said in str(mine.refused)
        assert "sources.suppression" in str(mine.refused)
        assert len(mine.lines) == len(mine.audience) == 0
        assert mine.waterfall.rows() == [(f"c{n}", 0, "refused", 0, 0)]


def test_the_age_of_a_file_is_that_of_its_last_change(tmp_path) -> None:
    source = write(tmp_path, "no.csv", "user_id", "1")
    for days, refused in ((6.9, False), (7.1, True)):
        changed = (AS_OF - timedelta(days=days)).replace(tzinfo=UTC).timestamp()
        os.utime(tmp_path / source, (changed, changed))
        (mine,) = chosen(small_night(), {}, root=tmp_path, suppression=source)
        assert (mine.refused is not None) == refused
    (mine,) = chosen(small_night(), {}, root=tmp_path, suppression=source, contact_max_age_days=8)
    assert users_of(mine) == [2, 3, 4, 5, 6]


def test_sql_must_say_how_old_it_is(tmp_path) -> None:
    (mine,) = chosen(small_night(), {}, suppression="select 1 as user_id")
    assert "its age is unknown" in str(mine.refused)
    sql = "select 1 as user_id, timestamp '2025-05-31' as exported_at"
    (mine,) = chosen(small_night(), {}, suppression=sql)
    assert users_of(mine) == [2, 3, 4, 5, 6]


def test_a_missing_consent_spares_campaigns_that_need_none() -> None:
    needs, free = chosen(
        small_night(), {}, {"require_consent": False}, consent="gone.csv", root=Path("/nowhere")
    )
    assert isinstance(needs.refused, InputMissing)
    assert len(users_of(free)) == 8
