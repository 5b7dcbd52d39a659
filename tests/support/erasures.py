"""A shop with somebody to be erased, two nights of it, a search through every byte of a home."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
from forks import QUICK
from nights import write_night

from embed import review_texts
from embed.cache import hash_texts
from jobs import nightly, publish
from jobs.campaigns.feedback import take_feedback
from jobs.campaigns.files import hashed_id
from jobs.nightly import Night
from jobs.vectors import cache_of, encoder_of

ANNA = "=anna;o'brien@example.org"  # a formula for spreadsheets, a trap for SQL
KEY = "a key that nobody guesses"
VARIABLE = "NIGHTRANK_TEST_KEY"
HASHED = hashed_id(ANNA, KEY.encode())
MARK = "Xylomarmalade"  # in all that Anna wrote
SHARED = "Just what I was looking for, thank you."  # what she and somebody else wrote
YESTERDAY, TODAY = "yesterday", "today"
TOML = (
    QUICK.replace('"reviews.parquet"', '"reviews.csv"').replace(
        "[users]", 'suppression = "suppressed.csv"\n\n[users]'
    )
    + f"""
require_consent = false

[[campaign]]
name = "hashed"
behaviour = "click"
layout = "users"
items_per_user = 2
require_consent = false
hash_ids_with = "{VARIABLE}"
cap_messages = 100
holdout_share = 0.2
"""
)


@dataclass(frozen=True)
class World:
    """Two nights, yesterday's lists sent, and what must not be found after erasing Anna.

    Attributes:
        night: today's.
        needles: bytes: her id, what lists call her, what she wrote, its hashes and vectors.
        texts: her cleaned texts that nobody else wrote.
    """

    night: Night
    needles: dict[str, bytes]
    texts: list[str]

    def copy(self, folder: Path) -> Night:
        """The night with a home of its own."""
        home = folder / "home"
        shutil.copytree(self.night.home, home, symlinks=True)
        return replace(self.night, home=home)


def write_shop_of_anna(folder: Path, *, with_anna: bool = True) -> Night:
    """The small shop where the most active user is Anna, or where she never was."""
    night = write_night(folder, TOML)
    shop = night.root
    reviews = pl.read_parquet(shop / "reviews.parquet")
    most = reviews.get_column("user_id").mode().sort()[0]
    frames = {n: pl.read_parquet(shop / f"{n}.parquet") for n in ("users", "events", "reviews")}
    theirs = pl.col("user_id") == most
    marked = pl.when(theirs).then(
        pl.format("{} {} {}", "text", pl.lit(MARK), pl.int_range(pl.len()))
    )
    frames["reviews"] = _same_text(
        reviews.with_columns(marked.otherwise("text").alias("text")), most
    )
    for name, frame in frames.items():
        said = pl.when(theirs).then(pl.lit(ANNA)).otherwise(pl.format("u{}", "user_id"))
        named = frame.with_columns(said.alias("user_id"))
        kept = named if with_anna else named.filter(pl.col("user_id") != ANNA)
        kept.write_parquet(shop / f"{name}.parquet")
        if name == "reviews":
            _write_csv(kept, shop, with_anna=with_anna)
    suppressed = ["user_id,campaign", *([f"{ANNA},other"] if with_anna else []), "u10000,"]
    (shop / "suppressed.csv").write_text("\n".join(suppressed) + "\n")
    return night


def _same_text(reviews: pl.DataFrame, most: int) -> pl.DataFrame:
    """Let Anna's first review and the first of another be the same."""
    first = (pl.col("user_id") == most).cum_sum().eq(1) & (pl.col("user_id") == most)
    other = (pl.col("user_id") != most).cum_sum().eq(1) & (pl.col("user_id") != most)
    same = first | other
    return reviews.with_columns(
        text=pl.when(same).then(pl.lit(SHARED)).otherwise("text"),
        title=pl.when(same).then(None).otherwise("title"),
    )


def _write_csv(reviews: pl.DataFrame, shop: Path, *, with_anna: bool) -> None:
    """As CSV; of Anna, one line is broken, and one has her words in a cell for numbers."""
    path = shop / "reviews.csv"
    reviews.write_csv(path)
    (shop / "reviews.parquet").unlink()
    if with_anna:
        with path.open("a") as file:
            file.write(f"{ANNA},I00000,2025-05-20,Oh,{MARK} broken,5,6,7\n")
            file.write(f"{ANNA},I00001,2025-05-20,Oh,Yes,{MARK} as rating\n")


def make_world(folder: Path) -> World:
    os.environ[VARIABLE] = KEY
    night = write_shop_of_anna(folder)
    before = replace(night, as_of=night.as_of - timedelta(days=1))
    for one, run_id in ((before, YESTERDAY), (night, TODAY)):
        nightly.run(one, nightly.begin(one, run_id), override="nobody: five trees", again=True)
        if run_id == YESTERDAY:
            take_feedback(_feedback(folder, night.home), home=night.home)
    unfinished = replace(night, as_of=night.as_of - timedelta(hours=1))
    nightly.ingest(unfinished, nightly.begin(unfinished, "unfinished"))
    reviews = pl.read_csv(
        night.root / "reviews.csv", truncate_ragged_lines=True, infer_schema=False
    )
    is_known = pl.col("ts") < f"{night.as_of:%Y-%m-%d}"
    theirs = reviews[:-2].filter(is_known, user_id=ANNA)  # the last two are broken
    own = [text for text in review_texts(theirs) if MARK in text]
    assert len(own) > 5
    hashes = hash_texts(own)
    cache = cache_of(night.home, encoder_of(night.config, night.home))
    kept = cache.take(cache.find(hashes))
    assert kept.any(axis=1).all()
    digests = {f"hash {n}": bytes(digest) for n, digest in enumerate(hashes)}
    vectors = {f"vector {n}": vector.tobytes() for n, vector in enumerate(kept)}
    words = {"id": ANNA.encode(), "hashed id": HASHED.encode(), "text": MARK.encode()}
    return World(night, words | digests | vectors, own)


def _feedback(folder: Path, home: Path) -> Path:
    """Everybody on yesterday's lists got a message; one row of Anna is of no list."""
    rows = ["message_id,campaign,run_id,user_id,event,ts"]
    for campaign in ("summer", "hashed"):
        path = home / "feedback" / "audiences" / campaign / f"{YESTERDAY}.parquet"
        mailed = pl.read_parquet(path).filter(pl.col("arm") == "mailed").get_column("exported_as")
        rows += [
            f"{campaign}-{n},{campaign},{YESTERDAY},{m},sent,2025-05-31"
            for n, m in enumerate(mailed)
        ]
    rows.append(f"x,summer,no,{ANNA},sent,2025-05-31")
    rows.append(f"x,summer,,{ANNA},sent,2025-05-31,and,more")
    file = folder / "feedback.csv"
    file.write_text("\n".join(rows) + "\n")
    return file


def remains(home: Path, needles: dict[str, bytes]) -> dict[str, list[str]]:
    """Which needles are in which files, raw or decoded."""
    found = {}
    for path in sorted(p for p in home.rglob("*") if p.is_file() and not p.is_symlink()):
        content = [path.read_bytes(), path.name.encode(), "\0".join(_decoded(path)).encode()]
        here = [name for name, needle in needles.items() if any(needle in part for part in content)]
        if here:
            found[str(path.relative_to(home))] = here
    return found


def _decoded(path: Path) -> Iterator[str]:
    """Every cell of a table as text."""
    if path.suffix == ".parquet":
        yield from _cells(pl.read_parquet(path).rows())
    elif path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            names = connection.sql(
                "select schema_name, table_name from duckdb_tables() union all "
                "select schema_name, view_name from duckdb_views() where not internal"
            ).fetchall()
            for schema, table in names:
                yield from _cells(connection.sql(f'from "{schema}"."{table}"').fetchall())
    elif path.suffix == ".json":
        yield from _cells(json.loads(path.read_bytes()))


def _cells(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for part in value:
            yield from _cells(part)
    else:
        yield str(value)


def all_tables(scores: Path) -> dict[str, pl.DataFrame]:
    """Every table of a night; its views say nothing else."""
    with publish.open_scores(scores) as connection:
        names = connection.sql("select schema_name, table_name from duckdb_tables()").fetchall()
        return {f"{s}.{t}": connection.sql(f'from "{s}"."{t}"').pl() for s, t in names}
