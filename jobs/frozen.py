"""Keeps what a run has read, so that a resumed run works on the same rows."""

import shutil
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import polars as pl

from jobs.errors import ResourceError
from jobs.ingest import Inputs
from jobs.ledger import PASSING, START, Ledger, write_parquet

FOLDER = "inputs"
ABOUT = ("quarantine", "report")  # what tells of rows, and of later ones too
FRAMES = tuple(field.name for field in fields(Inputs) if field.name != "as_of")


def freeze(inputs: Inputs, ledger: Ledger) -> list[Path]:
    """Write every frame of the inputs into the run's folder; the files."""
    folder = ledger.folder / FOLDER
    return [write_parquet(getattr(inputs, name), folder / f"{name}.parquet") for name in FRAMES]


def thaw(ledger: Ledger) -> Inputs:
    """The inputs as they were frozen.

    Raises:
        ResourceError: a file is not the one that was written.
    """
    if damaged := ledger.damaged("ingest"):
        raise ResourceError(
            f"{', '.join(map(str, damaged))}: missing or changed since {ledger.run_id} read the "
            "sources: start a new run"
        )
    return read(ledger)


def read(ledger: Ledger) -> Inputs:
    """As `thaw`, where the files have been compared before."""
    folder = ledger.folder / FOLDER
    frames = {name: pl.read_parquet(folder / f"{name}.parquet") for name in FRAMES}
    return Inputs(as_of=datetime.fromisoformat(ledger[START]["as_of"]), **frames)


def digests(ledger: Ledger) -> list[str]:
    """The hashes of the rows that a run is about; later rows and bad ones have no part in them."""
    hashes: dict[str, str] = ledger["ingest"]["sha256"]
    return [hashes[f"{FOLDER}/{name}.parquet"] for name in FRAMES if name not in ABOUT]


def remove(ledger: Ledger) -> None:
    """Delete the rows of a run that needs them no more, and what was computed of them."""
    for name in PASSING:
        shutil.rmtree(ledger.folder / name, ignore_errors=True)
