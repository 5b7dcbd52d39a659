"""What a monitoring system scrapes: one text file, written at the end of every run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import duckdb
import polars as pl
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from jobs import nights, publish
from jobs.console import log
from jobs.errors import exit_code
from jobs.manifest import Damaged, read
from jobs.nightly import Night

FILE = "metrics.prom"


@contextmanager
def reported(night: Night) -> Iterator[None]:
    """Write `metrics.prom` after the body, whether it published or failed."""
    code, refused = 0, None
    try:
        yield
    except BaseException as error:
        code, refused = exit_code(error), getattr(error, "checked", None)
        raise
    finally:
        if night.home.exists():
            try:
                write(night, code, refused)
            except Exception as error:  # a full disk must not hide why the run failed
                log.warning("metrics not written", problem=str(error))


def write(night: Night, code: int, refused: pl.DataFrame | None = None) -> None:
    """Figures of the run, and of the night that is current after it, by one rename.

    Args:
        night: what was run.
        code: what it ended with.
        refused: what was checked of it, where a gate refused.
    """
    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, *labels: str) -> Callable[..., Gauge]:
        all_of_it = Gauge(f"nightrank_{name}", meaning, ["name", *labels], registry=registry)
        return partial(all_of_it.labels, night.config.name)

    gauge("exit_code", "Exit code of the last run.")().set(code)
    gauge("last_run_timestamp_seconds", "When the last run ended.")().set(time.time())
    seconds = gauge("stage_seconds", "Wall time of a stage of the last run.", "stage")
    peak = gauge("stage_peak_bytes", "Most resident memory in it.", "stage")
    for stage, took, mib in night.stages.frame().iter_rows():
        seconds(stage).set(took)
        peak(stage).set(mib * 2**20)
    success = gauge("last_success_timestamp_seconds", "When the current night was finished.")
    rows = gauge("rows", "Rows of a table of the current night.", "table")
    labels = ("night", "gate", "subject")
    figure = gauge("gate_value", "A gate's figure in the current or the refused night.", *labels)
    passed = gauge("gate_passed", "Whether it was within its bounds.", *labels)
    checked: dict[str, pl.DataFrame | None] = {"refused": refused}
    if scores := nights.current(night.home):
        success().set(scores.stat().st_mtime)
        for table, count in _rows(scores).items():
            rows(table).set(count)
        checked["current"] = _gates(scores)
    for of, frame in checked.items():
        for row in [] if frame is None else frame.iter_rows(named=True):
            figure(of, row["gate"], row["subject"]).set(row["value"])
            passed(of, row["gate"], row["subject"]).set(row["passed"])
    write_to_textfile(str(night.home / FILE), registry)


def _rows(scores: Path) -> dict[str, int]:
    try:
        return dict(read(publish.manifest_of(scores))["rows"])
    except Damaged as error:
        log.warning("rows not reported", problem=str(error))
        return {}


def _gates(scores: Path) -> pl.DataFrame | None:
    try:
        with publish.open_scores(scores) as connection:
            gates: pl.DataFrame = connection.sql("from gates").pl()
    except duckdb.Error as error:  # the exit code of a damaged night is told all the same
        log.warning("gates not reported", problem=type(error).__name__)
        return None
    return gates
