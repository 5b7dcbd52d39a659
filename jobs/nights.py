"""The nights that are kept: which there are, whether they are whole, and the way back to one."""

from pathlib import Path

import polars as pl

from jobs.console import log
from jobs.errors import InputMissing
from jobs.manifest import Damaged, read, verify
from jobs.publish import CURRENT, make_current, manifest_of, remove

# What a killed run may leave under home. Vectors have a sweep of their own.
LITTER = (
    ".build-*",
    ".current-*",
    ".*.building",
    "scores-*.wal",
    "models/.build-*",
    "campaigns/*/.*.building",
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


def problem(scores: Path) -> str | None:
    """What is wrong with a night's file; None where it is the one that was written."""
    try:
        verify(manifest_of(scores))
    except Damaged as error:
        return str(error)
    return None


def rollback(home: Path, *, to: str | None = None) -> Path:
    """Make the last good night before the current one current again, or the one of a run.

    Raises:
        InputMissing: there is no such night.
        Damaged: it, or every one, is not what was written.
    """
    nights = before_current(home)
    if to is not None:
        nights = [path for path in kept(home) if run_of(path) == to]
    if not nights:
        known = ", ".join(map(run_of, kept(home))) or "none"
        raise InputMissing(
            f"{home} holds no night {to or 'before the current one'}; kept are: {known}"
        )
    for scores in nights:
        found = problem(scores)
        if found is None:
            make_current(scores)
            return scores
        log.warning("not a good night", problem=found)
    raise Damaged(f"nothing is changed, as no such night is whole: {found}")


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
