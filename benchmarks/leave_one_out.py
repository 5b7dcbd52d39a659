"""Full ranking of each user's last item, strictly: everything learnt is from `seq[:-2]`.

The ranker is grown on the third-last item, and on earlier ones where users are few, stopped on the
second-last (the validation item), and the last is predicted from the history `seq[:-1]`. Candidates
and features are those of the night.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.contest import (
    Ablations,
    Against,
    Contest,
    Folder,
    Home,
    Ours,
    Refit,
    Row,
    Seeds,
    compare,
    ranked,
    show,
)
from benchmarks.sequences import read_sequences, shuffled_days
from benchmarks.windows import SETTINGS, Cut, cut_before, place_material
from jobs.config import load_config

# The ranker learns from the newest places whose candidates are so many, from two at most and from
# one in any case.
MOST_PAIRS, MOST_PLACES = 7_000_000, 2


def main(
    folder: Folder,
    home: Home = None,
    refit: Refit = False,
    seeds: Seeds = 3,
    ours: Ours = True,
    ablations: Ablations = True,
    against: Against = True,
    shuffle_days: Annotated[bool, typer.Option(help="Also with days in any order.")] = False,
) -> None:
    """Print recall by budget, and HR@10 and NDCG@10 of each system: mean and spread of seeds."""
    home = home or Path("nightrank-home/benchmarks") / folder.name
    sequences, config = read_sequences(folder), load_config(SETTINGS)
    material = place_material(sequences, config, home)
    places = places_for(len(material.inputs.users) * config.candidates.per_user)
    cuts = [cut_before(material, last) for last in places]
    rows = compare(cuts, seeds=seeds, refit=refit, ours=ours, ablations=ablations, against=against)
    if shuffle_days:
        mixed = place_material(shuffled_days(sequences, seed=0), config, home)
        rows = chain(rows, shuffled_rows([cut_before(mixed, last) for last in places], seeds))
    show(rows)


def places_for(pairs: int) -> range:
    """Places from the end: grown before all but the last two, stopped before 2, tested before 1.

    Args:
        pairs: candidates of all users at one place.

    >>> list(places_for(7_000_000)), list(places_for(3_500_000)), list(places_for(1))
    ([3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1])
    """
    grown = min(max(MOST_PAIRS // pairs, 1), MOST_PLACES)
    return range(grown + 2, 0, -1)


def shuffled_rows(cuts: Sequence[Cut], seeds: int) -> Iterator[Row]:
    """Nightrank on histories whose days are in any order."""
    yield from ranked(Contest.of(cuts), "nightrank, days shuffled", seeds)


if __name__ == "__main__":
    typer.run(main)
