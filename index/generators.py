"""The generators: each proposes up to `k` items for each user of a shard.

A generator is a function `(snapshot, users, k) -> (items, scores)` with `users` (n,) row
positions, `items` (n, k) row positions of items, best first, padded with -1, and `scores` (n, k)
on the generator's own scale. It never proposes an item that is not eligible or is excluded for
the user.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from index.rows import PADDING, compact, contains, scatter_top_k, top_k
from index.snapshot import Snapshot

Users = NDArray[np.int32]
Proposals = tuple[NDArray[np.int32], NDArray[np.float32]]
Generator = Callable[[Snapshot, Users, int], Proposals]

# FAISS cannot leave out items of one query, so it is asked for as many more as the user may not
# see. A user with more exclusions than this may get fewer than k proposals.
MAX_EXTRA = 1024
REVIEWS_PER_ITEM = 5


def nearest(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items whose text is nearest to the user's profile; score: cosine similarity."""
    extra = min(_most_excluded(snapshot, users), MAX_EXTRA)
    items, scores = snapshot.item_index.search(snapshot.profiles(users), k + extra)
    return _allowed(snapshot, users, items, scores, k)


def reviews(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items with a review, by somebody else, nearest to the profile; score: that cosine."""
    profiles = snapshot.profiles(users)
    rows, similarities = snapshot.review_index.search(profiles, k * REVIEWS_PER_ITEM)
    found = (rows != PADDING) & ~_own_reviews(snapshot, users, rows)
    shard_rows = np.repeat(np.arange(len(users), dtype=np.int32), rows.shape[1])[found.ravel()]
    item_of = snapshot.reviews.get_column("item").to_numpy()
    best = (
        pl.DataFrame(
            {
                "row": shard_rows,
                "item": item_of[rows[found]].astype(np.int32),
                "similarity": similarities[found],
            }
        )
        .group_by("row", "item")
        .agg(pl.col("similarity").max())
    )
    row, item = best.get_column("row").to_numpy(), best.get_column("item").to_numpy()
    keep = ~contains(snapshot.excluded[users], row, item)
    score = best.get_column("similarity").to_numpy()
    return scatter_top_k(row[keep], item[keep], score[keep], n_rows=len(users), k=k)


def cooccurrence(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items that share users with the user's own items, by affinity."""
    return _neighbours(snapshot, users, k, "cooccurrence")


def directed(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items that came after, or before, the user's latest items in others' histories."""
    return _neighbours(snapshot, users, k, "directed")


def ease(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items that a linear model of whole histories expects beside the user's latest items."""
    return _neighbours(snapshot, users, k, "ease")


def similar(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items whose text is near to those of the user's latest items, one by one."""
    return _neighbours(snapshot, users, k, "similar")


def two_tower(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items that a model of text and order expects next; score: log-odds."""
    extra = min(_most_excluded(snapshot, users), MAX_EXTRA)
    items, odds = snapshot.answer_index.search(snapshot.questions(users), k + extra)
    return _allowed(snapshot, users, items, odds, k)


def popular(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items with the most recent events; score: decayed count."""
    count = np.where(snapshot.eligible, snapshot.popularity, 0.0)
    n = min(k + _most_excluded(snapshot, users), int((count > 0).sum()))
    top = np.lexsort((np.arange(len(count)), -count))[:n].astype(np.int32)
    items = np.broadcast_to(top, (len(users), n))
    scores = np.broadcast_to(count[top].astype(np.float32), (len(users), n))
    return _allowed(snapshot, users, items, scores, k)


def history(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """The user's own earlier items that are not excluded; score: affinity."""
    own = snapshot.affinity[users]
    eligible = own @ sp.diags_array(snapshot.eligible.astype(np.float32), format="csr")
    return top_k(_without_excluded(snapshot, users, eligible), k)


GENERATORS: dict[str, Generator] = {
    "nearest": nearest,
    "reviews": reviews,
    "cooccurrence": cooccurrence,
    "directed": directed,
    "ease": ease,
    "similar": similar,
    "two_tower": two_tower,
    "popular": popular,
    "history": history,
}


# For each generator by neighbours: what of a user's history asks them.
NEIGHBOURS = {
    "cooccurrence": "affinity",
    "directed": "recent",
    "ease": "recent",
    "similar": "recent",
}
LOGARITHMIC = ("two_tower",)
SCORES_ANY_PAIR = (*NEIGHBOURS, "two_tower")


def neighbour_scores(snapshot: Snapshot, users: Users, name: str) -> sp.csr_array:
    """(len(users), n_items): the sum over a user's items of weight times strength."""
    history: sp.csr_array = getattr(snapshot, NEIGHBOURS[name])
    strength: sp.csr_array = getattr(snapshot, name)
    return sp.csr_array(history[users] @ strength)


def pair_scores(
    snapshot: Snapshot, users: Users, name: str, rows: NDArray[np.int64], items: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(n,) the score of pairs that the generator need not have proposed; NaN: not known.

    Args:
        snapshot: what is known before `as_of`.
        users: (u,) row positions.
        name: one of `SCORES_ANY_PAIR`.
        rows: (n,) positions in `users`, ascending.
        items: (n,) aligned.
    """
    if name in NEIGHBOURS:
        scores = neighbour_scores(snapshot, users, name)
        return np.asarray(scores[rows, items], dtype=np.float32).ravel()
    assert snapshot.answers is not None
    queries = snapshot.questions(users)
    odds = np.empty(len(rows), dtype=np.float32)
    bounds = np.searchsorted(rows, np.arange(len(users) + 1))
    for query, start, end in zip(queries, bounds[:-1], bounds[1:], strict=True):
        odds[start:end] = snapshot.answers[items[start:end]] @ query
    unasked = np.asarray(~queries.any(axis=1))
    odds[unasked[rows]] = np.nan
    return odds


def _neighbours(snapshot: Snapshot, users: Users, k: int, name: str) -> Proposals:
    scores = neighbour_scores(snapshot, users, name)
    return top_k(_without_excluded(snapshot, users, scores), k)


def _own_reviews(snapshot: Snapshot, users: Users, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each found review (n, k) was written by the user who asks; (n, k)."""
    author = snapshot.reviews.get_column("user").to_numpy()
    if len(author) == 0:
        return np.zeros(rows.shape, dtype=bool)
    return np.asarray(author[rows] == users[:, None])


def _most_excluded(snapshot: Snapshot, users: Users) -> int:
    counts = np.diff(snapshot.excluded.indptr)[users]
    return int(counts.max(initial=0))


def _allowed(
    snapshot: Snapshot,
    users: Users,
    items: NDArray[np.int32],
    scores: NDArray[np.float32],
    k: int,
) -> Proposals:
    rows = np.repeat(np.arange(len(users), dtype=np.int32), items.shape[1])
    barred = contains(snapshot.excluded[users], rows, items.ravel()).reshape(items.shape)
    return compact(items, scores, (items != PADDING) & ~barred, k)


def _without_excluded(snapshot: Snapshot, users: Users, scores: sp.csr_array) -> sp.csr_array:
    return sp.csr_array(scores - scores.multiply(snapshot.excluded[users]))
