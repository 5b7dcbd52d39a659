"""The generators: each proposes up to `k` items for each user of a shard.

A generator is a function `(snapshot, users, k) -> Proposals` with `users` (n,) row positions. It
never proposes an item that is not eligible or is excluded for the user.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from index.facts import ORDER_DECAY
from index.interests import MOST_INTERESTS
from index.interests import interests as interests_of
from index.rows import PADDING, contains, scatter_top_k, top_k, unit_rows
from index.snapshot import Snapshot
from index.store import VectorIndex, Vectors

Users = NDArray[np.int32]
Items = NDArray[np.int32]
Scores = NDArray[np.float32]
Places = NDArray[np.int64]


class Proposals(NamedTuple):
    """What a generator proposes to the n users of a shard.

    Attributes:
        items: (n, k) row positions of items, best first, padded with -1.
        scores: (n, k) on the generator's own scale.
        score_of: for generators that know the score of any pair: from the pairs' positions in the
            shard, ascending, and their items to their scores; NaN where there is none.
    """

    items: Items
    scores: Scores
    score_of: Callable[[Places, Places], Scores] | None = None


Generator = Callable[[Snapshot, Users, int], Proposals]

# FAISS cannot leave out items of one query, so it is asked for as many more as the user may not
# see. A user with more exclusions than this may get fewer than k proposals.
MAX_EXTRA = 1024
REVIEWS_PER_ITEM = 5


def nearest(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items whose text is nearest to the user's profile; score: cosine similarity."""
    return _nearest(snapshot, users, snapshot.item_index, snapshot.profiles(users), k)


def last(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items whose text is nearest to that of the user's last item; score: cosine, whitened."""
    return _near_last(snapshot, users, k, newest=1)


def last_3(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items whose text is nearest to the mean of the user's last three; score: likewise."""
    return _near_last(snapshot, users, k, newest=3)


def interests(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items nearest to any of the user's interests; score: the largest cosine, whitened."""
    queries = interests_of(snapshot.whitened_items, snapshot.last_items[users], decay=ORDER_DECAY)
    asked = k + min(_most_excluded(snapshot, users), MAX_EXTRA)
    items, scores = snapshot.whitened_index.search(queries.reshape(-1, queries.shape[2]), asked)
    rows = np.repeat(np.arange(len(users), dtype=np.int32), MOST_INTERESTS * items.shape[1])
    found = items.ravel() != PADDING
    best = (rows[found], items.ravel()[found], scores.ravel()[found])
    return _best_of_each(snapshot, users, *best, k)


def reviews(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items with a review, by somebody else, nearest to the profile; score: that cosine."""
    profiles = snapshot.profiles(users)
    rows, similarities = snapshot.review_index.search(profiles, k * REVIEWS_PER_ITEM)
    found = (rows != PADDING) & ~_own_reviews(snapshot, users, rows)
    shard_rows = np.repeat(np.arange(len(users), dtype=np.int32), rows.shape[1])[found.ravel()]
    item_of = snapshot.reviews.get_column("item").to_numpy()
    items = item_of[rows[found]].astype(np.int32)
    return _best_of_each(snapshot, users, shard_rows, items, similarities[found], k)


def two_tower(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items that a model of text and order expects next; score: log-odds."""
    queries = snapshot.questions(users)
    found = _nearest(snapshot, users, snapshot.answer_index, queries, k)
    assert snapshot.answers is not None
    return found._replace(score_of=_products(queries, snapshot.answers))


def popular(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items with the most recent events; score: decayed count."""
    return _same_for_all(snapshot, users, snapshot.popularity, k)


def popular_recent(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items with the most events in a time six times shorter; score: likewise."""
    return _same_for_all(snapshot, users, snapshot.popularity_of_late, k)


def trending(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """Items more popular of late than before; score: see `index.facts.Facts.trend`."""
    return _same_for_all(snapshot, users, snapshot.trend, k)


def new(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """New items nearest to the profile; score: cosine.

    Users without a profile get the popular ones among them; score: decayed count.
    """
    profiles = snapshot.profiles(users)
    near = _nearest(snapshot, users, snapshot.new_index, profiles, k)
    liked = _same_for_all(snapshot, users, np.where(snapshot.new, snapshot.popularity, 0.0), k)
    blank = ~profiles.any(axis=1, keepdims=True)
    items = np.hstack([near.items, np.where(blank, liked.items, PADDING)])
    scores = np.hstack([near.scores, liked.scores])
    return _allowed(snapshot, users, items, scores, k)


def history(snapshot: Snapshot, users: Users, k: int) -> Proposals:
    """The user's own earlier items that are not excluded; score: affinity, and more when due.

    A due item gets up to as much more as the user's largest affinity (see `index.times.due`): one
    that is due now comes before all that are not.
    """
    own = snapshot.affinity[users]
    largest = sp.diags_array(own.max(axis=1).toarray())
    scores = (own + largest @ snapshot.due[users]) @ sp.diags_array(
        snapshot.eligible.astype(np.float32)
    )
    return Proposals(*top_k(_without_excluded(snapshot, users, sp.csr_array(scores)), k))


# For each generator by neighbours: what of a user's history asks them. The matrix of neighbours
# is the snapshot's attribute of the generator's name.
NEIGHBOURS = {
    "cooccurrence": "affinity",
    "two_hop": "recent",
    "directed": "recent",
    "ease": "recent",
    "factors": "recent",
    "similar": "recent",
    "attributes": "recent",
    "kinds": "recent",
}
LOGARITHMIC = ("two_tower",)


def _by_neighbours(name: str) -> Generator:
    """Items by the sum over a user's items of the item's weight times the neighbour's strength."""

    def generator(snapshot: Snapshot, users: Users, k: int) -> Proposals:
        from index.lookups import Rows, entries_reached, strongest_reached

        history = Rows.of(getattr(snapshot, NEIGHBOURS[name]))
        strength = Rows.of(getattr(snapshot, name))

        def score_of(rows: Places, items: Places) -> Scores:
            return np.asarray(entries_reached(history, users, strength, rows, items))

        barred = Rows.of(snapshot.excluded)
        items, scores = strongest_reached(history, users, strength, barred, k)
        return Proposals(items, scores, score_of=score_of)

    return generator


GENERATORS: dict[str, Generator] = {
    "nearest": nearest,
    "last": last,
    "last_3": last_3,
    "interests": interests,
    "reviews": reviews,
    "two_tower": two_tower,
    "popular": popular,
    "popular_recent": popular_recent,
    "trending": trending,
    "new": new,
    "history": history,
    **{name: _by_neighbours(name) for name in NEIGHBOURS},
}


def _nearest(
    snapshot: Snapshot, users: Users, index: VectorIndex, queries: Vectors, k: int
) -> Proposals:
    """What the index finds for each user's query."""
    extra = min(_most_excluded(snapshot, users), MAX_EXTRA)
    return _allowed(snapshot, users, *index.search(queries, k + extra), k)


def _near_last(snapshot: Snapshot, users: Users, k: int, *, newest: int) -> Proposals:
    last = snapshot.last_items[users, :newest]
    texts = np.where((last != PADDING)[..., None], snapshot.whitened_items[last], 0.0)
    queries = unit_rows(texts.astype(np.float32).sum(axis=1))
    return _nearest(snapshot, users, snapshot.whitened_index, queries, k)


def _products(queries: Vectors, vectors: Vectors) -> Callable[[Places, Places], Scores]:
    """Scores pairs by the inner product of query and item; NaN where the query is zero."""
    from index.lookups import products

    return lambda rows, items: np.asarray(products(queries, rows, vectors, items))


def _best_of_each(
    snapshot: Snapshot, users: Users, rows: Items, items: Items, scores: Scores, k: int
) -> Proposals:
    """The best score of each (row of the shard, item) found, where not excluded."""
    found = pl.DataFrame({"row": rows, "item": items, "score": scores})
    best = found.group_by("row", "item").agg(pl.col("score").max())
    row, item, score = (best.get_column(name).to_numpy() for name in ("row", "item", "score"))
    keep = ~contains(snapshot.excluded[users], row, item)
    return Proposals(*scatter_top_k(row[keep], item[keep], score[keep], n_rows=len(users), k=k))


def _same_for_all(
    snapshot: Snapshot, users: Users, value: NDArray[np.float64], k: int
) -> Proposals:
    """The eligible items of the largest positive value (n_items,), ties by item."""
    value = np.where(snapshot.eligible, value, 0.0)
    n = min(k + _most_excluded(snapshot, users), int((value > 0).sum()))
    top = np.lexsort((np.arange(len(value)), -value))[:n].astype(np.int32)
    items = np.broadcast_to(top, (len(users), n))
    scores = np.broadcast_to(value[top].astype(np.float32), (len(users), n))
    return _allowed(snapshot, users, items, scores, k)


def _own_reviews(snapshot: Snapshot, users: Users, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each found review (n, k) was written by the user who asks; (n, k)."""
    author = snapshot.reviews.get_column("user").to_numpy()
    if len(author) == 0:
        return np.zeros(rows.shape, dtype=bool)
    return np.asarray(author[rows] == users[:, None])


def _most_excluded(snapshot: Snapshot, users: Users) -> int:
    counts = np.diff(snapshot.excluded.indptr)[users]
    return int(counts.max(initial=0))


def _allowed(snapshot: Snapshot, users: Users, items: Items, scores: Scores, k: int) -> Proposals:
    from index.lookups import Rows, first_allowed

    barred = Rows.of(snapshot.excluded)
    n_items = snapshot.shape[1]
    return Proposals(*first_allowed(items, scores, users, barred, k, n_items))


def _without_excluded(snapshot: Snapshot, users: Users, scores: sp.csr_array) -> sp.csr_array:
    return sp.csr_array(scores - scores.multiply(snapshot.excluded[users]))
