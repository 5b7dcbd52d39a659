"""Parquet files that no night can make anew: what became of messages, and who was on a list.

Each has a manifest with its SHA-256 beside it, of the same name.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from jobs import manifest
from jobs.manifest import Damaged

FOLDER = "feedback"
REMEDY = (
    "Take both from a backup. Without one, remove both; messages are then known again from their "
    "files, given once more to `nightrank feedback`, but those of a list whose audience is gone "
    "count for nothing"
)


def write(path: Path, rows: pl.DataFrame) -> None:
    """Put rows in the place of a file, by one rename.

    The manifest comes first, and knows what was there before until that is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.building")
    rows.write_parquet(building)
    manifest.sync(building)
    before = {path.name: manifest.sha256(path) if path.exists() else None}
    digests = {path.name: manifest.sha256(building)}
    manifest.write(manifest_of(path), digests, before=before)
    building.replace(path)
    manifest.sync(path.parent)
    manifest.write(manifest_of(path), digests)


def read(path: Path) -> pl.DataFrame | None:
    """The rows of a file; None where there never was one.

    Raises:
        Damaged: it, or its manifest, is not what was written.
    """
    about = manifest_of(path)
    if not path.exists() and not about.exists():
        return None
    told = _content(about)
    try:
        manifest.whole(about)
        return pl.read_parquet(path) if path.exists() else None
    except Damaged as error:
        if _content(about) != told:  # it was written while it was read
            return read(path)
        raise Damaged(f"{error}. {REMEDY}") from None


def manifest_of(path: Path) -> Path:
    """Where the manifest of a file is."""
    return path.with_suffix(".json")


def kept(home: Path) -> Iterator[Path]:
    """The files of a home, audiences last."""
    places = {
        path.with_suffix(".parquet")
        for pattern in ("[!.]*.parquet", "[!.]*.json", "*/*/[!.]*.parquet", "*/*/[!.]*.json")
        for path in (home / FOLDER).glob(pattern)
    }
    yield from sorted(places, key=lambda path: (len(path.parts), path))


def _content(about: Path) -> bytes:
    return about.read_bytes() if about.exists() else b""
