"""The union of what the generators propose, one row for each (user, item) pair."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from index.generators import GENERATORS, LOGARITHMIC, Proposals, Users
from index.snapshot import Snapshot

# Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009: 1 / (60 + rank).
FUSION_OFFSET = 60.0

Floats = NDArray[np.float32]
Places = NDArray[np.int64]


def propose(
    snapshot: Snapshot, users: Users, *, budgets: Mapping[str, int], per_user: int
) -> pl.DataFrame:
    """Candidates of a shard of users.

    Args:
        snapshot: what is known before `as_of`.
        users: (n,) row positions, ascending and distinct.
        budgets: how many items each generator may propose to a user; others are not asked.
        per_user: how many of the union are kept, by reciprocal rank fusion, ties by item.

    Returns:
        Sorted by user, then item: `user`, `item` (Int32) and for each generator in `budgets`
        `rank_<name>` (1 = best) and `score_<name>` (Float32, the generator's own scale), null
        where it did not propose the pair; a generator that knows the score of any pair gives it
        for each. `share_<name>` is the score over the user's largest.
    """
    n_items = snapshot.shape[1]
    found = find(snapshot, users, budgets)
    rows, items, place = fuse(found, n_items)
    kept = place <= per_user
    rows, items = rows[kept], items[kept]
    columns: dict[str, Floats] = {}
    for name, one in found.items():
        rank, score, most = told(one, rows, items, n_items)
        share = np.exp(score - most) if name in LOGARITHMIC else _share(score, most)
        columns |= {f"rank_{name}": rank, f"score_{name}": score, f"share_{name}": share}
    pairs = {"user": users[rows], "item": items.astype(np.int32)}
    return pl.DataFrame(pairs | columns, nan_to_null=True)


def find(snapshot: Snapshot, users: Users, budgets: Mapping[str, int]) -> dict[str, Proposals]:
    """What each generator proposes to a shard of users; arguments as of `propose`."""
    return {name: GENERATORS[name](snapshot, users, k) for name, k in budgets.items()}


def fuse(found: Mapping[str, Proposals], n_items: int) -> tuple[Places, Places, Places]:
    """The union of what was found, and how it is ordered.

    Returns:
        (n,) position in the shard and (n,) item of each pair, ascending, and (n,) its place among
        its user's, 1 = best, by reciprocal rank fusion, ties by item.
    """
    from index.lookups import fused

    ranks = [np.arange(one.items.shape[1], dtype=np.float32) + 1 for one in found.values()]
    worth = 1.0 / (FUSION_OFFSET + np.concatenate(ranks))
    users, items, place = fused(np.hstack([one.items for one in found.values()]), worth, n_items)
    return users, items, place


def told(
    proposals: Proposals, rows: Places, items: Places, n_items: int
) -> tuple[Floats, Floats, Floats]:
    """Rank and score of each pair and the largest score of its user; NaN: not known.

    Args:
        proposals: of one generator to a shard of users.
        rows: (n,) position in the shard of each pair, ascending.
        items: (n,) its item, distinct within a user.
        n_items: number of items.
    """
    from index.lookups import ranked

    rank, score = (np.full(len(items), np.nan, dtype=np.float32) for _ in range(2))
    if proposals.score_of:
        score = proposals.score_of(rows, items)
    ranked(proposals.items, proposals.scores, rows, items, rank, score, n_items)
    return rank, score, proposals.scores.max(axis=1, initial=-np.inf)[rows]


def _share(score: Floats, most: Floats) -> Floats:
    """Each score over the largest of its user; NaN where that is not positive."""
    unknown = np.full_like(score, np.nan)
    return np.asarray(np.divide(score, most, out=unknown, where=most > 0))
