"""Who is on a list, and why the others are not: by hand, and for worlds drawn at random."""

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest
from campaign_nights import (
    ANYBODY,
    AS_OF,
    RUN,
    chosen,
    items_of,
    removed,
    sent_to,
    small_night,
    users_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.campaigns.files import audience_path, list_path, read_list, write_list
from jobs.campaigns.selection import REASONS, Selection


@pytest.fixture
def night() -> duckdb.DuckDBPyConnection:
    return small_night()


def test_only_a_clear_yes_is_consent(night) -> None:
    (mine,) = chosen(night, {})
    assert users_of(mine) == [1, 2, 3, 4, 5, 6]
    assert removed(mine) == {
        "eligible": (8, 32),
        "no_consent": (2, 8),
        "stock": (0, 6),  # d is not available; all six users keep their other items
        "final": (6, 18),
    }
    (everybody,) = chosen(night, {"require_consent": False})
    assert len(users_of(everybody)) == 8


def test_a_segment_is_a_condition_on_the_user(night) -> None:
    (germans,) = chosen(night, {"segment": "country = 'DE' and user_id < 6"})
    assert users_of(germans) == [1, 2]
    assert removed(germans)["segment"] == (6, 24)  # null is not true: user 5 is out


def test_who_bought_lately_is_left_out(night) -> None:
    (week,) = chosen(night, {"cool_off_days": 7})
    assert users_of(week) == [1, 2, 3, 5, 6]
    assert removed(week)["cooling_off"] == (1, 4)
    (three,) = chosen(night, {"cool_off_days": 3})  # user 4 bought exactly four days ago
    assert 4 in users_of(three)
    (clicked,) = chosen(night, {"cool_off_days": 7, "cool_off_after": "click"})
    assert users_of(clicked) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("options", "items", "reason", "lines"),
    [
        ({}, ["a", "b", "c", "d"], "final", 32),
        ({"items_per_user": 1}, ["a"], "items_per_user", 24),
        ({"min_probability": 0.31}, ["a", "b"], "probability", 16),  # b of user 1 is 0.31
        ({"only_available": True}, ["a", "b", "c"], "stock", 8),
        ({"exclude_categories": ["shoes"]}, ["b", "d"], "category", 16),
        ({"exclude_brands": ["Up", "None"]}, ["c", "d"], "brand", 16),
        ({"min_price": 20}, ["b", "d"], "price", 16),  # c has no price
        ({"max_price": 20}, ["a", "b"], "price", 16),
        ({"min_price": 15, "max_price": 30}, ["b"], "price", 24),
        ({"max_per_category": 1}, ["a", "b"], "category_limit", 16),
        ({"max_per_brand": 1}, ["a", "c", "d"], "brand_limit", 8),  # no brand is no brand
    ],
)
def test_items_that_may_not_be_on_the_list(
    night, options: dict[str, Any], items: list[str], reason: str, lines: int
) -> None:
    (mine,) = chosen(night, ANYBODY | options)
    assert items_of(mine) == items
    assert removed(mine)[reason][1] == lines
    places = mine.lines.filter(pl.col("user_id") == 1).get_column("place").to_list()
    assert places == list(range(1, len(items) + 1))


def test_the_likeliest_share_of_the_users(night) -> None:
    (mine,) = chosen(night, ANYBODY | {"top_share": 0.3})  # 2.4 of 8 are 2
    assert users_of(mine) == [7, 8]
    assert removed(mine)["top_share"] == (6, 24)


def test_one_message_for_an_address(night) -> None:
    (mine,) = chosen(night, {"deduplicate_by": "address"})
    assert users_of(mine) == [2, 3, 4, 5, 6]  # 2 is likelier than 1; no address is no address
    assert removed(mine)["same_contact"] == (1, 3)


def test_messages_count_towards_the_cap_for_its_days(night) -> None:
    week_ago = AS_OF - timedelta(days=7)
    second = timedelta(seconds=1)
    sent = sent_to((1, week_ago), (2, week_ago + second), (3, AS_OF), (3, AS_OF), (99, AS_OF))
    (one,) = chosen(night, {"cap_messages": 1}, sent=sent)
    assert users_of(one) == [1, 4, 5, 6]
    assert removed(one)["frequency_cap"] == (2, 8)
    (two,) = chosen(night, {"cap_messages": 2}, sent=sent)
    assert users_of(two) == [1, 2, 4, 5, 6]
    (longer,) = chosen(night, {"cap_messages": 1, "cap_days": 8}, sent=sent)
    assert users_of(longer) == [4, 5, 6]
    (address,) = chosen(night, {"cap_messages": 1, "deduplicate_by": "address"}, sent=sent)
    assert users_of(address) == [4, 5, 6]  # 1 shares an address with 2


def test_a_campaign_of_less_priority_takes_whom_a_cap_leaves(night) -> None:
    late = {"cap_messages": 1}
    early = {"priority": 1, "segment": "country = 'DE'"}
    first, second = chosen(night, late, early)
    assert (users_of(first), users_of(second)) == ([3, 4, 5], [1, 2, 6])
    assert removed(first)["priority"] == (3, 12)
    uncapped, _ = chosen(night, {}, early)
    assert len(users_of(uncapped)) == 6


def test_the_holdout_is_a_salted_hash_and_only_grows(night) -> None:
    (mine,) = chosen(night, ANYBODY | {"holdout_share": 0.4, "holdout_salt": "salt"})
    held = [user for user in range(1, 9) if hashed("salt", f"user {user}") < 0.4]
    assert 0 < len(held) < 8
    assert users_of(mine) == sorted(set(range(1, 9)) - set(held))
    assert removed(mine)["holdout"] == (len(held), 4 * len(held))
    audience = mine.audience.filter(pl.col("arm") == "holdout")
    assert audience.get_column("user_id").to_list() == held


def hashed(salt: str, contact: str) -> float:
    """From 0 to 1."""
    return int(hashlib.sha256(f"{salt} {contact}".encode()).hexdigest()[:13], 16) / 16**13


def test_a_holdout_of_many_has_its_share_and_is_nested(night) -> None:
    night.execute(
        "delete from users; insert into users select n, true, 'DE', null from range(20000) t(n); "
        "delete from predictions where user_id > 1; insert into predictions "
        "select predictions.* replace (n as user_id) from predictions, range(20000) t(n) "
        "where item_id = 'a'"
    )
    held = []
    for share in (0.1, 0.2):
        (mine,) = chosen(night, {"holdout_share": share})
        rows = mine.audience.filter(pl.col("arm") == "holdout")
        held.append(set(rows.get_column("user_id")))
        deviation = (share * (1 - share) / 20000) ** 0.5
        assert abs(len(held[-1]) / 20000 - share) < 4 * deviation
    assert held[0] < held[1]


def test_a_household_is_held_out_as_a_whole(night) -> None:
    night.execute("update users set address = 'one'")
    keyed = ANYBODY | {"deduplicate_by": "address"}
    for salt in ("a", "b", "c"):
        share = hashed(salt, "key one")
        for nudge, expected in ((1e-9, []), (-1e-9, [8])):
            options = {"holdout_salt": salt, "holdout_share": min(share + nudge, 0.999)}
            (mine,) = chosen(night, keyed | options)
            assert users_of(mine) == expected
    assert removed(mine)["same_contact"] == (7, 28)


users = st.fixed_dictionaries(
    {
        "consent": st.sampled_from([True, True, True, False, None]),
        "country": st.sampled_from(["DE", "FR", None]),
        "address": st.sampled_from(["h1", "h2", "h3", None, None]),
        "bought": st.one_of(st.none(), st.integers(1, 20)),
        "sent": st.lists(st.integers(0, 10), max_size=2),
        "suppressed": st.sampled_from([True, False, False, False]),
        "probabilities": st.lists(st.floats(0, 1), min_size=4, max_size=4),
    }
)
campaigns = st.fixed_dictionaries(
    {
        "segment": st.sampled_from([None, "country = 'DE'"]),
        "min_probability": st.sampled_from([0, 0.3]),
        "cool_off_days": st.integers(0, 15),
        "cap_messages": st.one_of(st.none(), st.integers(1, 2)),
        "cap_days": st.integers(1, 10),
        "priority": st.integers(0, 1),
        "exclude_brands": st.sampled_from([[], ["Up"]]),
        "max_price": st.sampled_from([None, 20]),
        "max_per_category": st.sampled_from([None, 1]),
        "deduplicate_by": st.sampled_from([None, "address"]),
        "items_per_user": st.integers(1, 4),
        "top_share": st.sampled_from([None, 0.5]),
        "holdout_share": st.sampled_from([0, 0.3]),
    }
)


@settings(max_examples=25)
@given(st.lists(users, min_size=1, max_size=10), st.lists(campaigns, min_size=1, max_size=2))
def test_nobody_who_must_not_be_mailed_is_on_a_list(tmp_path_factory, people, options) -> None:
    world = World(people, options, tmp_path_factory.mktemp("world"))
    lists = world.select()
    for selection in lists:
        world.check(selection, lists)
        world.check_files(selection)
    again = world.select()
    for one, other in zip(lists, again, strict=True):
        assert one.lines.equals(other.lines)
        assert one.waterfall.equals(other.waterfall)


class World:
    """A night of people as drawn, told independently of the SQL that chooses among them."""

    def __init__(self, people: list[dict[str, Any]], options: list[dict[str, Any]], folder) -> None:
        self.people, self.options, self.folder = people, options, folder
        suppressed = [str(n) for n, person in enumerate(people) if person["suppressed"]]
        (folder / "no.csv").write_text(
            "\n".join(["user_id,exported_at", *(f"{n},2025-05-31" for n in suppressed)]) + "\n"
        )
        (folder / "yes.csv").write_text(
            "\n".join(
                ["user_id,consent,exported_at"]
                + [
                    f"{n},{'' if person['consent'] is None else person['consent']},2025-05-31"
                    for n, person in enumerate(people)
                ]
            )
            + "\n"
        )

    def select(self) -> list[Selection]:
        sent = [(n, at) for n, p in enumerate(self.people) for at in map(days_ago, p["sent"])]
        with small_night() as night:
            self._fill(night)
            given = {"sent": sent_to(*sent), "root": self.folder}
            if any(person["suppressed"] for person in self.people):
                given["suppression"] = "no.csv"
            return chosen(night, *self.options, consent="yes.csv", **given)

    def _fill(self, night: duckdb.DuckDBPyConnection) -> None:
        night.execute(
            "create table template as from predictions where user_id = 1; "
            "delete from predictions; delete from users; delete from user_behaviours"
        )
        for n, person in enumerate(self.people):
            row = [n, None, person["country"], person["address"]]
            night.execute("insert into users values (?, ?, ?, ?)", row)
            night.execute(
                "insert into predictions select * replace "
                "(?::integer as user_id, (?::double[])[position] as probability) from template",
                [n, person["probabilities"]],
            )
            if person["bought"] is not None:
                at = days_ago(person["bought"])
                night.execute("insert into user_behaviours values (?, 'buy', 1, ?)", [n, at])

    def check(self, selection: Selection, lists: list[Selection]) -> None:
        campaign = selection.campaign
        listed = users_of(selection)
        contacts = [self.contact(n, campaign.deduplicate_by) for n in listed]
        assert len(contacts) == len(set(contacts))
        earlier = [
            user
            for other in lists
            for user in users_of(other)
            if (other.campaign.priority, other.campaign.name) < (campaign.priority, campaign.name)
        ]
        for n in listed:
            self.check_person(n, campaign, earlier)
        for row in selection.lines.iter_rows(named=True):
            assert row["probability"] >= campaign.min_probability
            assert row["item_id"] in (["c"] if campaign.exclude_brands else ["a", "b", "c"])
            assert campaign.max_price is None or row["item_id"] in "ab"
        per_user = selection.lines.get_column("user_id").value_counts().get_column("count")
        limit = 2 if campaign.max_per_category else campaign.items_per_user
        assert (per_user <= min(limit, campaign.items_per_user)).all()
        self.check_waterfall(selection)

    def check_files(self, selection: Selection) -> None:
        """What is exported is what was chosen, and whom it holds out is on record."""
        write_list(selection, home=self.folder, run_id=RUN, at=AS_OF, sent=())
        path = list_path(self.folder, selection.campaign.name, RUN)
        chosen = selection.lines.select("user_id", "item_id").rows()
        assert pl.read_parquet(path.with_suffix(".parquet"))["user_id", "item_id"].rows() == chosen
        texts = read_list(path).select("user_id", "item_id").rows()
        assert texts == [(str(user), item) for user, item in chosen]
        arms = dict(pl.read_parquet(audience_path(self.folder, selection.campaign.name, RUN))
                    .select("user_id", "arm").rows())  # fmt: skip
        assert {user for user, arm in arms.items() if arm == "mailed"} == {u for u, _ in chosen}
        told = json.loads(path.with_suffix(".json").read_text())
        assert told["lines"] == len(chosen)
        eligible, *others = (step["lines"] for step in told["waterfall"])
        assert eligible == sum(others)

    def check_person(self, n: int, campaign: Any, earlier: list[int]) -> None:
        person = self.people[n]
        same = self.contact(n, campaign.deduplicate_by)
        others = range(len(self.people))
        household = [m for m in others if self.contact(m, campaign.deduplicate_by) == same]
        assert person["consent"] is True
        assert not any(self.people[m]["suppressed"] for m in household)
        assert campaign.segment is None or person["country"] == "DE"
        assert person["bought"] is None or person["bought"] > campaign.cool_off_days
        assert hashed(campaign.name, same) >= campaign.holdout_share
        messages = [day for m in household for day in self.people[m]["sent"]]
        counted = [day for day in messages if day < campaign.cap_days]
        planned = [user for user in earlier if user in household]
        assert len(counted) + len(planned) < (campaign.cap_messages or 99)

    def contact(self, n: int, key: str | None) -> str:
        address = self.people[n]["address"] if key else None
        return f"user {n}" if address is None else f"key {address}"

    def check_waterfall(self, selection: Selection) -> None:
        waterfall = selection.waterfall
        assert waterfall.get_column("reason").to_list() == ["eligible", *REASONS]
        assert waterfall.get_column("step").to_list() == list(range(len(REASONS) + 1))
        for count in ("users", "lines"):
            eligible, *others = waterfall.get_column(count).to_list()
            assert eligible == sum(others)
            assert min(others) >= 0
        assert waterfall.row(0)[3:] == (len(self.people), 4 * len(self.people))
        final = waterfall.row(-1)[3:]
        assert final == (len(users_of(selection)), len(selection.lines))
        arms = selection.audience.get_column("arm").to_list()
        assert arms.count("mailed") == final[0]
        assert arms.count("holdout") == removed(selection).get("holdout", (0, 0))[0]


def days_ago(days: int) -> datetime:
    return AS_OF - timedelta(days=days)
