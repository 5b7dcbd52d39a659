"""How rates drift in data of which only users and items with enough events were kept.

In a 5-core every user and every item has five events in the end. So whoever has fewer at some time
is certain to have the rest later, and the nearer the end, the sooner.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from jobs.console import show_table

GROUPS = ("users, fewer", "users, enough", "items, none", "items, fewer", "items, enough")


def main(
    file: Annotated[Path, typer.Argument(help="user_id, item_id, and timestamp or date.")],
    core: Annotated[int, typer.Option(help="Events that all users and items have.")] = 5,
    days: Annotated[int, typer.Option(help="Length of a window.")] = 30,
    windows: Annotated[int, typer.Option(help="So many, the last at the end of the data.")] = 12,
) -> None:
    """Print, for each window, the events of a user or item by how many it had before."""
    rows = [
        (str(start), *(f"{found[group]:.3f}" for group in GROUPS))
        for start, found in rates(read(file), core=core, days=days, windows=windows)
    ]
    title = f"events in {days} days of one of those with fewer than {core} before, and the others"
    show_table(title, ["from", *GROUPS], rows)


def read(file: Path) -> pl.DataFrame:
    """user_id, item_id, date."""
    frame = pl.read_parquet(file)
    if "timestamp" in frame.columns:
        dated = frame.filter(pl.col("timestamp") > 0)
        frame = dated.with_columns(date=pl.from_epoch("timestamp").dt.date())
    return frame.select("user_id", "item_id", pl.col("date").cast(pl.Date)).drop_nulls()


def rates(
    events: pl.DataFrame, *, core: int, days: int, windows: int
) -> Iterator[tuple[date, dict[str, float]]]:
    """The first day of each window, and the mean events in it of those in each group.

    Those with none before are all items that the data have at any time, and no users: nobody
    knows them yet. Events of users who were not known before are left out.

    >>> days = [date(2014, 1, day) for day in (1, 2, 3)]
    >>> events = pl.DataFrame({"user_id": [1, 1, 1], "item_id": [7, 7, 8], "date": days})
    >>> [(start, found)] = rates(events, core=2, days=1, windows=1)
    >>> start, found["users, enough"], found["items, none"], found["items, enough"]
    (datetime.date(2014, 1, 3), 1.0, 1.0, 0.0)
    """
    end = events.get_column("date").max()
    assert isinstance(end, date)
    for n in range(windows, 0, -1):
        start = end + timedelta(days=1 - days * n)
        before = events.filter(pl.col("date") < start)
        window = events.filter(pl.col("date").is_between(start, start + timedelta(days=days - 1)))
        window = window.join(before.select("user_id").unique(), on="user_id", how="semi")
        found = {}
        for column, what in (("user_id", "users"), ("item_id", "items")):
            counted = (
                before.group_by(column)
                .len()
                .join(window.group_by(column).agg(happened=pl.len()), on=column, how="left")
            )
            enough = pl.col("len") >= core
            for name, chosen in (("fewer", ~enough), ("enough", enough)):
                happened = counted.filter(chosen).get_column("happened").fill_null(0)
                found[f"{what}, {name}"] = _mean(int(happened.sum()), len(happened))
        known = before.select("item_id").unique()
        new = events.select("item_id").unique().join(known, on="item_id", how="anti")
        of_new = window.join(known, on="item_id", how="anti")
        yield start, found | {"items, none": _mean(len(of_new), len(new))}


def _mean(happened: int, of: int) -> float:
    return happened / of if of else float("nan")


if __name__ == "__main__":
    typer.run(main)
