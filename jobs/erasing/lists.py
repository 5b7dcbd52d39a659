"""Takes a person out of campaign lists, of what is known of messages, and of the audiences."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from jobs.campaigns import records
from jobs.campaigns.feedback import sent_lists
from jobs.campaigns.files import audience_path, hashed_id, key_in, tell, told
from jobs.config import Config
from jobs.erasing.person import Person, Removed, read, rewrite
from jobs.manifest import Damaged, sha256

_MANIFESTS = "campaigns/*/*.json"


def names_of(home: Path, config: Config, user_id: str) -> frozenset[str]:
    """What a user is called: the id, and the HMACs that lists have in its place.

    Those are on record in the audiences of the lists; where one is missing, they are made anew.

    Raises:
        InputMissing: the key for that is not given.
    """
    names = {user_id}
    for path in home.glob("feedback/audiences/*/*.parquet"):
        audience = records.read(path)
        if audience is None:
            continue
        mine = audience.filter(pl.col("user_id").cast(pl.String) == user_id)
        names |= set(mine.get_column("exported_as").cast(pl.String))
    for variable in sorted(_keys_needed(home) | _keys_given(config)):
        names.add(hashed_id(user_id, key_in(variable)))
    return frozenset(names)


def _keys_needed(home: Path) -> set[str]:
    """Variables with the keys of lists of which no audience tells whom they name."""
    found = set()
    for path in home.glob(_MANIFESTS):
        variable = told(path)["configuration"]["hash_ids_with"]
        if variable and not audience_path(home, path.parent.name, path.stem).exists():
            found.add(variable)
    return found


def _keys_given(config: Config) -> set[str]:
    """Variables of today's campaigns that hold something: what feedback may call the user by."""
    variables = {campaign.hash_ids_with or "" for campaign in config.campaign}
    return {variable for variable in variables if os.environ.get(variable)}


def erase_from_lists(home: Path, person: Person, *, note: dict[str, str]) -> list[Removed]:
    """Take a person out of every list and delta; counts and hashes of the manifests follow.

    Deltas name people of earlier lists, too. The waterfall of a manifest stays that of the night.
    """
    removed = []
    for path in sorted(home.glob("campaigns/*/**/[!.]*")):
        if path.suffix in (".parquet", ".csv"):
            take_out = rewrite if path.suffix == ".parquet" else _rewrite_csv
            if rows := take_out(path, person):
                removed.append(Removed("lists", str(path.relative_to(home)), rows))
    for path in sorted(home.glob(_MANIFESTS)):
        _renew(path, home, person, note)
    return removed


def lists_of(home: Path, removed: Iterable[Removed]) -> list[dict[str, Any]]:
    """The lists, not their deltas, that a person was on, and whether they were sent."""
    places = {Path(one.path).with_suffix("") for one in removed if one.kind == "lists"}
    found = sorted(place for place in places if place.parent.name != "delta")
    return [
        {
            "campaign": place.parent.name,
            "run_id": place.name,
            "sent": place.name in sent_lists(home, place.parent.name),
        }
        for place in found
    ]


def erase_from_feedback(home: Path, person: Person) -> list[Removed]:
    """Take a person out of messages, of rows that could not be used, and of the audiences.

    The audiences come last: they tell what lists call the person.

    Raises:
        Damaged: one of the files is not what was written.
    """
    removed = []
    for path in records.kept(home):
        found = records.read(path)
        if found is None:
            continue
        rows, touched = person.without(found)
        if touched:
            records.write(path, rows)
            removed.append(Removed("feedback", str(path.relative_to(home)), touched))
    return removed


def _rewrite_csv(path: Path, person: Person) -> int:
    """As `jobs.erasing.person.rewrite`; the other lines stay as they are, to the byte."""
    try:
        rows = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise Damaged(f"{path} cannot be read") from error
    if "user_id" not in rows.columns:
        return 0
    plain = pl.col("user_id").str.strip_prefix("'")  # see `jobs.campaigns.files.harmless`
    theirs = plain.is_in(sorted(person.names)).fill_null(False)
    kept = rows.filter(~theirs)
    if len(kept) < len(rows):
        building = path.with_name(f".{path.name}.building")
        kept.write_csv(building)
        os.replace(building, path)
    return len(rows) - len(kept)


def _renew(path: Path, home: Path, person: Person, note: dict[str, str]) -> None:
    """Make a manifest fit its files; one that does is left alone."""
    about, folder = told(path), path.parent
    files = [name for name in about["sha256"] if (folder / name).exists()]
    digests = {name: sha256(folder / name) for name in files}
    if digests.items() <= about["sha256"].items():
        return
    about |= {"sha256": about["sha256"] | digests, "erased": [*about.get("erased", []), note]}
    rows, delta = path.with_suffix(".parquet"), folder / "delta" / f"{path.stem}.parquet"
    if rows.exists():
        lines = read(rows)
        whole = "items" in lines.columns  # a row for each user
        about["lines"] = int(lines.get_column("items").sum()) if whole else len(lines)
        about["users"] = lines.get_column("user_id").n_unique()
    if delta.exists():
        counts = read(delta).get_column("change").value_counts(sort=True)
        about["delta"] = dict(counts.rows())
    audience = audience_path(home, folder.name, path.stem)
    if audience.exists():
        left, _ = person.without(read(audience))
        about["holdout"] = int((left.get_column("arm") == "holdout").sum())
    tell(path, about)
