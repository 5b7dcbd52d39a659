"""What a monitoring system scrapes: one text file, written at the end of every run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

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
    code = 0
    try:
        yield
    except BaseException as error:
        code = exit_code(error)
        raise
    finally:
        if night.home.exists():
            try:
                write(night, code)
            except Exception as error:  # a full disk must not hide why the run failed
                log.warning("metrics not written", problem=str(error))


def write(night: Night, code: int) -> None:
    """Figures of the run, and of the night that is current after it, by one rename."""
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
    figure = gauge("gate_value", "A gate's figure in the current night.", "gate", "subject")
    passed = gauge("gate_passed", "Whether it was within its bounds.", "gate", "subject")
    if scores := nights.current(night.home):
        success().set(scores.stat().st_mtime)
        for table, count in _rows(scores).items():
            rows(table).set(count)
        for gate, subject, value, good in _gates(scores):
            figure(gate, subject).set(value)
            passed(gate, subject).set(good)
    write_to_textfile(str(night.home / FILE), registry)


def _rows(scores: Path) -> dict[str, int]:
    try:
        return dict(read(publish.manifest_of(scores))["rows"])
    except Damaged as error:
        log.warning("rows not reported", problem=str(error))
        return {}


def _gates(scores: Path) -> list[tuple[str, str, float, bool]]:
    with publish.open_scores(scores) as connection:
        return connection.sql("select gate, subject, value, passed from gates").fetchall()
