"""Runs the peers on the same split as the night and measures their lists in the same way."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import polars as pl

from benchmarks.peers import PEERS, Ids, Lists, PeerUnavailableError, Split, chosen
from benchmarks.ranks import hr_and_ndcg, middle_ranks
from index.rows import PADDING
from jobs.state import Material

LAST, VALIDATION = 1, 2
# Longer than the list that is measured, so that ties at its end get their middle rank.
LIST_LENGTH = 50

Measured = dict[str, object]


def split_before(material: Material, last: int) -> tuple[Split, Ids]:
    """What peers see of the events, and the `last`-th item from the end, which they do not.

    Matrices are built from one event less than the histories, as for the night.
    """
    places = (
        material.inputs.events.sort("user", "ts", maintain_order=True)
        .select("user", "item", place=pl.int_range(pl.len(), dtype=pl.Int32).over("user"))
        .with_columns(from_last=pl.len().over("user") - pl.col("place"))
    )
    rows = ["user", "item", "place"]
    target = places.filter(pl.col("from_last") == last).sort("user")
    split = Split(
        train=places.filter(pl.col("from_last") > last + 1).select(rows),
        history=places.filter(pl.col("from_last") > last).select(rows),
        n_users=len(material.inputs.users),
        n_items=len(material.inputs.items),
        users=target.get_column("user").to_numpy(),
    )
    return split, target.get_column("item").to_numpy()


def peers(material: Material, seeds: int) -> Iterator[Measured]:
    """HR@10 and NDCG@10 of each peer and seed; settings chosen on the validation item.

    A peer that cannot run here has a row with its reason and no figures.
    """
    validation, wanted = split_before(material, VALIDATION)
    test, targets = split_before(material, LAST)
    for name, peer in PEERS.items():
        try:
            settings = chosen(name, validation, wanted)
            for seed in range(seeds):
                lists = partial(peer, **settings)(test, LIST_LENGTH, seed)
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
