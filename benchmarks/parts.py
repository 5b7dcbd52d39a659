"""Seconds of each part of what a night computes anew, and what the part is made from.

OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 python -m benchmarks.parts CONFIG --as-of DATE --root DATA

It trains nothing: candidates and features of a sample of the users stand for their scoring, to
which a night adds trees and reasons. Times are of the processor, all threads together.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from index.choice import evenly
from jobs.console import show_table
from jobs.nightly import prepare
from jobs.options import night_of
from jobs.state import State

# In an order in which each part finds what it builds upon.
OF_TEXTS = ("whitened_items", "item_index", "whitened_index", "text_neighbours", "text_clusters")
OF_EVENTS = ("cooccurrence", "directed", "ease", "two_hop", "factors")
OF_BOTH = ("attributes", "kinds", "affinity", "popularity", "due", "review_index")
# Built only where they have a budget.
ASKED_FOR = (*OF_EVENTS, "attributes", "kinds")

Row = tuple[str, str, float]


def main(
    config: Annotated[Path, typer.Argument(help="The TOML file.")],
    as_of: Annotated[str, typer.Option(help="A date.")],
    root: Annotated[Path, typer.Option(help="Where relative paths of the sources start.")],
    home: Annotated[Path, typer.Option(help="Where vectors are kept.")],
    users: Annotated[int, typer.Option(help="So many stand for all.", min=1)] = 2000,
) -> None:
    """Print seconds by part, and shares of all of them."""
    night = night_of(config, as_of, root, home)
    material = prepare(night).material
    projection = material.fit_projection(night.as_of)
    rows = list(measured(State(material, night.as_of, projection, now=True), users))
    whole = sum(seconds for *_, seconds in rows)
    show_table(
        f"{len(material.inputs.items):,} items, {len(material.inputs.events):,} events",
        ["part", "made from", "seconds", "share"],
        [(part, of, seconds, seconds / whole) for part, of, seconds in rows],
    )


def measured(state: State, most: int) -> Iterator[Row]:
    """Part, what it is made from, seconds; the last are of all users."""
    yield "rows before as_of", "rows", timed(lambda: state.inputs)
    yield "sentiment", "reviews", timed(lambda: state.reviews)
    yield "facts, and the two-tower model", "events and texts", timed(lambda: state.snapshot)
    wanted = state.material.config.candidates.budgets
    for of, parts in (("texts", OF_TEXTS), ("events", OF_EVENTS), ("all", OF_BOTH)):
        for part in parts:
            if part in wanted or part not in ASKED_FOR:
                yield part, of, timed(partial(getattr, state.snapshot, part))
    yield from of_users(state, most)


def of_users(state: State, most: int) -> Iterator[Row]:
    """Candidates and features of a sample, in proportion to all."""
    few, users = state.users[:1], state.users[evenly(len(state.users), most)]
    tables = timed(lambda: state.describe(state.candidates(few)))  # loops are compiled, too
    yield "tables of users and items", "all", tables
    scale = len(state.users) / len(users)
    pairs = []
    yield "candidates", "all", scale * timed(lambda: pairs.append(state.candidates(users)))
    yield "features", "all", scale * timed(lambda: state.describe(pairs[0]))


def timed(part: Callable[[], object]) -> float:
    """Seconds of the processor."""
    started = time.process_time()
    part()
    return time.process_time() - started


if __name__ == "__main__":
    typer.run(main)
