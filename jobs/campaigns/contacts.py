"""Who may be written to: consent and suppression, as the sources of the night's file tell."""

import glob
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from jobs.config import Config
from jobs.config_inputs import source_format
from jobs.contracts import Consents, Contacts
from jobs.erasing.tombstones import Tombstones
from jobs.errors import DataRefused
from jobs.ingest import checked
from jobs.sources import read_source

CONTRACTS = {"consent": Consents, "suppression": Contacts}


def read_contacts(
    config: Config,
    source: str,
    *,
    root: Path,
    now: datetime,
    users: pl.DataFrame,
    erased: Tombstones,
) -> pl.DataFrame:
    """Read `sources.consent` or `sources.suppression`.

    A list that cannot be trusted in full is not used in part: one bad row refuses it.

    Args:
        config: names the sources.
        source: consent or suppression.
        root: folder that relative paths start from.
        now: naive UTC; what the age of the source is counted from.
        users: their `user_id`, whose type the ids of the source get.
        erased: whose rows are left out.

    Returns:
        user_id, campaign (in lower case; null: all), and consent.

    Raises:
        InputMissing: the source matches no file or cannot be read.
        DataRefused: it is too old, its age is unknown, or a row is bad.
    """
    text: str = getattr(config.sources, source)
    contract = CONTRACTS[source]
    read = read_source(
        text, source=source, contract=contract, root=root, attach=config.sources.attach
    )
    read = erased.without(read)
    rows, bad = checked(read.rows, contract, source)
    if len(bad) or len(read.broken):
        rule = bad["rule"][0] if len(bad) else "broken_line"
        found = f"row {(bad if len(bad) else read.broken)['row'][0]}: {rule}"
        raise DataRefused(
            f"sources.{source}: {len(bad) + len(read.broken)} bad rows, the first: {found}; "
            "it is used as a whole or not at all: mend it"
        )
    _refuse_old(config, source, text, rows, root=root, now=now)
    columns = ["consent"] if source == "consent" else []
    campaign = pl.col("campaign").str.strip_chars().str.to_lowercase().replace("", None)
    return _of_type(rows, users.schema["user_id"], source).select("user_id", campaign, *columns)


def _of_type(rows: pl.DataFrame, kind: pl.DataType, source: str) -> pl.DataFrame:
    """The rows with ids as the users' are, so that 42 in one is '42' in the other."""
    cast = rows.with_columns(pl.col("user_id").cast(kind, strict=False))
    if cast["user_id"].null_count():
        strange = rows.filter(cast["user_id"].is_null()).row(0, named=True)
        raise DataRefused(
            f"sources.{source}: row {strange['row']}: user_id is no number, but "
            " the ids of users are; it is used as a whole or not at all: mend it"
        )
    return cast


def _refuse_old(
    config: Config, source: str, text: str, rows: pl.DataFrame, *, root: Path, now: datetime
) -> None:
    said = rows.select(pl.col("exported_at").max()).item()
    written: datetime | None = said or _newest_file(text, root)
    if written is None:
        raise DataRefused(
            f"sources.{source}: its age is unknown: give the column exported_at (SQL and URLs have "
            "no time of a file)"
        )
    oldest = now - timedelta(days=config.sources.contact_max_age_days)
    if written < oldest:
        raise DataRefused(
            f"sources.{source} is of {written:%Y-%m-%d %H:%M} UTC, older than "
            f"sources.contact_max_age_days = {config.sources.contact_max_age_days:g} allows: "
            "export it again"
        )


def _newest_file(text: str, root: Path) -> datetime | None:
    """When the newest of the files was last changed, in naive UTC."""
    if source_format(text) == "sql" or "://" in text:
        return None
    files = glob.glob(text, root_dir=root, recursive=True)
    newest = max((root / file).stat().st_mtime for file in files)
    return datetime.fromtimestamp(newest, UTC).replace(tzinfo=None)
