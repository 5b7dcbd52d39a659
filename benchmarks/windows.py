"""Runs the night's own candidates and features on sequences whose days are places in an order."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from benchmarks.sequences import Sequences
from jobs.config import Config
from jobs.nightly import Night, prepare
from jobs.state import Material, State
from jobs.training import examples_of
from rank.projection import Projection
from rank.trees import Example

END = datetime(2020, 1, 1)
DAY = timedelta(days=1)
BEHAVIOUR = "like"
SETTINGS = Path(__file__).parent / "settings.toml"


@dataclass(frozen=True)
class Window:
    """What is learnt from, or tested on, at one `as_of`.

    Attributes:
        targets: user, item: what followed.
        example: candidates and features of the users with a target among their candidates.
    """

    targets: pl.DataFrame
    example: Example


def place_material(sequences: Sequences, config: Config, home: Path) -> Material:
    """Inputs and vectors, with each event as many days before `END` as it is from the last.

    The last event of a user falls on the day before `END`, the one before on the day before that.
    """
    from_last = pl.col("place").max().over("user_id") - pl.col("place") + 1
    days = pl.duration(days=from_last)
    events = sequences.events.select(
        "user_id", "item_id", ts=pl.lit(END) - days, behaviour=pl.lit(BEHAVIOUR)
    )
    sources = home / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    sequences.items.write_parquet(sources / "items.parquet")
    events.write_parquet(sources / "events.parquet")
    return prepare(Night(config=config, as_of=END, root=sources, home=home)).material


def window(
    material: Material,
    last: int,
    projection: Projection,
    *,
    without: Collection[str] = (),
) -> Window:
    """The window whose target is the user's `last`-th event from the end, 1 being the last.

    Histories are what came before it. Item-to-item matrices and popularity are built from one
    event less, as they must be where the test item is predicted: from `seq[:-2]`.
    """
    as_of = END - last * DAY
    state = State(material, as_of, projection, without=without, corpus_as_of=as_of - DAY)
    targets = material.targets(BEHAVIOUR, as_of)
    return Window(targets, examples_of(state)[BEHAVIOUR].of_followers())
