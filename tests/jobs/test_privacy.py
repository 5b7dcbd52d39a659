"""Nothing that a night says tells of a person: no id, no address, no word of a review."""

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from forks import TINY, command, done, tiny_shop
from shops import Shop

CONTACTS = '[sources]\nconsent = "consent.csv"\nsuppression = "suppression.csv"'
TOML = TINY.replace('attributes = ["country"]', 'attributes = ["country"]\ncolumns = ["email"]')
TOML = TOML.replace("[sources]", CONTACTS) + 'deduplicate_by = "email"\nholdout_share = 0.1\n'
REFUSED = TOML + "\n[gates]\nleast_positives = 1\nnormalised_entropy = 0.001\n"
BAD_ROWS = TOML.replace("[sources]", "[sources]\nmax_quarantined_share = 0.0001")
BAD_CAST = TOML.replace(
    'users = "users.parquet"',
    "users = \"select * replace (email::int as country) from 'users.parquet'\"",
)
BAD_SEGMENT = TOML + 'segment = "email::int > 3"\n'
TODAY = date.today()  # what the age of a list is counted from
ANYHOW = ("--force", "nobody: five trees know little")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Its users have names that nothing else has, and addresses."""
    invented = tiny_shop()
    named = pl.format("customer{}", "user_id").alias("user_id")
    users = invented.users.with_columns(
        named, pl.format("c{}@mail.example", "user_id").alias("email")
    )
    rows = {n: getattr(invented, n).with_columns(named) for n in ("events", "reviews")}
    made = Shop(tmp_path_factory.mktemp("privacy"), TOML, replace(invented, users=users, **rows))
    ids = users.get_column("user_id")
    write_contacts(made.root, [f"{user},{TODAY}" for user in ids[:3]])
    pl.DataFrame({"user_id": ids, "consent": True}).write_csv(made.root / "consent.csv")
    return made


def write_contacts(root: Path, lines: list[str]) -> None:
    (root / "suppression.csv").write_text("\n".join(["user_id,exported_at", *lines, ""]))


def configured(shop: Shop, toml: str) -> Shop:
    shop.config.write_text(toml)
    return shop


def test_no_log_tells_of_a_person(shop: Shop) -> None:
    said = {
        "good": configured(shop, TOML)("run", *ANYHOW),
        "on a terminal": configured(shop, TOML)("run", "--again", *ANYHOW, terminal=True),
        "refused": configured(shop, REFUSED)("run", terminal=True),
        "bad rows": configured(shop, BAD_ROWS)("run"),
        "bad rows on a terminal": configured(shop, BAD_ROWS)("run", terminal=True),
        "a bad cast": configured(shop, BAD_CAST)("run"),
        "a bad segment": configured(shop, BAD_SEGMENT)("run"),
    }
    write_contacts(shop.root, [f"customer10000,{TODAY}", f'"customer10003,{TODAY}'])
    said["a broken list"] = configured(shop, TOML)("run", "--again", *ANYHOW)
    assert {name: code for name, (code, _, _) in said.items()} == {
        "good": 0,
        "on a terminal": 0,
        "refused": 6,
        "bad rows": 3,
        "bad rows on a terminal": 3,
        "a bad cast": 2,
        "a bad segment": 2,
        "a broken list": 3,
    }
    assert "\x1b[" in said["on a terminal"][2]  # in colour
    assert "Could not convert" in said["a bad cast"][2]
    assert "bad rows" in said["a broken list"][2]
    said_by_hand(shop)
    text = "\n".join(p.read_text() for p in shop.folder.glob("*.std*"))
    assert len(text) > 10_000
    assert re.findall(r"customer\d+|\S*@mail\.example", text) == []
    reviews = pl.read_parquet(shop.root / "reviews.parquet")
    for column in ("title", "text"):
        sentences = reviews.get_column(column).drop_nulls().str.split(". ").explode()
        assert [s for s in sentences.unique() if len(s) > 8 and s in text] == []


def said_by_hand(shop: Shop) -> None:
    """Let the other commands say what they do; of feedback, some and then all rows are bad."""
    listed = max((shop.home / "campaigns" / "summer").glob("*.parquet"))
    mailed = pl.read_parquet(listed).get_column("user_id")[0]
    bad = [
        f"m2,summer,{listed.stem},customer99999,sent,{TODAY}",
        f"m3,summer,none,{mailed},sent,{TODAY}",
        f'"m4,summer,{listed.stem},{mailed},sent,{TODAY}',
        f"c1@mail.example,{mailed},{mailed},{mailed},{mailed},{mailed},{mailed}",
    ]
    good = f"m1,summer,{listed.stem},{mailed},sent,{TODAY}"
    head = "message_id,campaign,run_id,user_id,event,ts"
    for name, rows in (("some", [good, *bad]), ("all", bad)):
        (shop.root / f"{name}.csv").write_text("\n".join([head, *rows, ""]))
    root = ("--root", str(shop.root))
    commands = {
        ("feedback", str(shop.root / "some.csv")): 0,
        ("feedback", str(shop.root / "all.csv")): 3,
        ("export", *root): 3,  # the list of those who said no is broken
        ("doctor", *root): 0,
        ("status",): 0,
        ("report",): 0,
        ("gc",): 0,
        ("erase", mailed, *root): 0,
        ("rollback",): 0,
    }
    for number, (words, code) in enumerate(commands.items()):
        line = [words[0], str(shop.config), *words[1:], "--home", str(shop.home)]
        assert done(command, line, shop.folder / f"by-hand-{number}") == code, words
