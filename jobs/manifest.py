"""Files with a manifest: the SHA-256 of each, compared before any of them is loaded."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


class Damaged(Exception):
    """A file is missing, or is not the one that its manifest describes."""


def seal(folder: Path, **about: object) -> None:
    """Put all files of `folder` on the disk, and a manifest of them beside; see `write`."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    for path in files:
        sync(path)
    write(folder / MANIFEST, {path.name: sha256(path) for path in files}, **about)


def write(path: Path, digests: Mapping[str, str], **about: object) -> None:
    """Write a manifest by one rename.

    Args:
        path: where.
        digests: SHA-256 of files beside it, by name.
        about: what else it tells, for JSON. It is sealed by a SHA-256 of its own; digests need
            none, as a changed one does not fit its file.
    """
    content: dict[str, object] = {"sha256": dict(digests)}
    if about:
        content["about"] = about
        content["seal"] = checksum(content)
    building = path.with_name(f".{path.name}.building")
    building.write_text(json.dumps(content, indent=2))
    sync(building)
    building.replace(path)
    sync(path.parent)


def exchange(path: Path, building: Path, file: Path, **about: object) -> None:
    """Put a file in the place of one that a manifest names, by one rename.

    The manifest is written first. Until the rename it does not fit the file, which `verify` says;
    `whole` knows the file as the one that it was `before`.

    Args:
        path: the manifest.
        building: the new file, in the same file system.
        file: the old one, beside the manifest.
        about: what the manifest tells from now on, beside what it told.
    """
    content = _content(path)
    digests = content["sha256"] | {file.name: sha256(building)}
    told = content.get("about", {}) | about | {"before": {file.name: sha256(file)}}
    sync(building)
    write(path, digests, **told)
    building.replace(file)
    sync(file.parent)


def whole(path: Path) -> dict[str, Any]:
    """As `verify`, but a file that an exchange did not reach is whole too.

    That is the file as it was `before`, or none where that is null.

    Raises:
        Damaged: as `verify` does.
    """
    content = _content(path)
    before: dict[str, str | None] = content.get("about", {}).get("before", {})
    for name, digest in before.items():
        file = path.parent / name
        if digest is None and not file.exists():
            del content["sha256"][name]
        elif file.is_file() and sha256(file) == digest:
            content["sha256"][name] = digest
    _compare(path, content["sha256"])
    return dict(content.get("about", {}))


def read(path: Path) -> dict[str, Any]:
    """What a manifest tells beside the digests.

    Raises:
        Damaged: it is missing or not the one that was written.
    """
    return dict(_content(path).get("about", {}))


def verify(path: Path) -> dict[str, Any]:
    """As `read`, after comparing every file with its SHA-256.

    Raises:
        Damaged: the manifest or a file is missing or not the one that was written.
    """
    content = _content(path)
    _compare(path, content["sha256"])
    return dict(content.get("about", {}))


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _compare(path: Path, digests: Mapping[str, str]) -> None:
    for name, written in digests.items():
        file = path.parent / name
        try:
            found = sha256(file)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # no such name
            raise Damaged(f"{file!s:.200} is missing: {path.name} names it") from error
        if found != written:
            raise Damaged(
                f"{file} is damaged: its SHA-256 is {found[:12]}…, {path.name} says "
                f"{str(written)[:12]}…"
            )


def _content(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise Damaged(f"{path} is missing") from error
    except ValueError as error:
        raise Damaged(f"{path} is damaged: {error}") from error
    keys = set(content) if isinstance(content, dict) else set()
    plain = keys == {"sha256"}
    sealed = keys == {"sha256", "about", "seal"} and content.pop("seal") == checksum(content)
    if not (plain or sealed) or not isinstance(content["sha256"], dict):
        raise Damaged(f"{path} is damaged: it is not the manifest that was written")
    return content


def checksum(content: Mapping[str, object]) -> str:
    """SHA-256, in hexadecimal, of what goes into JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
