"""The files of a campaign's list: CSV, Parquet, the delta to the last list sent, a manifest."""

import hashlib
import hmac
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import polars as pl

from jobs.campaigns import records
from jobs.campaigns.selection import Selection
from jobs.config_sections import CampaignConfig
from jobs.errors import InputMissing, ResourceError
from jobs.manifest import Damaged, checksum, sha256

# A spreadsheet runs a cell that starts with one of these as a formula. The apostrophe that makes
# it harmless is one of them, so that taking it off again is unambiguous.
_FORMULA = r"^[=+\-@\t\r']"
# Columns that change from night to night though nothing does that a recipient sees.
_UNSEEN = r"^(campaign|run_id|as_of|horizon_days|generators|UPDATED_AT|probability(_\d+)?)$"
KEY_CHARACTERS = 16
_SEAL = "seal"


def list_path(home: Path, campaign: str, run_id: str) -> Path:
    """The CSV of a campaign's list; beside it lie the others, with other endings."""
    return home / "campaigns" / campaign / f"{run_id}.csv"


def audience_path(home: Path, campaign: str, run_id: str) -> Path:
    """Who was on the list and who was held out, kept apart from the lists, which may be removed."""
    return home / records.FOLDER / "audiences" / campaign / f"{run_id}.parquet"


def write_list(
    selection: Selection, *, home: Path, run_id: str, at: datetime, sent: Collection[str]
) -> int:
    """Write all files of one list, each by one rename, the manifest last.

    The audience is written first: whom the campaign holds out is on record before anybody can
    send. A list that was sent stays as it is.

    Args:
        selection: of a campaign that was not refused.
        home: the folder of all that is written.
        run_id: the night's.
        at: naive UTC, in whole seconds; `UPDATED_AT` of rows that are new or changed.
        sent: runs of the campaign whose list was sent.

    Returns:
        Lines on the list.

    Raises:
        InputMissing: the key to hash ids with is not given.
        ResourceError: an earlier list that this one is compared with is damaged.
    """
    campaign, path = selection.campaign, list_path(home, selection.campaign.name, run_id)
    if run_id in sent:
        return _lines_of(path.with_suffix(".json"))
    exported_as = _exported_ids(selection.audience.get_column("user_id"), campaign)
    audience = selection.audience.join(exported_as, on="user_id", maintain_order="left")
    records.write(audience_path(home, campaign.name, run_id), audience)
    changed = path.parent / "delta" / path.name  # apart: it names people who are not on the list
    changed.parent.mkdir(parents=True, exist_ok=True)
    rows = _laid_out(_renamed(selection.lines, exported_as), campaign)
    rows = _dated(rows, _previous(path, run_id), at)
    kept_runs = (run for run in sent if path.with_name(f"{run}.parquet").exists())
    last = max((run for run in kept_runs if run < run_id), default=None)
    delta = changes(rows, _of_run(path, last))
    for csv, frame in {path: rows, changed: delta}.items():
        _write(csv.with_suffix(".parquet"), frame)
        _write(csv, frame)
    _write_manifest(path, selection, audience, delta, last)
    return len(selection.lines)


def harmless(rows: pl.DataFrame) -> pl.DataFrame:
    """Texts that a spreadsheet would run, and those that start with ', with a ' before them.

    `read_list` takes it off again.
    """
    text = pl.col(pl.String)
    return rows.with_columns(
        pl.when(text.str.contains(_FORMULA)).then("'" + text).otherwise(text).name.keep()
    )


def read_list(path: Path | IO[bytes]) -> pl.DataFrame:
    """The rows of a CSV that was written here, every column as text, null where it was null."""
    return pl.read_csv(path, infer_schema=False).with_columns(pl.all().str.strip_prefix("'"))


def changes(rows: pl.DataFrame, last: pl.DataFrame | None) -> pl.DataFrame:
    """What is added, changed and removed against an earlier list, as rows with `change`.

    Removed rows are as they were. Rows of another layout, or ids of another kind, cannot be
    compared: then all are added, as against no list.
    """
    if last is None or last.schema != rows.schema:
        last = rows.clear()
    key = _key(rows)
    same = [*key, *_seen(rows)]
    parts = {
        "added": rows.join(last, on=key, how="anti", maintain_order="left"),
        "changed": rows.join(
            last, on=same, how="anti", nulls_equal=True, maintain_order="left"
        ).join(last, on=key, how="semi", maintain_order="left"),
        "removed": last.join(rows, on=key, how="anti", maintain_order="left"),
    }
    return pl.concat(
        frame.select(pl.lit(change).alias("change"), pl.all()) for change, frame in parts.items()
    )


def _exported_ids(users: pl.Series, campaign: CampaignConfig) -> pl.DataFrame:
    """user_id and exported_as: the same, or its HMAC-SHA256 in hexadecimal."""
    if campaign.hash_ids_with is None:
        return pl.DataFrame({"user_id": users, "exported_as": users})
    key = key_in(campaign.hash_ids_with)
    digests = [hashed_id(str(user), key) for user in users]
    return pl.DataFrame({"user_id": users, "exported_as": pl.Series(digests, dtype=pl.String)})


def key_in(variable: str) -> bytes:
    """The key that ids are hashed with.

    Raises:
        InputMissing: the environment variable does not hold one.
    """
    key = os.environ.get(variable, "")
    if len(key) < KEY_CHARACTERS:
        raise InputMissing(
            f"hash_ids_with: the environment variable {variable} must hold a key of "
            f"{KEY_CHARACTERS} or more characters, and holds {len(key)}"
        )
    return key.encode()


def hashed_id(user: str, key: bytes) -> str:
    """What a list with hashed ids has in place of an id."""
    return hmac.new(key, user.encode(), hashlib.sha256).hexdigest()


def _renamed(lines: pl.DataFrame, exported_as: pl.DataFrame) -> pl.DataFrame:
    joined = lines.join(exported_as, on="user_id", how="left", maintain_order="left")
    return joined.with_columns(user_id="exported_as").select(lines.columns)


def _laid_out(lines: pl.DataFrame, campaign: CampaignConfig) -> pl.DataFrame:
    """The rows of the files: the lines, or one for each user with the columns of each place."""
    if campaign.layout == "lines":
        return lines
    shared = ["campaign", "run_id", "as_of", "user_id", "behaviour", "horizon_days"]
    rows = lines.group_by(shared, maintain_order=True).agg(pl.len().cast(pl.Int32).alias("items"))
    for place in range(1, campaign.items_per_user + 1):
        of_place = lines.filter(pl.col("place") == place).select(
            "user_id",
            *(
                pl.col(name).alias(f"{name}_{place}")
                for name in ("item_id", "title", "probability", "reason")
            ),
        )
        rows = rows.join(of_place, on="user_id", how="left", maintain_order="left")
    return rows


def _dated(rows: pl.DataFrame, previous: pl.DataFrame | None, at: datetime) -> pl.DataFrame:
    """The rows with UPDATED_AT: that of the previous list where a row says the same."""
    fresh = rows.with_columns(pl.lit(at, pl.Datetime("us")).alias("UPDATED_AT"))
    if previous is None or previous.schema != fresh.schema:
        return fresh
    same = [*_key(rows), *_seen(rows)]
    known = previous.select(*same, "UPDATED_AT")
    found = rows.join(known, on=same, how="left", nulls_equal=True, maintain_order="left")
    return found.with_columns(pl.col("UPDATED_AT").fill_null(pl.lit(at)))


def _key(rows: pl.DataFrame) -> list[str]:
    return [name for name in ("user_id", "item_id") if name in rows.columns]


def _seen(rows: pl.DataFrame) -> list[str]:
    """The columns that a recipient sees, beside the key."""
    seen = rows.select(pl.exclude(_UNSEEN)).columns
    return [name for name in seen if name not in _key(rows)]


def _previous(path: Path, run_id: str) -> pl.DataFrame | None:
    """The newest list that was written, this night's own if it was already and is whole."""
    with suppress(ResourceError):  # it is written anew
        if (own := _of_run(path, run_id)) is not None:
            return own
    runs = (found.stem for found in path.parent.glob("[!.]*.json"))
    return _of_run(path, max((run for run in runs if run < run_id), default=None))


def _of_run(path: Path, run_id: str | None) -> pl.DataFrame | None:
    """The list of a run; None where it was not finished, or is removed."""
    found = path.with_name(f"{run_id}.parquet")
    if not found.exists() or not found.with_suffix(".json").exists():
        return None
    with _refusing():
        check_list(found.with_suffix(".json"), found.name)
    return pl.read_parquet(found)


def _lines_of(manifest: Path) -> int:
    with _refusing():
        return int(told(manifest)["lines"])


@contextmanager
def _refusing() -> Iterator[None]:
    """Let damage refuse a list, not the night."""
    try:
        yield
    except Damaged as error:
        raise ResourceError(f"{error}: take it from a backup, or remove all files of it") from None


def check_list(manifest: Path, *names: str) -> None:
    """Compare files of a list with its manifest: those that are named, or all.

    Raises:
        Damaged: one is missing or differs, or the manifest is not the one that was written.
    """
    digests = told(manifest)["sha256"]
    for name in names or digests:
        file = manifest.parent / name
        if not file.is_file() or sha256(file) != digests.get(name):
            raise Damaged(f"{file} is missing or damaged: {manifest.name} describes another")


def told(manifest: Path) -> dict[str, Any]:
    """What the manifest of a list says, without its seal.

    Raises:
        Damaged: it is missing, or not the one that was written.
    """
    try:
        about: dict[str, Any] = json.loads(manifest.read_bytes())
        if about.pop(_SEAL) == checksum(about):
            return about
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Damaged(f"{manifest} is damaged: {error!r}") from error
    raise Damaged(f"{manifest} is damaged: it is not the manifest that was written")


def tell(manifest: Path, about: Mapping[str, object]) -> None:
    """Write the manifest of a list by one rename, with a SHA-256 of what it says."""
    building = manifest.with_name(f".{manifest.name}.building")
    building.write_text(json.dumps({**about, _SEAL: checksum(about)}, indent=2))
    os.replace(building, manifest)


def _write(path: Path, rows: pl.DataFrame) -> None:
    building = path.with_name(f".{path.name}.building")
    if path.suffix == ".parquet":
        rows.write_parquet(building)
    else:
        harmless(rows).write_csv(building, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    os.replace(building, path)


def _write_manifest(
    path: Path,
    selection: Selection,
    audience: pl.DataFrame,
    delta: pl.DataFrame,
    last: str | None,
) -> None:
    files = sorted(path.parent.rglob(f"{path.stem}.[cp]*"))
    arms = audience.get_column("arm")
    about = {
        "campaign": selection.campaign.name,
        "run_id": path.stem,
        "lines": len(selection.lines),
        "users": int((arms == "mailed").sum()),
        "holdout": int((arms == "holdout").sum()),
        "delta_to": last,
        "delta": dict(delta.get_column("change").value_counts(sort=True).rows()),
        "waterfall": selection.waterfall.drop("campaign").to_dicts(),
        "configuration": selection.campaign.model_dump(mode="json"),
        "sha256": {str(file.relative_to(path.parent)): sha256(file) for file in files},
    }
    tell(path.with_suffix(".json"), about)
