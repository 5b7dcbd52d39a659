"""A folder of interactions whose next item is known: users walk round a ring of items."""

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.sequences import read_sequences
from benchmarks.windows import SETTINGS, place_material
from jobs.config import Config, load_config
from jobs.state import Material

USERS, ITEMS = 60, 30


def write_folder(folder: Path, *, changed: tuple[int, ...] = ()) -> Path:
    """Users walk round a ring of items; `changed` places from the end go elsewhere."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        start, length = rng.integers(ITEMS), 5 + user % 4
        for place in range(length):
            moved = 7 if length - place in changed and user % 2 else 0
            rows.append((user, int(start + place + moved) % ITEMS, place))
    interactions = pl.DataFrame(rows, ["user_id", "item_id", "pos"], orient="row")
    items = pl.DataFrame({"item_id": range(ITEMS), "title": [f"thing {i}" for i in range(ITEMS)]})
    folder.mkdir(parents=True, exist_ok=True)
    items.write_parquet(folder / "items.parquet")
    interactions.sample(fraction=1.0, shuffle=True, seed=1).write_parquet(
        folder / "interactions.parquet"
    )
    return folder


def quick_config() -> Config:
    """The settings of the benchmarks with a quick encoder."""
    config = load_config(SETTINGS)
    encoder = config.encoder.model_copy(update={"model": "packaged/wordllama"})
    return config.model_copy(update={"encoder": encoder})


def material_of(folder: Path, home: Path) -> Material:
    return place_material(read_sequences(folder), quick_config(), home)
