"""What can be shown for a reason: the earlier item or the review that speaks for a pair.

All of it is looked up in `Known`, that is in rows before `as_of`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from rank import reasons
from rank.features import kinds
from rank.known import Known, PairTable, Values

# Popularity is shown as the number of events of so many days.
SHOWN_DAYS = 30
# Of an item's or a user's reviews, so many of the newest are compared.
NEWEST_REVIEWS = 500

Rows = NDArray[np.int32]
# What one family shows: some columns of `SCHEMA`.
Shown = dict[str, Any]
NONE = -1

SCHEMA: dict[str, pl.DataType] = {
    "item": pl.Int32(),
    "review": pl.Int32(),
    "similarity": pl.Float32(),
    "attribute": pl.String(),
    "events": pl.Int64(),
    "at": pl.Datetime("us"),
    "behaviour": pl.String(),
    "found": pl.Boolean(),
}


@dataclass(frozen=True)
class Evidence:
    """Finds what speaks for a pair, by family.

    Attributes:
        known: the state before `as_of`.
        past: (n_users, h) the user's latest distinct items, newest first, padded with -1.
        together: (n_items, n_items) sparse: how strongly item a speaks for item b, by the users
            that they share.
    """

    known: Known
    past: NDArray[np.int32]
    together: sp.csr_array

    def __call__(self, family: str, pairs: pl.DataFrame, profiles: Values) -> pl.DataFrame:
        """What speaks for each pair.

        Args:
            family: one of `rank.reasons.FAMILIES`.
            pairs: (n,) `user`, `item`, those of a user together.
            profiles: (n, d) of the users of the pairs.

        Returns:
            (n,) `item`: position of an earlier item, or of the item that a review is about;
            `review`: its row; `similarity`: cosine of the texts, for `what others did` the
            strength in `together`; `attribute`: name of a column of the items; `events`: number
            of everybody's events in the last 30 days; `at`: time of the review, or of the user's
            last event on `item`; `behaviour`: which that was; `found`: whether there is any
            evidence. What there is not is null.
        """
        users, items = (pairs.get_column(name).to_numpy() for name in ("user", "item"))
        shown: Shown = {"found": np.ones(len(pairs), dtype=bool)}
        if family in _FINDERS:
            shown |= _FINDERS[family](self, users, items, profiles)
        frame = pl.DataFrame(shown, nan_to_null=True)
        return frame.select(
            (pl.col(name) if name in shown else pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in SCHEMA.items()
        )

    @cached_property
    def _last_used(self) -> PairTable:
        """The row of each user's last event on each item."""
        n_items = len(self.known.items)
        keys = self.known.codes("user").astype(np.int64) * n_items + self.known.codes("item")
        distinct, place = np.unique(keys[::-1], return_index=True)  # events are sorted by time
        row = np.append(len(keys) - 1 - place, NONE)
        return PairTable(distinct, {"row": row}, n_items)

    @cached_property
    def _events_of_late(self) -> NDArray[np.int64]:
        recent = self.known.event_age <= SHOWN_DAYS
        return np.bincount(self.known.codes("item")[recent], minlength=len(self.known.items))

    @cached_property
    def _reviews_of(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """By user and by item: rows of reviews, oldest first, and where each owner's start."""
        found = {}
        for of in ("user", "item"):
            owner = self.known.reviews.get_column(of).to_numpy()
            rows = np.argsort(owner, kind="stable")
            start = np.searchsorted(owner[rows], np.arange(self.known.size(of) + 1))
            found[of] = (rows, start)
        return found

    def of_item(self, users: Rows, items: Rows) -> Shown:
        """An earlier item of each user, -1 for none, with the user's last event on it."""
        found = items != NONE
        row = self._last_used.columns["row"][self._last_used.find(users, np.maximum(items, 0))]
        last, events = _or_null(np.where(found, row, NONE)), self.known.events
        return {
            "item": _or_null(items),
            "at": events.get_column("ts").gather(last),
            "behaviour": events.get_column("behaviour").cast(pl.String).gather(last),
            "found": found,
        }


Finder = Callable[[Evidence, Rows, Rows, Values], Shown]


def _similar(evidence: Evidence, users: Rows, items: Rows, profiles: Values) -> Shown:
    texts = evidence.known.whitened_items
    cosines = np.zeros((len(items), evidence.past.shape[1]), dtype=np.float32)
    for user, start, end in _runs(users):
        past = texts[np.maximum(evidence.past[user], 0)]
        cosines[start:end] = texts[items[start:end]] @ past.T
    return _strongest_item(evidence, users, items, cosines)


def _others(evidence: Evidence, users: Rows, items: Rows, profiles: Values) -> Shown:
    past = np.maximum(evidence.past[users], 0)
    strength = np.zeros(past.shape, dtype=np.float32)
    if len(items):  # scipy raises
        asked = np.broadcast_to(items[:, None], past.shape).ravel()
        found = np.asarray(evidence.together[(past.ravel(), asked)])
        strength = found.reshape(past.shape).astype(np.float32)
    return _strongest_item(evidence, users, items, strength)


def _strongest_item(evidence: Evidence, users: Rows, items: Rows, strength: Values) -> Shown:
    """The earlier item, other than the pair's own, of the largest positive strength."""
    past = evidence.past[users]
    strength = np.where((past < 0) | (past == items[:, None]), 0.0, strength)
    best = strength.argmax(axis=1)[:, None]
    most = np.take_along_axis(strength, best, axis=1).ravel()
    item = np.where(most > 0, np.take_along_axis(past, best, axis=1).ravel(), NONE)
    similarity = np.where(most > 0, most, np.nan)
    return {"similarity": similarity, **evidence.of_item(users, item.astype(np.int32))}


def _own_reviews(evidence: Evidence, users: Rows, items: Rows, profiles: Values) -> Shown:
    queries = evidence.known.item_vectors[items]
    return _nearest_review(evidence, users, items, queries, of="user")


def _reviews(evidence: Evidence, users: Rows, items: Rows, profiles: Values) -> Shown:
    return _nearest_review(evidence, items, users, profiles, of="item")


def _nearest_review(
    evidence: Evidence, owners: Rows, barred: Rows, queries: Values, *, of: str
) -> Shown:
    """The owner's review of the largest positive cosine, not one of the barred counterpart."""
    known = evidence.known
    counterpart = known.reviews.get_column("item" if of == "user" else "user").to_numpy()
    rows, first = evidence._reviews_of[of]
    review = np.full(len(owners), NONE, dtype=np.int32)
    most = np.zeros(len(owners), dtype=np.float32)
    order = np.argsort(owners, kind="stable")
    for owner, start, end in _runs(owners[order]):
        theirs = rows[first[owner] : first[owner + 1]][: -NEWEST_REVIEWS - 1 : -1]
        if len(theirs):
            asked = order[start:end]
            cosine = queries[asked] @ known.review_vectors[theirs].T
            cosine[counterpart[theirs] == barred[asked, None]] = 0.0
            best = cosine.argmax(axis=1)
            most[asked] = cosine[np.arange(len(asked)), best]
            review[asked] = theirs[best]
    found = most > 0
    row = _or_null(np.where(found, review, NONE))
    about = known.reviews.select("item", "ts")
    return {
        "item": about.get_column("item").gather(row),
        "review": row,
        "similarity": np.where(found, most, np.nan),
        "at": about.get_column("ts").gather(row),
        "found": found,
    }


def _popular(evidence: Evidence, users: Rows, items: Rows, profiles: Values) -> Shown:
    events = evidence._events_of_late[items]
    return {"events": events, "found": events > 0}


def _price(evidence: Evidence, users: Rows, items: Rows, profiles: Values) -> Shown:
    known = evidence.known
    return {"found": ~np.isnan(known.log_price[items] - known.usual_log_price[users])}


def _kind(evidence: Evidence, users: Rows, items: Rows, profiles: Values) -> Shown:
    """The attribute of which the user has the largest share of affinity, the first of equals."""
    pairs = pl.DataFrame({"user": users, "item": items})
    columns = kinds(evidence.known, pairs, profiles)
    names = np.array([name.removeprefix("affinity_") for name in columns])
    liked = np.nan_to_num(np.array([*columns.values()]).reshape(len(names), len(items)))
    found = liked.max(axis=0, initial=0.0) > 0
    best = names[liked.argmax(axis=0)].tolist()
    return {
        "attribute": pl.select(pl.when(pl.Series(found)).then(pl.Series(best))).to_series(),
        "found": found,
    }


def _again(evidence: Evidence, users: Rows, items: Rows, profiles: Values) -> Shown:
    used = evidence._last_used.find(users, items) < len(evidence._last_used.keys)
    return evidence.of_item(users, np.where(used, items, np.int32(NONE)))


def _due(evidence: Evidence, users: Rows, items: Rows, profiles: Values) -> Shown:
    table = evidence.known.due_table
    due = table.columns["pair_due"][table.find(users, items)]
    return evidence.of_item(users, np.where(np.isnan(due), np.int32(NONE), items))


_FINDERS: dict[str, Finder] = {
    reasons.SIMILAR: _similar,
    reasons.OTHERS: _others,
    reasons.OWN_REVIEWS: _own_reviews,
    reasons.REVIEWS: _reviews,
    reasons.POPULAR: _popular,
    reasons.PRICE: _price,
    reasons.KIND: _kind,
    reasons.AGAIN: _again,
    reasons.DUE: _due,
}


def _or_null(places: NDArray[Any]) -> pl.Series:
    return pl.Series(places).replace(NONE, None)


def _runs(values: Rows) -> list[tuple[int, int, int]]:
    """Value, start and end of each run of equal values.

    >>> _runs(np.array([4, 4, 7]))
    [(4, 0, 2), (7, 2, 3)]
    """
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    bounds = [*starts.tolist(), len(values)]
    return list(zip(values[starts].tolist(), bounds[:-1], bounds[1:], strict=True))
