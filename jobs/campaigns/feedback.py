"""What became of the messages: sent, opened, clicked. Kept once for each message and event."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from jobs.campaigns import records
from jobs.campaigns.files import audience_path
from jobs.contracts import Messages
from jobs.erasing.tombstones import Tombstones
from jobs.errors import DataRefused
from jobs.ingest import checked
from jobs.sources import read_source

_KEPT = pl.Schema(
    {
        "message_id": pl.String(),
        "event": pl.String(),
        "campaign": pl.String(),
        "run_id": pl.String(),
        "user_id": pl.String(),
        "ts": pl.Datetime("us"),
    }
)
_BAD = pl.Schema(
    {"file": pl.String(), "row": pl.Int64(), "rule": pl.String(), "value": pl.String()}
)


@dataclass(frozen=True)
class Taken:
    """Rows of a feedback file: read is the sum of the others."""

    read: int
    new: int
    known: int
    quarantined: int
    erased: int = 0


def take_feedback(file: Path, *, home: Path) -> Taken:
    """Add the messages of a CSV, Parquet or NDJSON file to `home/feedback/messages.parquet`.

    A message and event that is already known changes nothing, so a file can be given again. Bad
    rows are added to `quarantine.parquet` beside it; those of people who were erased are not taken.

    Raises:
        InputMissing: the file cannot be read.
        DataRefused: it lacks a column, or holds no good row at all.
        Damaged: what was kept before, or the audience of a list, is not what was written.
    """
    read = read_source(
        str(file.resolve()), source="feedback", contract=Messages, root=Path("/"), attach={}
    )
    read = Tombstones.of(home).without(read)
    good, failures = checked(read.rows, Messages, "feedback")
    good, strangers = _with_users(good.with_columns(_text("message_id", "user_id")), home)
    broken = read.broken.with_columns(pl.lit("broken_line").alias("rule"))
    bad = pl.concat([frame.select(*_BAD) for frame in (failures, broken, strangers)])
    bad = bad.with_columns(pl.lit(file.name).alias("file"))
    known = messages(home)
    key = ["message_id", "event"]
    fresh = good.unique(key, keep="first", maintain_order=True).join(
        known, on=key, how="anti", maintain_order="left"
    )
    if len(good) == 0 and len(bad) and not read.erased:
        rules = ", ".join(bad.get_column("rule").unique(maintain_order=True))
        raise DataRefused(f"{file}: none of its {len(read.rows)} rows can be used: {rules}")
    apart = pl.concat([quarantine(home), bad]).unique(maintain_order=True)
    records.write(_messages_path(home), pl.concat([known, fresh]))
    records.write(_quarantine_path(home), apart)
    told = len(read.rows) + len(read.broken)
    return Taken(
        read=told + read.erased,
        new=len(fresh),
        known=len(good) - len(fresh),
        quarantined=told - len(good),
        erased=read.erased,
    )


def messages(home: Path) -> pl.DataFrame:
    """message_id, event, campaign, run_id (null: no list of ours), user_id (as text), ts.

    Raises:
        Damaged: see `records.read`.
    """
    found = records.read(_messages_path(home))
    return pl.DataFrame(schema=_KEPT) if found is None else found


def quarantine(home: Path) -> pl.DataFrame:
    """file, row, rule, value: what feedback could not be used."""
    found = records.read(_quarantine_path(home))
    return pl.DataFrame(schema=_BAD) if found is None else found


def sent_lists(home: Path, campaign: str) -> dict[str, datetime]:
    """When the first message of each list of a campaign that was sent went out, by run."""
    sent = messages(home).filter(
        pl.col("event") == "sent", pl.col("campaign") == campaign, pl.col("run_id").is_not_null()
    )
    return dict(sent.group_by("run_id").agg(pl.col("ts").min()).sort("run_id").iter_rows())


def sent_messages(home: Path, kind: pl.DataType) -> pl.DataFrame:
    """user_id, in the type of the night's users, and sent_at: a row for each message sent."""
    sent = messages(home).filter(pl.col("event") == "sent")
    ids = pl.col("user_id").cast(kind, strict=False)
    return sent.select(ids, pl.col("ts").alias("sent_at")).drop_nulls()


def _with_users(rows: pl.DataFrame, home: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows with the user behind each exported id; and those of no list, or not on theirs."""
    rows = rows.with_columns(pl.col("run_id").str.strip_chars().replace("", None))
    found = [rows.filter(pl.col("run_id").is_null())]
    strangers = []
    listed = rows.filter(pl.col("run_id").is_not_null())
    for (campaign, run_id), part in listed.group_by("campaign", "run_id", maintain_order=True):
        audience = None
        if re.fullmatch(r"[\w-]+", f"{campaign}{run_id}"):
            audience = records.read(audience_path(home, str(campaign), str(run_id)))
        if audience is None:
            strangers.append(_stranger(part, "unknown_list", "run_id"))
            continue
        mailed = audience.filter(pl.col("arm") == "mailed")
        ids = mailed.select(_text("exported_as", "user_id").name.keep())
        ids = ids.rename({"user_id": "user", "exported_as": "user_id"})
        joined = part.join(ids, on="user_id", how="left", maintain_order="left")
        is_listed = pl.col("user").is_not_null()
        strangers.append(_stranger(joined.filter(~is_listed), "not_on_the_list", "user_id"))
        found.append(joined.filter(is_listed).with_columns(user_id="user").select(rows.columns))
    columns = [pl.col(name).cast(kind) for name, kind in _KEPT.items()]
    nothing = pl.DataFrame(schema=_BAD)
    return pl.concat(found).sort("row").select(columns), pl.concat([nothing, *strangers])


def _stranger(rows: pl.DataFrame, rule: str, column: str) -> pl.DataFrame:
    value = pl.col(column).alias("value")
    return rows.select("file", "row", pl.lit(rule).alias("rule"), value)


def _text(*columns: str) -> pl.Expr:
    return pl.col(columns).cast(pl.String)


def _messages_path(home: Path) -> Path:
    return home / records.FOLDER / "messages.parquet"


def _quarantine_path(home: Path) -> Path:
    return home / records.FOLDER / "quarantine.parquet"
