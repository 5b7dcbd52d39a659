"""The nights that are kept: which there are, whether they are whole, and the way back to one.

Imports nothing heavy, as `jobs.links` does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jobs.console import log
from jobs.errors import InputMissing
from jobs.links import CURRENT, make_current, manifest_of, point, remove
from jobs.manifest import Damaged, read, verify

if TYPE_CHECKING:
    import polars as pl

PAGE = "report.html"

# What a killed run may leave under home. Vectors have a sweep of their own.
LITTER = (
    ".build-*",
    ".current-*",
    ".training-*",
    ".report-*",
    ".*.building",
    "reports/.*.building",
    "scores-*.wal",
    "models/.build-*",
    "encoders/.new-*",
    "campaigns/*/.*.building",
    "campaigns/*/delta/.*.building",
    "feedback/audiences/*/.*.building",
)


def kept(home: Path) -> list[Path]:
    """The finished files, by `as_of`, then by start."""
    return sorted(home.glob("scores-*.duckdb"))


def current(home: Path) -> Path | None:
    """The file that readers are given; None where nothing is published."""
    link = home / CURRENT
    return link.resolve() if link.exists() else None


def before_current(home: Path) -> list[Path]:
    """The nights before the current one, the latest first; all, where none is current."""
    now = current(home)
    return [path for path in reversed(kept(home)) if now is None or path.name < now.name]


def run_of(scores: Path) -> str:
    """The run that a file is of."""
    return scores.stem.removeprefix("scores-")


def page_of(home: Path, run_id: str) -> Path:
    """Where the morning page of a night is."""
    return home / "reports" / f"{run_id}.html"


def show_page(home: Path) -> None:
    """Point `report.html` at the page of the current night; where there is none, remove it."""
    now = current(home)
    page = page_of(home, run_of(now)) if now else None
    if page is not None and page.exists():
        point(home / PAGE, page)
    else:
        (home / PAGE).unlink(missing_ok=True)


def problem(scores: Path) -> str | None:
    """What is wrong with a night's file; None where it is the one that was written."""
    if found := stray_log(scores):
        return found
    try:
        verify(manifest_of(scores))
    except Damaged as error:
        return str(error)
    return None


def stray_log(scores: Path) -> str | None:
    """What to say of a log beside a night's file, which nightrank never leaves there."""
    log_file = scores.with_name(f"{scores.name}.wal")
    if not log_file.exists():
        return None
    return f"{log_file} may keep readers from the night: remove it"


def rollback(home: Path, *, to: str | None = None) -> Path:
    """Make the last good night before the current one current again, or the one of a run.

    Raises:
        InputMissing: there is no such night.
        Damaged: it, or every one, is not what was written.
    """
    nights = before_current(home) if to is None else [named(home, to)]
    if not nights:
        raise _no_night(home, "before the current one")
    for scores in nights:
        found = problem(scores)
        if found is None:
            make_current(scores)
            show_page(home)
            return scores
        log.warning("not a good night", problem=found)
    raise Damaged(f"nothing is changed, as no such night is whole: {found}")


def named(home: Path, run: str | None) -> Path:
    """The file of a run's night; without a run, of the current one.

    Raises:
        InputMissing: there is no such night.
    """
    found = current(home) if run is None else home / f"scores-{run}.duckdb"
    if found not in kept(home):
        raise _no_night(home, run or "that is current")
    return found


def _no_night(home: Path, which: str) -> InputMissing:
    known = ", ".join(map(run_of, kept(home))) or "none"
    return InputMissing(f"{home} holds no night {which}; kept are: {known}")


def check_current(home: Path) -> None:
    """Make sure that tonight is compared with what was published.

    Raises:
        Damaged: the current night is not what was written.
    """
    now = current(home)
    if now is not None and (found := problem(now)):
        raise Damaged(
            f"{found}. It is the current night: use `nightrank rollback`, or remove "
            f"{home / CURRENT} where no earlier night is whole, and run again"
        )


def frame(home: Path) -> pl.DataFrame:
    """night, current, as_of, model, predictions (rows), whole ("yes", or what is wrong)."""
    import polars as pl

    now = current(home)
    rows = []
    for scores in kept(home):
        found = problem(scores)
        about = {} if found else read(manifest_of(scores))
        predictions = about.get("rows", {}).get("predictions")
        rows.append(
            (
                run_of(scores),
                "current" if scores == now else None,
                about.get("as_of"),
                about.get("model_version"),
                predictions,
                found or "yes",
            )
        )
    names = ["night", "current", "as_of", "model", "predictions", "whole"]
    schema = dict.fromkeys(names, pl.String) | {"predictions": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row")


def sweep(home: Path) -> None:
    """Remove what killed runs left; only for who holds the home's lock."""
    orphans = [
        path for path in home.glob("scores-*.json") if not path.with_suffix(".duckdb").exists()
    ]
    for path in [*orphans, *(found for pattern in LITTER for found in home.glob(pattern))]:
        log.info("swept", path=str(path))
        remove(path)
