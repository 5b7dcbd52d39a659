"""What was shown before `as_of`, and what came of it: a group of features of its own.

An impression says that an item was seen, not that it was wanted: nothing else is made of it.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rank.known import Columns, Known, PairTable, Values, days_before, minimum_by, smoothed_rate

HALF_LIFE_DAYS = 30.0
# An event of the user on the item at most this long after it was shown answers the impression.
ANSWER_DAYS = 1.0


@dataclass(frozen=True)
class Shown:
    """The impressions before `as_of`.

    Attributes:
        as_of: naive UTC; the caller passes only rows with `ts < as_of`.
        impressions: user, item, ts; sorted by ts.
        events: what users did: likewise.
        sizes: number of users and of items.
    """

    as_of: datetime
    impressions: pl.DataFrame
    events: pl.DataFrame
    sizes: tuple[int, int]

    @cached_property
    def age(self) -> NDArray[np.float64]:
        """(n,) days before `as_of`."""
        return days_before(self.impressions.get_column("ts"), self.as_of)

    @cached_property
    def until_event(self) -> NDArray[np.float64]:
        """(n,) days from an impression to the user's next event on the item; NaN without one."""
        events = self.events.select("user", "item", "ts", next="ts")
        joined = self.impressions.join_asof(
            events, on="ts", by=["user", "item"], strategy="forward", check_sortedness=False
        )
        return days_before(joined.get_column("ts"), self.as_of) - days_before(
            joined.get_column("next"), self.as_of
        )

    @cached_property
    def pairs(self) -> PairTable:
        """What was shown to whom how often, since when without an event, and how lately."""
        users, items = (self.impressions.get_column(n).to_numpy() for n in ("user", "item"))
        keys, place = np.unique(users.astype(np.int64) * self.sizes[1] + items, return_inverse=True)
        size = len(keys) + 1  # the last row stands for pairs that were never shown
        columns: Columns = {
            "pair_times_shown": self._decayed(place, size),
            "pair_times_ignored": np.bincount(place[np.isnan(self.until_event)], minlength=size),
            "pair_days_since_shown": minimum_by(place.astype(np.int32), self.age, size),
        }
        return PairTable(keys, columns, self.sizes[1])

    def table(self, of: str) -> Columns:
        """How often users, or items, saw or were shown, and the smoothed share of answers."""
        who = self.impressions.get_column(of).to_numpy()
        size = self.sizes[0 if of == "user" else 1]
        shown = np.bincount(who, minlength=size)
        answered = np.bincount(who[self.until_event <= ANSWER_DAYS], minlength=size)
        return {
            f"{of}_times_shown": self._decayed(who, size),
            f"{of}_answer_rate": smoothed_rate(answered, shown),
        }

    def _decayed(self, rows: NDArray[Any], size: int) -> NDArray[np.float64]:
        weight = np.exp2(-self.age / HALF_LIFE_DAYS)
        return np.bincount(rows, weight, minlength=size).astype(np.float64)


def impressions(known: Known, pairs: pl.DataFrame, profiles: Values) -> Columns:
    """How often the item was shown to this user, and how often without an event since."""
    if known.shown is None:
        return {}
    table = known.shown.pairs
    found = table.find(*(pairs.get_column(name).to_numpy() for name in ("user", "item")))
    return {name: values[found] for name, values in table.columns.items()}


def user_impressions(known: Known) -> Columns:
    """How often the user was shown something, and how often an event followed."""
    return {} if known.shown is None else known.shown.table("user")


def item_impressions(known: Known) -> Columns:
    """How often the item was shown to anybody, and how often an event followed."""
    return {} if known.shown is None else known.shown.table("item")
