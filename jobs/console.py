"""What is seen while a job runs: a bar on a terminal, JSON lines in a log."""

import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from jobs.errors import is_disk_full
from jobs.signals import stop_if_asked

SECONDS_BETWEEN_LINES = 10.0

log = structlog.get_logger("nightrank")


def configure_logging() -> None:
    """Log to standard error: in colour on a terminal, else one JSON object a line.

    What libraries log or warn of goes the same way.
    """
    terminal = sys.stderr.isatty()
    times = structlog.processors.TimeStamper("%H:%M:%S" if terminal else "iso", utc=not terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        times,
    ]
    last: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=True,
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,  # rich's has values of variables
            )
        ]
        if terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *last], logger_factory=structlog.WriteLoggerFactory(file=sys.stderr)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)


def say_failure(error: Exception, code: int) -> None:
    """The last word of a command that failed: a sentence, or a line of the log."""
    hint = "no room is left, see `nightrank gc`: " if is_disk_full(error) else ""
    if not sys.stderr.isatty():
        log.error("failed", exit_code=code, problem=f"{hint}{error}", exc_info=code == 1)
    elif code == 1:
        traceback.print_exception(error)
    else:
        print(f"nightrank: {hint}{error}", file=sys.stderr)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that is called with the number of units just done and safely kept.

    On a terminal it moves a bar; elsewhere it logs a line at most every ten seconds; both tell
    how many are done in a second. Where a signal asked for it, the call raises `Stopped`.
    """
    shown = _bar(description, total) if sys.stderr.isatty() else _lines(description, total)
    with shown as show:

        def advance(done: int) -> None:
            show(done)
            stop_if_asked()

        yield advance


@contextmanager
def _bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    began = time.monotonic()
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        "{task.fields[speed]}",
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, speed="")

        def advance(more: int) -> None:
            done = bar.tasks[task].completed + more
            speed = f"{_per_second(done, began):,.0f}/s"
            bar.update(task, advance=more, speed=speed)

        yield advance


@contextmanager
def _lines(description: str, total: int) -> Iterator[Callable[[int], None]]:
    began = said = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, said
        done += more
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            log.info(description, done=done, of=total, per_second=round(_per_second(done, began)))

    yield advance


def _per_second(done: float, began: float) -> float:
    return done / max(time.monotonic() - began, 1e-3)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on standard output; numbers are set to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for place, name in enumerate(columns):
        values = [row[place] for row in rows if row[place] is not None]
        numeric = all(isinstance(value, int | float) for value in values) and len(values) > 0
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
