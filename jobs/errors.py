"""What a user can cause: one class and one exit code per kind of failure."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


class NightrankError(Exception):
    """A failure whose message tells the user what to do; the command ends with `exit_code`."""

    exit_code = 1


class ConfigError(NightrankError):
    """The configuration cannot be used as written."""

    exit_code = 2


class DataRefused(NightrankError):
    """A source breaks its contract: a column is missing or wrong, or too many rows are bad."""

    exit_code = 3


class InputMissing(NightrankError):
    """A source matches no file, or cannot be opened and read."""

    exit_code = 4


class ResourceError(NightrankError):
    """Memory, disk or another resource of the machine does not suffice."""

    exit_code = 5


class GateRefused(NightrankError):
    """A freshly trained model or a finished night failed a check that guards publication.

    Attributes:
        checked: all that was checked, see `jobs.gates.check`, where it is a gate that refused.
    """

    exit_code = 6

    def __init__(self, message: str, checked: pl.DataFrame | None = None) -> None:
        super().__init__(message)
        self.checked = checked


class AlreadyRunning(NightrankError):
    """Another run holds the lock of this home folder."""

    exit_code = 75


class NothingToDo(NightrankError):
    """The requested night is already published."""

    exit_code = 99


class Stopped(NightrankError):
    """A signal asked the run to end; what is done is kept. The exit code is a shell's for it."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name}, nothing done is lost: "
            "`nightrank resume CONFIG` goes on from here"
        )
        self.exit_code = 128 + number


# What a run ended with, by exit code; docs/runbook.md says what to do at each.
STATUSES = {
    0: "published",
    1: "crashed",
    2: "config_refused",
    3: "data_refused",
    4: "input_missing",
    5: "resources",
    6: "gate_refused",
    75: "already_running",
    99: "nothing_to_do",
    128 + signal.SIGINT: "stopped",
    128 + signal.SIGTERM: "stopped",
}

# Exit codes for the errors of the rooms below, which know nothing of exit codes: 2 the
# configuration, 3 the data, 5 the machine or what is stored on it.
ROOM_ERRORS = {
    "embed.text.TemplateError": 2,
    "embed.loading.EncoderNotFound": 2,
    "embed.loading.EncoderError": 2,
    "embed.cache.DamagedShard": 5,
    "index.store.DamagedIndex": 5,
    "jobs.manifest.Damaged": 5,
    "builtins.MemoryError": 5,
    "_duckdb.OutOfMemoryException": 5,
    "index.library.ConflictingFaiss": 5,
    "rank.trees.TooFewPositives": 3,
    "rank.calibrate.CannotCalibrate": 3,
}

DISK_FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))


def exit_code(error: BaseException) -> int:
    """The code that a command ends with; 1 for what nobody foresaw."""
    if isinstance(error, NightrankError):
        return error.exit_code
    if is_disk_full(error):
        return ResourceError.exit_code
    names = [f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__]
    return next((ROOM_ERRORS[name] for name in names if name in ROOM_ERRORS), 1)


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of room: each library has its own class for that."""
    of_numpy = re.fullmatch(r"\d+ requested and \d+ written", str(error))
    return bool(of_numpy) or any(said in str(error) for said in DISK_FULL)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay rows out as aligned plain text for an error message.

    >>> print(table(["rule", "rows"], [["missing_time", 2], ["unknown_item", 288]]))
      rule          rows
      missing_time  2
      unknown_item  288
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in cells)
    return "\n".join(f"  {line}".rstrip() for line in lines)
