"""Who was erased, told by salted digests alone: what later nights read is held against them.

Imports little, as every night and every command that reads rows looks here first.
"""

import hashlib
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from jobs import manifest
from jobs.sources import SourceRows

FILE = "tombstones.json"
# A line that could not be read may be anybody's.
_UNREAD = pl.lit(None, pl.String).alias("value")


@dataclass(frozen=True)
class Tombstones:
    """Digests of the names of everybody who was erased: of ids, and of what lists call them.

    Attributes:
        salt: put before each name; random, one for each home.
        stones: of each person by the tombstone's id: `since` (UTC) and `digests`, the first of
            which is that of the user's id.
    """

    salt: str = ""
    stones: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, home: Path) -> "Tombstones":
        """Those of a home; none where nobody was erased.

        Raises:
            Damaged: the file is not the one that was written.
        """
        path = home / FILE
        return cls(**manifest.read(path)) if path.exists() else cls()

    def digest(self, name: str) -> str:
        """SHA-256 of salt and name, in hexadecimal."""
        return hashlib.sha256((self.salt + name).encode("utf-8", "surrogatepass")).hexdigest()

    def hold(self, names: pl.Series) -> pl.Series:
        """Which of some ids, of whatever type, are of people who were erased."""
        known = {digest for stone in self.stones.values() for digest in stone["digests"]}
        text = names.cast(pl.String).alias("name")
        gone = [name for name in text.drop_nulls().unique() if self.digest(name) in known]
        return text.is_in(pl.Series(gone, dtype=pl.String).implode()).fill_null(False)

    def without(self, read: SourceRows) -> SourceRows:
        """A source as if the erased were not in it; `erased` counts their rows.

        What stands in lines that are no row is left out too, as nobody can tell whose they are.
        """
        if not self.stones or "user_id" not in read.rows.columns:
            return read
        unread = pl.col("raw").struct.field("user_id")
        ids = pl.coalesce(pl.col("user_id").cast(pl.String), unread.cast(pl.String))
        gone = self.hold(read.rows.select(ids).to_series())
        return replace(
            read,
            rows=read.rows.filter(~gone),
            broken=read.broken.with_columns(_UNREAD),
            erased=int(gone.sum()),
        )


def lay(home: Path, names: Collection[str], *, user_id: str, at: datetime) -> tuple[str, str]:
    """Put up a tombstone, or give the one that stands the names that it lacks.

    The file is written by one rename and can be read by its owner only.

    Args:
        home: the folder of all that is written.
        names: the id, and what lists call the user.
        user_id: as text.
        at: naive UTC.

    Returns:
        The tombstone's id, which tells nothing of the user; the digest of the user's id.
    """
    stones = Tombstones.of(home)
    if not stones.salt:
        stones = Tombstones(secrets.token_hex(32))
    first = stones.digest(user_id)
    of_others = sorted(stones.digest(name) for name in names if name != user_id)
    found = [number for number, stone in stones.stones.items() if stone["digests"][0] == first]
    number = found[0] if found else secrets.token_hex(8)
    new = {"since": at.isoformat(timespec="seconds"), "digests": [first]}
    stone = stones.stones.get(number, new)
    stone["digests"] = list(dict.fromkeys([*stone["digests"], *of_others]))
    with _for_owner_only():
        manifest.write(home / FILE, {}, salt=stones.salt, stones={**stones.stones, number: stone})
    return number, first


@contextmanager
def _for_owner_only() -> Iterator[None]:
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
