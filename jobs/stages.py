"""Wall time and peak memory of each stage of a run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import polars as pl
import psutil

SAMPLE_SECONDS = 0.05


@dataclass
class Stages:
    """Collects seconds and peak MiB of each finished stage, by its name.

    Of a stage that is gone through again, as in a resumed run, the longest time is kept.
    """

    rows: dict[str, tuple[float, float]] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the body: seconds, and the peak of the process's resident memory in MiB."""
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
        peak[0] = max(peak[0], process.memory_info().rss)
        if done.wait(SAMPLE_SECONDS):
            return
