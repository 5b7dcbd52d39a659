"""The names of a night's files, and the link that readers follow to one of them.

Imports nothing heavy, so that going back a night takes no seconds.
"""

import shutil
from pathlib import Path

from jobs import manifest

CURRENT = "current.duckdb"


def manifest_of(scores: Path) -> Path:
    """Where the manifest of a night's file is."""
    return scores.with_suffix(".json")


def make_current(finished: Path) -> None:
    """Point `current.duckdb` beside `finished` at it, in one rename."""
    home = finished.parent
    point(home / CURRENT, finished)
    manifest.sync(home)


def point(link: Path, target: Path) -> None:
    """Let a link point at what lies beside or below it, in one rename."""
    building = link.with_name(f".{link.stem}-{target.stem}")
    building.unlink(missing_ok=True)
    building.symlink_to(target.relative_to(link.parent))
    building.replace(link)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
