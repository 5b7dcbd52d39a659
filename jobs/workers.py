"""Processes that each open the same thing once and then answer, task by task.

They are spawned: the threads of Polars, OpenMP and FAISS do not survive a fork.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Self

import structlog

from jobs.console import configure_logging
from jobs.errors import ResourceError
from jobs.signals import GRACEFUL, unsignalled

# What libraries ask for the number of their threads when they are loaded.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
_PR_SET_PDEATHSIG = 1

Task = tuple[Any, ...]
# Process ids of the workers of this process, for whoever measures it.
at_work: set[int | None] = set()
_spawn = multiprocessing.get_context("spawn")


class Workers:
    """Up to so many processes, each started for a first task and then kept for others.

    Args:
        opening: called once in each, gives the function that tasks are the arguments of.
        number: how many.
        threads: of each, unless the operator has set the variable that a library asks.
    """

    def __init__(
        self, opening: Callable[[], Callable[..., Any]], *, number: int, threads: int
    ) -> None:
        self._opening, self._number, self._threads = opening, number, threads
        self._free: list[tuple[SpawnProcess, Connection]] = []
        self._busy: dict[Connection, tuple[SpawnProcess, Task]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End all of them; what they are at is lost."""
        busy = [(process, pipe) for pipe, (process, _) in self._busy.items()]
        for process, pipe in [*self._free, *busy]:
            pipe.close()
            process.kill()
            process.join()
            at_work.discard(process.pid)

    @property
    def all_busy(self) -> bool:
        """Whether there is none for another task."""
        return len(self._busy) == self._number

    @property
    def any_busy(self) -> bool:
        """Whether an answer will come."""
        return bool(self._busy)

    def ask(self, *task: Any) -> None:
        """Give a task to one that has none.

        Raises:
            ResourceError: the process ended.
        """
        process, pipe = self._free.pop() if self._free else self._start()
        self._busy[pipe] = (process, task)
        try:
            pipe.send(task)
        except OSError:
            raise _died(process) from None

    def answer(self) -> tuple[Task, Any]:
        """Wait for the next task that is done, and what came of it.

        Raises:
            ResourceError: the process ended.
            Exception: what the task raised.
        """
        pipe = wait(list(self._busy))[0]
        assert isinstance(pipe, Connection)
        process, task = self._busy[pipe]
        try:
            failed, answer = pipe.recv()
        except (EOFError, OSError):
            raise _died(process) from None
        self._free.append((process, pipe))
        del self._busy[pipe]
        if failed:
            raise answer
        return task, answer

    def _start(self) -> tuple[SpawnProcess, Connection]:
        ours, theirs = _spawn.Pipe()
        bound = structlog.contextvars.get_contextvars()
        process = _spawn.Process(
            target=_work, args=(theirs, self._opening, os.getpid(), bound), daemon=True
        )
        resource_tracker.ensure_running()  # as it lets signals through when it starts
        with _told(self._threads), unsignalled():
            process.start()
        theirs.close()
        at_work.add(process.pid)
        return process, ours


@contextmanager
def _told(threads: int) -> Iterator[None]:
    """Let processes that are started in the body know how many threads to use."""
    unset = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(unset, str(threads)))
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]


def _died(process: SpawnProcess) -> ResourceError:
    process.join()
    code = process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    why = ", most often for want of memory" if code == -signal.SIGKILL else ""
    return ResourceError(
        f"process {process.pid}, one of those that score, {how}{why}. Nothing done is lost: "
        "`nightrank resume CONFIG` goes on from here, and takes less memory where "
        "scoring.processes is lower"
    )


def _work(
    pipe: Connection,
    opening: Callable[[], Callable[..., Any]],
    parent: int,
    context: dict[str, Any],
) -> None:
    for number in GRACEFUL:
        signal.signal(number, signal.SIG_IGN)
    _end_with(parent)
    configure_logging()
    structlog.contextvars.bind_contextvars(**context)
    function: Callable[..., Any] | None = None
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            function = function or opening()
            said: tuple[bool, Any] = (False, function(*task))
        except Exception as error:
            error.add_note(traceback.format_exc())  # its own is lost on the way
            said = (True, error)
        pipe.send(said)


def _end_with(parent: int) -> None:
    """Let the kernel end this process as soon as its parent is gone, whatever ended that.

    Else it would finish a shard while a resumed run writes the same. Where the kernel is not
    Linux, the process ends with its task.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
