"""Seconds of the processor and peak memory, in processes of their own; Linux only."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

from jobs.console import configure_logging

P = ParamSpec("P")
T = TypeVar("T")

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Clock:
    """What each part of a process took, by the part's name; parts of one name add up.

    Attributes:
        seconds: of the processor, all threads together, to which other work adds little.
        wall: seconds that went by.
        peak_mib: most resident memory while the part ran, all that was there before included.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the body, which measures no part of its own."""
        forget_peak()
        started, began = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            for taken, now in (
                (self.seconds, time.process_time() - started),
                (self.wall, time.perf_counter() - began),
            ):
                taken[name] = taken.get(name, 0.0) + now
            self.peak_mib[name] = max(self.peak_mib.get(name, 0.0), peak_mib())


def peak_mib() -> float:
    """Most resident memory of this process since it was last forgotten."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """Let the peak begin anew at what is resident now."""
    _FORGET.write_text("5")


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function gives in a new process, which holds nothing of this one."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=configure_logging) as pool:
        return pool.submit(function, *args, **kwargs).result()
