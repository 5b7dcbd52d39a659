"""What became of messages, and what they caused: by hand, and through the commands."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from campaign_nights import AS_OF, RUN, chosen, small_night, users_of
from nights import SHOP, read, with_config
from scipy.stats import binomtest
from typer.testing import CliRunner

from jobs.campaigns import records
from jobs.campaigns.feedback import (
    Taken,
    messages,
    quarantine,
    sent_lists,
    sent_messages,
    take_feedback,
)
from jobs.campaigns.files import audience_path, write_list
from jobs.campaigns.lift import LIFT, campaign_lift
from jobs.campaigns.lists import Lists, raise_refused
from jobs.cli import app
from jobs.config import load_config
from jobs.errors import DataRefused, InputMissing
from jobs.ingest import Inputs
from jobs.publish import CURRENT, open_scores

HEADER = "message_id,campaign,run_id,user_id,event,ts"


def feedback(folder: Path, *rows: str, header: str = HEADER) -> Path:
    (folder / "told.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "told.csv"


def listed(home: Path, **options: object) -> None:
    (selection,) = chosen(small_night(), options)
    write_list(selection, home=home, run_id=RUN, at=AS_OF, sent=())


def test_a_message_counts_once_however_often_it_is_told(tmp_path) -> None:
    listed(tmp_path)
    rows = [
        f"m1,c0,{RUN},1,sent,2025-06-01T10:00:00Z",
        f"m1,c0,{RUN},1,opened,2025-06-01T11:00:00Z",
        f"m2,c0,{RUN},2,sent,2025-06-01T09:00:00Z",
        "m3,newsletter,,77,sent,2025-06-01T12:00:00Z",  # not of a list of ours
    ]
    file = feedback(tmp_path, *rows, rows[0])
    assert take_feedback(file, home=tmp_path) == Taken(read=5, new=4, known=1, quarantined=0)
    kept = messages(tmp_path)
    assert take_feedback(file, home=tmp_path) == Taken(read=5, new=0, known=5, quarantined=0)
    assert messages(tmp_path).equals(kept)
    assert kept.select("message_id", "event", "user_id").rows() == [
        ("m1", "sent", "1"),
        ("m1", "opened", "1"),
        ("m2", "sent", "2"),
        ("m3", "sent", "77"),
    ]
    assert sent_lists(tmp_path, "c0") == {RUN: datetime(2025, 6, 1, 9)}
    sent = sent_messages(tmp_path, pl.Int32())
    assert sent.get_column("user_id").to_list() == [1, 2, 77]
    (mine,) = chosen(small_night(), {"cap_messages": 1}, sent=sent)
    assert users_of(mine) == [3, 4, 5, 6]


def test_bad_rows_are_set_apart_with_a_reason(tmp_path) -> None:
    listed(tmp_path)
    file = feedback(
        tmp_path,
        f"m1,c0,{RUN},1,sent,2025-06-01T10:00:00Z",
        f"m2,c0,{RUN},7,sent,2025-06-01T10:00:00Z",  # gave no consent, so not on the list
        "m3,c0,other,1,sent,2025-06-01T10:00:00Z",
        f"m4,c0,{RUN},1,bounced,2025-06-01T10:00:00Z",
        f"m5,c0,{RUN},1,sent,yesterday",
        f",c0,{RUN},1,sent,2025-06-01T10:00:00Z",
        f"m7,c0,{RUN},,sent,2025-06-01T10:00:00Z",
        f"m8,,{RUN},1,sent,2025-06-01T10:00:00Z",
        "m9,..,messages,1,sent,2025-06-01T10:00:00Z",  # a file that exists, and is no list
    )
    assert take_feedback(file, home=tmp_path) == Taken(read=9, new=1, known=0, quarantined=8)
    found = quarantine(tmp_path).select("row", "rule", "value").sort("row").rows()
    assert found == [
        (3, "not_on_the_list", "7"),
        (4, "unknown_list", "other"),
        (5, "unknown_event", "bounced"),
        (6, "unparseable_time", "yesterday"),
        (7, "missing_message_id", None),
        (8, "missing_user_id", None),
        (9, "missing_campaign", None),
        (10, "unknown_list", "messages"),
    ]
    take_feedback(file, home=tmp_path)
    assert len(quarantine(tmp_path)) == 8
    with pytest.raises(DataRefused, match=r"none of its 1 rows can be used: unknown_list"):
        take_feedback(feedback(tmp_path, "m1,c0,no,1,sent,2025-06-01"), home=tmp_path)
    with pytest.raises(DataRefused, match="message_id"):
        take_feedback(feedback(tmp_path, "1,c0", header="user_id,campaign"), home=tmp_path)
    with pytest.raises(InputMissing, match=r"gone\.csv"):
        take_feedback(tmp_path / "gone.csv", home=tmp_path)


def test_hashed_ids_come_back_as_the_users_they_are(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MAIL_KEY", "a key that nobody guesses")
    listed(tmp_path, hash_ids_with="MAIL_KEY", holdout_share=0.4)
    audience = pl.read_parquet(audience_path(tmp_path, "c0", RUN))
    exported = dict(audience.select("arm", "exported_as").rows())
    file = feedback(
        tmp_path,
        f"m1,c0,{RUN},{exported['mailed']},sent,2025-06-01T10:00:00Z",
        f"m2,c0,{RUN},{exported['holdout']},sent,2025-06-01T10:00:00Z",
    )
    assert take_feedback(file, home=tmp_path) == Taken(read=2, new=1, known=0, quarantined=1)
    mailed = audience.filter(pl.col("exported_as") == exported["mailed"])
    assert messages(tmp_path).get_column("user_id").to_list() == [str(mailed["user_id"][0])]


def audience(home: Path, run_id: str, users: range, mailed: int, decile: int) -> None:
    """A list on record: of these users, the first so many mailed."""
    path = audience_path(home, "spring", run_id)
    rows = pl.DataFrame(
        {
            "campaign": "spring",
            "run_id": run_id,
            "as_of": AS_OF,
            "behaviour": "buy",
            "horizon_days": pl.Series([14] * len(users), dtype=pl.Int32),
            "user_id": list(users),
            "exported_as": list(users),
            "arm": ["mailed"] * mailed + ["holdout"] * (len(users) - mailed),
            "probability": 0.5,
            "decile": pl.Series([decile] * len(users), dtype=pl.Int32),
        }
    )
    records.write(path, rows)


def inputs(*events: tuple[int, datetime, str], users: int = 500) -> Inputs:
    rows = pl.DataFrame(
        list(events),
        {"user": pl.Int32, "ts": pl.Datetime("us"), "behaviour": pl.Enum(["buy", "view"])},
        orient="row",
    )
    nothing = pl.DataFrame()
    ids = pl.DataFrame({"user_id": list(range(users))})
    return Inputs(AS_OF, nothing, ids, rows.sort("ts"), nothing, nothing, nothing, nothing)


def test_lift_is_newcombes_published_example(tmp_path) -> None:
    # Newcombe 1998, table II (a): 56/70 against 48/80, method 10: .2, .0524 to .3339.
    audience(tmp_path, "1", range(150), mailed=70, decile=3)
    audience(tmp_path, "2", range(150, 180), mailed=20, decile=7)
    sent = datetime(2025, 6, 1, 10)
    file = feedback(
        tmp_path,
        f"m1,spring,1,0,sent,{sent}",
        f"m2,spring,1,1,sent,{sent + timedelta(hours=5)}",
        f"m3,spring,2,150,sent,{sent + timedelta(days=3)}",  # its horizon is not over
    )
    take_feedback(file, home=tmp_path)
    did = [*range(56), *range(70, 118)]
    end = sent + timedelta(days=14)
    events = [(user, end - timedelta(seconds=1), "buy") for user in did]
    events += [(user, sent, "buy") for user in (0, 1)]  # twice is once; the first moment counts
    others = [(118, end, "buy"), (119, sent - timedelta(seconds=1), "buy"), (120, sent, "view")]
    found = campaign_lift(tmp_path, inputs(*events, *others), as_of=end)
    assert {name: kind for name, kind in found.schema.items()} == LIFT
    every, third = found.rows(named=True)
    assert (every["decile"], third["decile"]) == (0, 3)
    assert every | {"decile": 3} == third
    counts = ("lists", "mailed", "mailed_sent", "mailed_did", "holdout", "holdout_did")
    assert [every[name] for name in counts] == [1, 70, 2, 56, 80, 48]
    assert every["difference"] == pytest.approx(0.2)
    assert every["low"] == pytest.approx(0.0524, abs=5e-5)
    assert every["high"] == pytest.approx(0.3339, abs=5e-5)
    early = campaign_lift(tmp_path, inputs(*events), as_of=end - timedelta(seconds=1))
    assert (len(early), early.schema) == (0, pl.Schema(LIFT))


def test_lift_by_decile_over_lists_rests_on_wilsons_intervals(tmp_path) -> None:
    audience(tmp_path, "1", range(40), mailed=30, decile=1)
    audience(tmp_path, "2", range(20, 80), mailed=40, decile=10)
    sent = datetime(2025, 6, 1)
    rows = [f"m{run},spring,{run},{user},sent,{sent}" for run, user in ((1, 0), (2, 20))]
    take_feedback(feedback(tmp_path, *rows), home=tmp_path)
    did = [0, 1, 2, 35, *range(50, 80)]
    events = inputs(*((user, sent, "buy") for user in did))
    every, low, high = campaign_lift(tmp_path, events, as_of=sent + timedelta(days=14)).rows(
        named=True
    )
    assert [row["decile"] for row in (every, low, high)] == [0, 1, 10]
    assert every["lists"] == 2
    by_hand = {0: (3 + 11, 70, 1 + 20, 30), 1: (3, 30, 1, 10), 10: (11, 40, 20, 20)}
    for row in (every, low, high):
        a, m, b, n = by_hand[row["decile"]]
        assert (row["mailed_did"], row["mailed"]) == (a, m)
        assert (row["holdout_did"], row["holdout"]) == (b, n)
        p, q = a / m, b / n
        mine, theirs = (
            binomtest(k, of).proportion_ci(0.95, method="wilson") for k, of in ((a, m), (b, n))
        )
        below = ((p - mine.low) ** 2 + (theirs.high - q) ** 2) ** 0.5
        above = ((mine.high - p) ** 2 + (q - theirs.low) ** 2) ** 0.5
        assert row["difference"] == pytest.approx(p - q)
        assert row["low"] == pytest.approx(p - q - below, abs=1e-9)
        assert row["high"] == pytest.approx(p - q + above, abs=1e-9)


def test_a_night_publishes_its_waterfalls_and_what_messages_caused(done) -> None:
    night, outcome = done
    waterfall = read(night, "from campaign_waterfall order by step")
    assert waterfall.columns == ["run_id", "campaign", "step", "reason", "users", "lines"]
    eligible, *others = waterfall.get_column("lines")
    candidates = "select count(*) from predictions where behaviour = 'purchase'"
    assert eligible == sum(others) == read(night, candidates).item()
    (written,) = outcome.lists
    assert others[-1] == written.lines == len(pl.read_csv(written.path))
    manifest = json.loads(written.path.with_suffix(".json").read_text())
    assert manifest["waterfall"] == waterfall.drop("run_id", "campaign").to_dicts()
    assert read(night, "from campaign_lift").columns == ["run_id", *LIFT]
    listed = pl.read_parquet(written.path.with_suffix(".parquet"))
    stamp = read(night, "select date_trunc('second', started_at) from runs").item()
    assert listed.get_column("UPDATED_AT").unique().to_list() == [stamp]
    allowed = """
    select user_id from users left join user_behaviours u using (user_id)
    where consent and u.behaviour = 'purchase' and last_at >= timestamp '2025-05-25'
    """
    cooling = read(night, allowed.replace("select user_id", "select distinct user_id"))
    assert len(cooling) > 0
    assert len(listed.join(cooling, on="user_id", how="semi")) == 0


def test_a_list_that_is_refused_leaves_the_others(done, tmp_path) -> None:
    night, outcome = done
    config = night.config
    hashed = config.campaign[0].model_copy(update={"name": "x", "hash_ids_with": "NOBODY_SET_IT"})
    both = with_config(night, campaign=[hashed, *config.campaign]).config
    lists = Lists(both, home=tmp_path, root=night.root)
    with open_scores(night.home / CURRENT) as connection:
        waterfall = lists.select(connection)
    assert waterfall.get_column("campaign").unique().sort().to_list() == ["summer", "x"]
    written = lists.write(outcome.run.run_id, at=AS_OF)
    assert [made.refused is None for made in written] == [False, True]
    assert written[1].path.exists()
    assert not (tmp_path / "campaigns" / "x").exists()
    with pytest.raises(InputMissing, match=r"campaign 'x' has no list.*NOBODY_SET_IT"):
        raise_refused(written)
    raise_refused(written[1:])


def test_preview_shows_what_would_be_sent_and_writes_nothing(done, tmp_path) -> None:
    night, outcome = done
    toml = SHOP + '[[campaign]]\nname = "few"\nbehaviour = "purchase"\ntop_share = 0.1\n'
    config = tmp_path / "small.toml"
    config.write_text(toml)
    load_config(config)
    before = sorted(night.home.rglob("*"))
    words = ["preview", str(config), "summer", "--home", str(night.home), "--root", str(night.root)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert sorted(night.home.rglob("*")) == before
    listed = pl.read_csv(outcome.lists[0].path)
    for said in (
        f"{listed.get_column('user_id').n_unique():,}",
        f"{len(listed):,}",
        f"{listed.get_column('probability').sum():.4f}",
        "cooling_off",
        "few",
    ):
        assert said in shown.output
    words[2] = "autumn"
    refused = CliRunner().invoke(app, words)
    assert "there is no campaign 'autumn'; there are: summer, few" in str(refused.exception)


def test_feedback_is_taken_by_a_command(tmp_path) -> None:
    listed(tmp_path)
    (tmp_path / "small.toml").write_text(SHOP)
    file = feedback(
        tmp_path, f"m1,c0,{RUN},1,sent,2025-06-01T10:00:00Z", "m2,c0,x,1,sent,2025-06-01"
    )
    words = ["feedback", str(tmp_path / "small.toml"), str(file), "--home", str(tmp_path)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "2 rows: 1 new, 0 known already" in told.output
    assert "1 quarantined" in told.output
    assert len(messages(tmp_path)) == 1
