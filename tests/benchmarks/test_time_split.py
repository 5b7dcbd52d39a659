"""The global cut in time, by hand."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
from rings import quick_config

from benchmarks.against import split_of
from benchmarks.sequences import Sequences
from benchmarks.time_split import cut_between

# user: (day, item), in order
EVENTS = {
    1: [(1, 10), (2, 11), (8, 12), (9, 13)],  # two later events: the last is the target
    2: [(1, 11), (3, 10), (4, 12)],  # none later
    3: [(6, 13), (12, 10)],  # the second is after the end
    4: [(7, 14), (7, 10)],  # all of it later
}
START, END = datetime(2014, 1, 6), datetime(2014, 1, 10)


def sequences() -> Sequences:
    rows = [
        (user, item, len(events) - place, datetime(2014, 1, 1) + timedelta(days=day - 1))
        for user, events in EVENTS.items()
        for place, (day, item) in enumerate(events)
    ]
    events = pl.DataFrame(rows, ["user_id", "item_id", "from_last", "ts"], orient="row")
    items = pl.DataFrame({"item_id": range(10, 15), "title": [f"thing {i}" for i in range(5)]})
    nothing = {name: pl.lit(None, pl.String) for name in ("brand", "category", "description")}
    return Sequences(items.with_columns(**nothing), events)


def ids(cut_frame: pl.DataFrame, users: pl.DataFrame) -> list[tuple[int, int]]:
    """(user, item) by id; item positions follow ids from 10 on."""
    names = users.get_column("user_id")
    return sorted(
        (names[user], 10 + item) for user, item in cut_frame.select("user", "item").rows()
    )


def test_targets_are_last_events_between_the_times_and_the_corpus_ends_before(
    tmp_path: Path,
) -> None:
    cut = cut_between(sequences(), START, END, quick_config(), tmp_path)
    users = cut.material.inputs.users
    assert ids(cut.targets, users) == [(1, 13), (4, 10)]
    early = [(1, 10), (1, 11), (2, 10), (2, 11), (2, 12)]
    assert ids(cut.corpus, users) == early
    history = cut.material.inputs.before(cut.as_of).events
    # User 3's single event before the end is the target of a user without a history.
    assert ids(history, users) == sorted([*early, (1, 12), (4, 14)])


def test_peers_see_the_corpus_and_the_histories_of_later_users(tmp_path: Path) -> None:
    cut = cut_between(sequences(), START, END, quick_config(), tmp_path)
    split, targets = split_of(cut)
    assert (targets + 10).tolist() == [13, 10]
    assert len(split.train) == 5
    history = split.history.filter(pl.col("user") == split.users[0]).sort("place")
    assert (history["item"] + 10).to_list() == [10, 11, 12]
