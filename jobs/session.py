"""One run as its scheduler meets it: one at a time, a graceful end, a last line of JSON.

Imports nothing heavy, so that a second start is refused within a second.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

import structlog

from jobs.errors import STATUSES, AlreadyRunning, exit_code
from jobs.signals import graceful

LOCK = ".lock"


class LastLine(dict[str, object]):
    """What the last line on standard output will say."""

    def of_run(self, run_id: str, as_of: datetime) -> None:
        """Name the run, here and on every line of the log."""
        self.update(run_id=run_id, as_of=as_of.isoformat())
        structlog.contextvars.bind_contextvars(run_id=run_id)


@contextmanager
def last_line() -> Iterator[LastLine]:
    """Print one JSON object after the body, whether it ends well or fails."""
    names = ("run_id", "status", "exit_code", "as_of", "rows", "seconds")
    line = LastLine(dict.fromkeys(names), paths={})
    started, code = time.monotonic(), 0
    try:
        yield line
    except BaseException as error:
        code = exit_code(error)
        raise
    finally:
        status = (line["status"] if code == 0 else None) or STATUSES[code]
        seconds = round(time.monotonic() - started, 1)
        line.update(status=status, exit_code=code, seconds=seconds)
        print(json.dumps(line), flush=True)


def refuse_second(home: Path) -> None:
    """Look at a home's lock before anything is done that takes time.

    Raises:
        AlreadyRunning: another process holds it.
    """
    with suppress(FileNotFoundError), (home / LOCK).open() as file:
        _lock(file, home, fcntl.LOCK_SH)


@contextmanager
def one_at_a_time(home: Path, run_id: str) -> Iterator[None]:
    """Hold the home's lock in the body, and let signals end it gracefully.

    The lock is the kernel's: it goes with the process, whatever ends that.

    Raises:
        AlreadyRunning: another process holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK).open("a+") as file:
        _lock(file, home, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"run {run_id}, process {os.getpid()}")
        file.flush()
        with graceful():
            yield


def _lock(file: IO[str], home: Path, how: int) -> None:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise AlreadyRunning(f"{home} is in use by {file.read() or 'a run'}") from None
