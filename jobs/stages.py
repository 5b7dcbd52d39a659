"""Wall time and peak memory of each stage of a run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import polars as pl
import psutil

from jobs.memory import give_back
from jobs.workers import at_work

# Looking at the memory that several processes share takes the kernel longer.
SAMPLE_SECONDS, SAMPLE_SECONDS_OF_SEVERAL = 0.05, 0.5


@dataclass
class Stages:
    """Collects seconds and peak MiB of each finished stage, by its name.

    Of a stage that is gone through again, as in a resumed run, the longest time is kept.
    """

    rows: dict[str, tuple[float, float]] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the body: seconds, and the peak of resident memory in MiB.

        Of several processes, the memory that they share counts once. What an earlier stage has
        freed is given back before.
        """
        give_back()
        done, peak = threading.Event(), [0]
        sampler = threading.Thread(target=_sample, args=(done, peak), daemon=True)
        started = time.perf_counter()
        sampler.start()
        try:
            yield
        finally:
            done.set()
            sampler.join()
            now = (time.perf_counter() - started, peak[0] / 2**20)
            self.rows[name] = max(now, self.rows.get(name, now))

    def frame(self) -> pl.DataFrame:
        """stage, seconds, peak_mib."""
        schema = {"stage": pl.String, "seconds": pl.Float64, "peak_mib": pl.Float64}
        rows = [(name, *measured) for name, measured in self.rows.items()]
        return pl.DataFrame(rows, schema, orient="row")


def _sample(done: threading.Event, peak: list[int]) -> None:
    process = psutil.Process()
    while True:
        others = [*at_work]
        taken = sum(map(_share, (process.pid, *others))) if others else process.memory_info().rss
        peak[0] = max(peak[0], taken)
        if done.wait(SAMPLE_SECONDS_OF_SEVERAL if others else SAMPLE_SECONDS):
            return


def _share(pid: int | None) -> int:
    """Bytes of a process, a page of several counting in parts; 0 where it has ended."""
    try:
        taken = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(taken, "pss", taken.rss))
