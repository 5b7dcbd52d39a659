"""Runs the night's own candidates and features on sequences whose days are places in an order."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from benchmarks.sequences import Sequences
from jobs.config import Config
from jobs.examples import examples_of
from jobs.nightly import Night, prepare
from jobs.state import Material, State
from rank.examples import Example, joined
from rank.features import GROUPS
from rank.projection import Projection

END = datetime(2020, 1, 1)
DAY = timedelta(days=1)
BEHAVIOUR = "like"
SETTINGS = Path(__file__).parent / "settings.toml"
TEXT_GENERATORS = ("nearest", "similar")
TEXT_GROUPS = ("generators", "similarity", "last_items", "vectors")


@dataclass(frozen=True)
class Cut:
    """What is known at one time; what came next is to be predicted.

    Attributes:
        material: each event is as many days before `END` as it is from its user's last.
        as_of: histories are what came before it.
        corpus: the events that all is learnt from but the ranker: no target is among them.
    """

    material: Material
    as_of: datetime
    corpus: pl.DataFrame

    @property
    def targets(self) -> pl.DataFrame:
        """user, item: what followed."""
        return self.material.targets(BEHAVIOUR, self.as_of)

    def without_text(self) -> "Cut":
        """The same with no text at all: every vector is zero."""
        return replace(self, material=self.material.without_text())

    def only_text(self) -> "Cut":
        """The same with candidates by text alone."""
        candidates = self.material.config.candidates
        off = dict.fromkeys(candidates.budgets.keys() - set(TEXT_GENERATORS), 0)
        changed = {"candidates": candidates.model_copy(update=off)}
        config = self.material.config.model_copy(update=changed)
        return replace(self, material=replace(self.material, config=config))


NOT_OF_TEXT = tuple(group for group in GROUPS if group not in TEXT_GROUPS)


@dataclass(frozen=True)
class Window:
    """What is learnt from, or tested on, at one cut.

    Attributes:
        targets: user, item: what followed.
        example: candidates and features of the users with a target among their candidates.
    """

    targets: pl.DataFrame
    example: Example

    @classmethod
    def of(
        cls,
        cut: Cut,
        projection: Projection,
        *,
        without: Collection[str] = (),
        whole: bool = False,
    ) -> "Window":
        """Candidates and features of the night, without some groups of features.

        What is learnt from is as large as a night's; what is tested must be `whole`.
        """
        state = State(cut.material, cut.as_of, projection, without=without, corpus=cut.corpus)
        parts = examples_of(state, whole=whole)[BEHAVIOUR]
        return cls(cut.targets, joined(parts).of_followers())


def windows_of(cuts: Sequence[Cut], *, without: Collection[str] = ()) -> list[Window]:
    """The windows of cuts, the earliest first; the last is tested."""
    projection = cuts[0].material.fit_projection(cuts[0].as_of)
    return [Window.of(cut, projection, without=without, whole=cut is cuts[-1]) for cut in cuts]


def place_material(sequences: Sequences, config: Config, home: Path) -> Material:
    """Inputs and vectors, with each event `from_last` days before `END`."""
    days = pl.duration(days="from_last")
    events = sequences.events.select(
        "user_id", "item_id", ts=pl.lit(END) - days, behaviour=pl.lit(BEHAVIOUR)
    )
    sources = home / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    sequences.items.write_parquet(sources / "items.parquet")
    events.write_parquet(sources / "events.parquet")
    return prepare(Night(config=config, as_of=END, root=sources, home=home)).material


def cut_before(material: Material, last: int) -> Cut:
    """Before each user's `last`-th event from the end, 1 being the last.

    The corpus has one event less than the histories, as it must have where the test item is
    predicted strictly: it is `seq[:-2]`.
    """
    as_of = END - last * DAY
    return Cut(material, as_of, material.inputs.before(as_of - DAY).events)
