"""The union of what the generators propose, one row for each (user, item) pair."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from index.generators import GENERATORS, LOGARITHMIC, Proposals, Users
from index.rows import PADDING, best_first, pair_keys, places
from index.snapshot import Snapshot

# Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009: 1 / (60 + rank).
FUSION_OFFSET = 60.0

Floats = NDArray[np.float32]


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
    union, place = fuse(found, n_items)
    kept = union[place <= per_user]
    pairs = {"user": kept // n_items, "item": kept % n_items}
    rows = np.searchsorted(users, pairs["user"])
    columns: dict[str, Floats] = {}
    for name, one in found.items():
        rank, score, most = one.of_pairs(kept, rows, pairs["item"])
        share = np.exp(score - most) if name in LOGARITHMIC else _share(score, most)
        columns |= {f"rank_{name}": rank, f"score_{name}": score, f"share_{name}": share}
    return pl.DataFrame(
        {name: values.astype(np.int32) for name, values in pairs.items()} | columns,
        nan_to_null=True,
    )


@dataclass(frozen=True)
class Found:
    """The proposals of one generator, flat.

    Attributes:
        proposals: as the generator gave them.
        keys: (m,) `pair_keys` of what it proposed.
        rank: (m,) 1 = best.
        score: (m,) its score.
    """

    proposals: Proposals
    keys: NDArray[np.int64]
    rank: Floats
    score: Floats

    @classmethod
    def of(cls, proposals: Proposals, users: Users, n_items: int) -> "Found":
        """The same proposals with their pairs and ranks."""
        row, place = np.nonzero(proposals.items != PADDING)
        keys = pair_keys(users[row], proposals.items[row, place], n_items)
        rank = (place + 1).astype(np.float32)
        return cls(proposals, keys, rank, proposals.scores[row, place])

    def of_pairs(
        self, pairs: NDArray[np.int64], rows: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[Floats, Floats, Floats]:
        """Rank and score of each pair and the largest score of its user; NaN: not known."""
        rank, score = (np.full(len(pairs), np.nan, dtype=np.float32) for _ in range(2))
        if self.proposals.score_of and len(pairs):
            score = self.proposals.score_of(rows, items)
        place = np.minimum(np.searchsorted(pairs, self.keys), len(pairs) - 1)
        present = pairs[place] == self.keys
        rank[place[present]] = self.rank[present]
        score[place[present]] = self.score[present]
        return rank, score, self.proposals.scores.max(axis=1, initial=-np.inf)[rows]


def find(snapshot: Snapshot, users: Users, budgets: Mapping[str, int]) -> dict[str, Found]:
    """What each generator proposes to a shard of users; arguments as of `propose`."""
    n_items = snapshot.shape[1]
    return {
        name: Found.of(GENERATORS[name](snapshot, users, k), users, n_items)
        for name, k in budgets.items()
    }


def fuse(found: Mapping[str, Found], n_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The union of what was found, and how it is ordered.

    Returns:
        (n,) `pair_keys`, ascending, and (n,) the place of each pair among its user's, 1 = best,
        by reciprocal rank fusion, ties by item.
    """
    keys = np.sort(np.concatenate([np.empty(0, np.int64), *(one.keys for one in found.values())]))
    union = keys[np.diff(keys, prepend=-1) > 0]
    fused: Floats = np.zeros(len(union), dtype=np.float32)
    for one in found.values():
        fused[np.searchsorted(union, one.keys)] += 1.0 / (FUSION_OFFSET + one.rank)
    users = union // n_items
    place = np.empty(len(union), dtype=np.int64)
    place[best_first(users, union % n_items, fused)] = places(users) + 1  # users ascend in either
    return union, place


def _share(score: Floats, most: Floats) -> Floats:
    """Each score over the largest of its user; NaN where that is not positive."""
    unknown = np.full_like(score, np.nan)
    return np.asarray(np.divide(score, most, out=unknown, where=most > 0))
