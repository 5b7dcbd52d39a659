"""Runs the peers on the same split as the night and measures their lists in the same way."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import polars as pl

from benchmarks.peers import PEERS, SEEDED, Ids, Lists, PeerUnavailableError, Split, chosen
from benchmarks.ranks import hr_and_ndcg, middle_ranks
from benchmarks.windows import Cut
from index.rows import PADDING

# Longer than the list that is measured, so that ties at its end get their middle rank.
LIST_LENGTH = 50

Measured = dict[str, object]


def split_of(cut: Cut) -> tuple[Split, Ids]:
    """What peers see of a cut, and the items that followed, which they do not."""
    targets = cut.targets.sort("user")
    split = Split(
        train=_places(cut.corpus),
        history=_places(cut.material.inputs.before(cut.as_of).events),
        n_users=len(cut.material.inputs.users),
        n_items=len(cut.material.inputs.items),
        users=targets.get_column("user").to_numpy(),
    )
    return split, targets.get_column("item").to_numpy()


def _places(events: pl.DataFrame) -> pl.DataFrame:
    return events.sort("user", "ts", maintain_order=True).select(
        "user", "item", place=pl.int_range(pl.len(), dtype=pl.Int32).over("user")
    )


def peers(validation: Cut, test: Cut, seeds: int) -> Iterator[Measured]:
    """HR@10 and NDCG@10 of each peer, and seed if it has any; settings chosen on validation.

    A peer that cannot run here has a row with its reason and no figures.
    """
    (known, wanted), (split, targets) = split_of(validation), split_of(test)
    for name, peer in PEERS.items():
        try:
            settings = chosen(name, known, wanted)
            for seed in range(seeds if name in SEEDED else 1):
                lists = partial(peer, **settings)(split, LIST_LENGTH, seed)
                yield {"system": name, "seed": seed} | measured(lists, targets)
        except PeerUnavailableError as reason:
            yield {"system": f"{name}: {reason}", "seed": 0}


def measured(lists: Lists, targets: Ids) -> dict[str, float]:
    """HR@10 and NDCG@10 of lists (n, k) whose rows are aligned with the targets (n,).

    >>> lists = (np.array([[4, 5], [6, -1]]), np.array([[2.0, 1.0], [1.0, -np.inf]]))
    >>> measured(lists, np.array([5, 7]))["hr@10"]
    0.5
    """
    items, scores = lists
    hit = (items == targets[:, None]).any(axis=1)
    users, place = np.nonzero((items != PADDING) & hit[:, None])
    found = items[users, place] == targets[users]
    ranks = middle_ranks(users.astype(np.int32), found, scores[users, place].astype(np.float64))
    return hr_and_ndcg(ranks, len(targets))
