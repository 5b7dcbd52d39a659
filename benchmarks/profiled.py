"""Where the time of a piece of work goes, by the function of ours that asked for it."""

import cProfile
import pstats
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("embed", "index", "rank", "jobs")
# Functions that call each other in a ring pass their time on for so many rounds, or down to this.
ROUNDS, LEAST_SECONDS = 200, 1e-6
ELSEWHERE = ("elsewhere", "")

# (file, line, name), as pstats has functions.
Function = tuple[str, int, str]
Stats = Mapping[Function, tuple[int, int, float, float, Mapping[Function, tuple[Any, ...]]]]
Seconds = dict[tuple[str, str], float]


@contextmanager
def profiling() -> Iterator[Seconds]:
    """Give seconds by (file, function) of ours, there once the body is over.

    What a library's function took is charged to the functions of ours that called it, in
    proportion; functions written in C and compiled loops are part of their caller. Seconds are of
    the processor, all threads together.
    """
    found: Seconds = {}
    profile = cProfile.Profile(time.process_time, builtins=False)
    with profile:
        yield found
    stats: Stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found.update(charged(stats))


def charged(stats: Stats) -> Seconds:
    """Own seconds of each function, those of libraries moved up to their callers."""
    waiting = {function: told[2] for function, told in stats.items()}
    found: Seconds = defaultdict(float)
    for _ in range(ROUNDS):
        moved: dict[Function, float] = defaultdict(float)
        for function, seconds in waiting.items():
            callers = {c: told[3] for c, told in stats[function][4].items() if c != function}
            total = sum(callers.values())
            if own := _ours(function):
                found[own] += seconds
            elif total == 0:
                found[ELSEWHERE] += seconds
            else:
                for caller, share in callers.items():
                    moved[caller] += seconds * share / total
        waiting = {f: seconds for f, seconds in moved.items() if seconds > LEAST_SECONDS}
    found[ELSEWHERE] += sum(waiting.values())
    return dict(found)


def families(seconds: Seconds, *, most: int = 20) -> list[tuple[object, ...]]:
    """file, seconds, share, the two functions that took most of it; the files that took most."""
    files: dict[str, dict[str, float]] = defaultdict(dict)
    for (file, function), taken in seconds.items():
        files[file][function] = files[file].get(function, 0.0) + taken
    whole = sum(seconds.values()) or 1.0
    rows = []
    for file, functions in files.items():
        taken = sum(functions.values())
        first = sorted(functions, key=lambda name: -functions[name])[:2]
        said = ", ".join(f"{name} {functions[name]:.1f}" for name in first if name)
        rows.append((taken, (file, f"{taken:.1f}", f"{taken / whole:.1%}", said)))
    return [row for _, row in sorted(rows, reverse=True)[:most]]


@cache
def _ours(function: Function) -> tuple[str, str] | None:
    path = Path(function[0])
    if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ROOMS:
        return str(path.relative_to(ROOT)), function[2]
    return None
