"""The union of what the generators propose, one row for each (user, item) pair."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from index.generators import GENERATORS, LOGARITHMIC, SCORES_ANY_PAIR, Users, pair_scores
from index.rows import PADDING, pair_keys
from index.snapshot import Snapshot

# Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009: 1 / (60 + rank).
FUSION_OFFSET = 60.0


def propose(
    snapshot: Snapshot, users: Users, *, budgets: Mapping[str, int], per_user: int
) -> pl.DataFrame:
    """Candidates of a shard of users.

    Args:
        snapshot: what is known before `as_of`.
        users: (n,) row positions, ascending and distinct.
        budgets: how many items each generator may propose to a user; 0 switches it off.
        per_user: how many of the union are kept, by reciprocal rank fusion, ties by item.

    Returns:
        Sorted by user, then item: `user`, `item` (Int32) and for each generator in `budgets`
        `rank_<name>` (1 = best) and `score_<name>` (Float32, the generator's own scale), null
        where it did not propose the pair; generators by neighbours score every pair of the union.
        `share_<name>` is the score over the largest of the user.
    """
    n_items = snapshot.shape[1]
    proposals = {name: GENERATORS[name](snapshot, users, k) for name, k in budgets.items() if k}
    keys = {name: _keys(users, items, n_items) for name, (items, _) in proposals.items()}
    union = np.unique(np.concatenate([k for k, _ in keys.values()] or [np.empty(0, np.int64)]))
    columns: dict[str, NDArray[np.float32]] = {}
    for name in budgets:
        rank, score = (np.full(len(union), np.nan, dtype=np.float32) for _ in range(2))
        if name in proposals and name in SCORES_ANY_PAIR:
            score = _scores(snapshot, users, union, name)
        if name in proposals:
            place = np.searchsorted(union, keys[name][0])
            present = keys[name][1]
            rank[place] = (np.nonzero(present)[1] + 1).astype(np.float32)
            score[place] = proposals[name][1][present]
        columns |= {f"rank_{name}": rank, f"score_{name}": score}
        logarithmic = name in LOGARITHMIC
        columns[f"share_{name}"] = _share(score, union // n_items, logarithmic=logarithmic)
    kept = _best(union // n_items, columns, per_user)
    frame = {name: values[kept] for name, values in columns.items()}
    pairs = {"user": union[kept] // n_items, "item": union[kept] % n_items}
    return pl.DataFrame(
        {name: values.astype(np.int32) for name, values in pairs.items()} | frame, nan_to_null=True
    )


def _keys(
    users: Users, items: NDArray[np.int32], n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    present = items != PADDING
    asked = np.broadcast_to(users[:, None], items.shape)
    return pair_keys(asked[present], items[present], n_items), present


def _share(
    score: NDArray[np.float32], users: NDArray[np.int64], *, logarithmic: bool
) -> NDArray[np.float32]:
    """Each score over the largest of its user; NaN where that is not positive."""
    if len(score) == 0:
        return score
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    most = np.repeat(np.fmax.reduceat(score, starts), np.diff([*starts, len(score)]))
    if logarithmic:
        return np.asarray(np.exp(score - most))
    unknown = np.full_like(score, np.nan)
    return np.asarray(np.divide(score, most, out=unknown, where=most > 0))


def _scores(
    snapshot: Snapshot, users: Users, union: NDArray[np.int64], name: str
) -> NDArray[np.float32]:
    """The generator's score of each pair of the union."""
    n_items = snapshot.shape[1]
    if len(union) == 0:
        return np.empty(0, dtype=np.float32)
    return pair_scores(
        snapshot, users, name, np.searchsorted(users, union // n_items), union % n_items
    )


def _best(
    users: NDArray[np.int64], columns: Mapping[str, NDArray[np.float32]], per_user: int
) -> NDArray[np.bool_]:
    ranks = np.stack([v for name, v in columns.items() if name.startswith("rank_")])
    fused = np.nansum(1.0 / (FUSION_OFFSET + ranks), axis=0)
    order = np.lexsort((np.arange(len(users)), -fused, users))
    sorted_users = users[order]
    place = np.arange(len(users)) - np.searchsorted(sorted_users, sorted_users)
    kept = np.zeros(len(users), dtype=bool)
    kept[order[place < per_user]] = True
    return kept
