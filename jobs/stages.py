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
    """Collects one row for each finished stage."""

    rows: list[tuple[str, float, float]] = field(default_factory=list)

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
            self.rows.append((name, time.perf_counter() - started, peak[0] / 2**20))

    def frame(self) -> pl.DataFrame:
        """stage, seconds, peak_mib."""
        schema = {"stage": pl.String, "seconds": pl.Float64, "peak_mib": pl.Float64}
        return pl.DataFrame(self.rows, schema, orient="row")


def _sample(done: threading.Event, peak: list[int]) -> None:
    process = psutil.Process()
    while True:
        peak[0] = max(peak[0], process.memory_info().rss)
        if done.wait(SAMPLE_SECONDS):
            return
