"""Keeps trained models, one folder for each version, and finds the one for a night."""

import hashlib
import json
import shutil
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from jobs.config import Config
from jobs.console import log
from jobs.manifest import MANIFEST, Damaged, read, seal, sync, verify
from jobs.training import Trained
from rank.model import PARTS, Model
from rank.projection import Projection
from rank.propensity import Propensity
from rank.trees import try_loading

# What is kept of a training beside its models.
TABLES = ("metrics", "calibration", "importance", "misses", "contest")


def save(trained: Trained, home: Path, *, trained_for: str) -> Path:
    """Write all of `trained` into `home/models/<version>`, by one rename.

    Args:
        trained: what to keep.
        home: the folder of all that is written.
        trained_for: fingerprint of configuration and encoder; see `fingerprint`.
    """
    folder = home / "models" / trained.version
    if folder.exists() and _is_whole(folder):
        return folder
    building = folder.with_name(f".build-{trained.version}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for model in trained.models:
        model.save(building)
    for propensity in trained.propensities:
        propensity.save(building)
    projection = trained.projection
    np.savez(building / "projection.npz", mean=projection.mean, components=projection.components)
    for table in TABLES:
        frame: pl.DataFrame = getattr(trained, table)
        frame.write_parquet(building / f"{table}.parquet")
    seal(
        building,
        as_of=trained.as_of.isoformat(),
        behaviours=[model.behaviour for model in trained.models],
        trained_for=trained_for,
    )
    building.rename(folder)
    sync(folder.parent)
    return folder


def load(folder: Path) -> Trained:
    """Read what `save` wrote.

    Raises:
        Damaged: a file is missing or differs from its checksum, or LightGBM cannot load trees.
    """
    verify(folder / MANIFEST)
    trained = load_again(folder)
    if problem := try_loading(_texts(trained)):
        raise Damaged(f"{folder}: LightGBM cannot load its trees: {problem}")
    return trained


def load_again(folder: Path) -> Trained:
    """As `load`, where that has found the files whole."""
    described = read(folder / MANIFEST)
    with np.load(folder / "projection.npz", allow_pickle=False) as arrays:
        projection = Projection(arrays["mean"], arrays["components"])
    return Trained(
        as_of=datetime.fromisoformat(described["as_of"]),
        models=tuple(Model.load(folder, behaviour) for behaviour in described["behaviours"]),
        propensities=tuple(Propensity.load(folder, b) for b in described["behaviours"]),
        projection=projection,
        **{table: pl.read_parquet(folder / f"{table}.parquet") for table in TABLES},
    )


def _texts(trained: Trained) -> tuple[str, ...]:
    trees = [getattr(model, part) for model in trained.models for part in PARTS]
    return tuple(t.text for t in (*trees, *(p.trees for p in trained.propensities)) if t)


def latest(home: Path, as_of: datetime, config: Config, *, trained_for: str) -> Trained | None:
    """The newest model that may score `as_of`, or None where one must be trained.

    A model trained after `as_of` has seen its future; one older than
    `training.retrain_after_days`, or made for another configuration or encoder, is not used.
    A damaged one is set aside with a warning.
    """
    oldest = as_of - timedelta(days=config.training.retrain_after_days)
    kept = _kept(home, trained_for)
    return _newest([(at, folder) for at, folder in kept if at == as_of or oldest < at < as_of])


def champion(home: Path, as_of: datetime, *, trained_for: str) -> Trained | None:
    """The newest model trained before `as_of`, of any age; None where there is none."""
    return _newest([(at, folder) for at, folder in _kept(home, trained_for) if at < as_of])


def folders(home: Path) -> list[Path]:
    """Of all kept models, those of the earliest `as_of` first."""
    return sorted((home / "models").glob("[!.]*"))


def _newest(found: list[tuple[datetime, Path]]) -> Trained | None:
    """The newest that is whole."""
    for _, folder in sorted(found, reverse=True):
        try:
            return load(folder)
        except Damaged as error:
            set_aside(folder, error)
    return None


def _kept(home: Path, trained_for: str) -> list[tuple[datetime, Path]]:
    """When trained, and the folder, of all models for a configuration and encoder."""
    kept = []
    for folder in folders(home):
        try:
            described = read(folder / MANIFEST)
        except Damaged as error:
            set_aside(folder, error)
            continue
        if described["trained_for"] == trained_for:
            kept.append((datetime.fromisoformat(described["as_of"]), folder))
    return kept


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder / MANIFEST)
    except Damaged as error:
        set_aside(folder, error)
        return False
    return True


def set_aside(folder: Path, error: Damaged) -> None:
    """Keep a damaged model out of the way, for whoever looks for the cause."""
    aside = folder.with_name(f".damaged-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    log.warning("damaged model set aside", problem=str(error), now_in=str(aside))


def fingerprint(config: Config, encoder: str) -> str:
    """What a model depends on beside the rows: the configuration, the encoder, the features.

    Of the encoder its own fingerprint counts: neither its device nor its batches do.
    """
    shaping = config.model_dump(
        mode="json",
        exclude={
            **dict.fromkeys(
                ("name", "campaign", "encoder", "scoring", "gates", "retention", "mart"), True
            ),
            "sources": {"attach", "consent", "suppression", "contact_max_age_days"},
            "users": {"columns"},
        },
    )
    text = json.dumps(shaping, sort_keys=True) + encoder + version("nightrank")
    return hashlib.sha256(text.encode()).hexdigest()[:16]
