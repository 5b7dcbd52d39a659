"""Keeps trained models, one folder for each version, and finds the one for a night."""

import hashlib
import json
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from jobs.config import Config
from jobs.training import Trained
from rank.model import DamagedModel, Model
from rank.projection import Projection
from rank.propensity import Propensity

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
    if folder.exists():
        return folder
    building = folder.with_name(f".build-{trained.version}")
    building.mkdir(parents=True, exist_ok=True)
    for model in trained.models:
        model.save(building)
    for propensity in trained.propensities:
        propensity.save(building)
    projection = trained.projection
    np.savez(building / "projection.npz", mean=projection.mean, components=projection.components)
    for table in TABLES:
        frame: pl.DataFrame = getattr(trained, table)
        frame.write_parquet(building / f"{table}.parquet")
    described = {
        "as_of": trained.as_of.isoformat(),
        "behaviours": [model.behaviour for model in trained.models],
        "trained_for": trained_for,
        "sha256": {path.name: _sha256(path) for path in sorted(building.iterdir())},
    }
    (building / "model.json").write_text(json.dumps(described, indent=2))
    building.rename(folder)
    return folder


def load(folder: Path) -> Trained:
    """Read what `save` wrote.

    Raises:
        DamagedModel: a file is missing or differs from its checksum.
    """
    try:
        described = json.loads((folder / "model.json").read_text())
        for name, expected in described["sha256"].items():
            if _sha256(folder / name) != expected:
                raise DamagedModel(
                    f"{folder / name}: checksum differs from model.json; "
                    f"delete {folder} and train again"
                )
        with np.load(folder / "projection.npz", allow_pickle=False) as arrays:
            projection = Projection(arrays["mean"], arrays["components"])
        return Trained(
            as_of=datetime.fromisoformat(described["as_of"]),
            models=tuple(Model.load(folder, behaviour) for behaviour in described["behaviours"]),
            propensities=tuple(Propensity.load(folder, b) for b in described["behaviours"]),
            projection=projection,
            **{table: pl.read_parquet(folder / f"{table}.parquet") for table in TABLES},
        )
    except (OSError, ValueError, KeyError) as error:
        raise DamagedModel(f"{folder} holds no complete model: {error}") from error


def latest(home: Path, as_of: datetime, config: Config, *, trained_for: str) -> Trained | None:
    """The newest model that may score `as_of`, or None where one must be trained.

    A model trained after `as_of` has seen its future; one older than
    `training.retrain_after_days`, or made for another configuration or encoder, is not used.
    """
    oldest = as_of - timedelta(days=config.training.retrain_after_days)
    kept = _kept(home, trained_for)
    found = [(at, folder) for at, folder in kept if at == as_of or oldest < at < as_of]
    return load(max(found)[1]) if found else None


def champion(home: Path, as_of: datetime, *, trained_for: str) -> Trained | None:
    """The newest model trained before `as_of`, of any age; None where there is none."""
    found = [(at, folder) for at, folder in _kept(home, trained_for) if at < as_of]
    return load(max(found)[1]) if found else None


def _kept(home: Path, trained_for: str) -> list[tuple[datetime, Path]]:
    """When trained, and the folder, of all models for a configuration and encoder."""
    kept = []
    for description in sorted((home / "models").glob("[!.]*/model.json")):
        described = json.loads(description.read_text())
        if described["trained_for"] == trained_for:
            kept.append((datetime.fromisoformat(described["as_of"]), description.parent))
    return kept


def fingerprint(config: Config, encoder: str) -> str:
    """What a model depends on beside the rows: the configuration, the encoder, the features."""
    shaping = config.model_dump(
        mode="json",
        exclude={
            **dict.fromkeys(("name", "campaign", "scoring", "gates", "mart"), True),
            "sources": {"attach"},
        },
    )
    text = json.dumps(shaping, sort_keys=True) + encoder + version("nightrank")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
