"""What a campaign would send from the current night, before anybody exports it."""

import polars as pl

from jobs.campaigns.selection import Selection
from jobs.console import show_table

SAMPLE = 10


def overlaps(mine: Selection, others: list[Selection]) -> pl.DataFrame:
    """campaign, users (on its list), shared (also on mine), share (of mine)."""
    users = mine.lines.select("user_id").unique()
    rows = []
    for other in others:
        theirs = other.lines.select("user_id").unique()
        shared = len(users.join(theirs, on="user_id", how="semi"))
        rows.append((other.campaign.name, len(theirs), shared, shared / max(len(users), 1)))
    schema = {"campaign": pl.String, "users": pl.Int64, "shared": pl.Int64, "share": pl.Float64}
    return pl.DataFrame(rows, schema, orient="row")


def sample(lines: pl.DataFrame) -> pl.DataFrame:
    """Ten lines, evenly spread over the list."""
    step = max(len(lines) // SAMPLE, 1)
    columns = ["user_id", "place", "item_id", "title", "probability", "reason"]
    return lines.gather_every(step).head(SAMPLE).select(columns)


def show_preview(mine: Selection, others: list[Selection]) -> None:
    """Size, expected behaviours, waterfall, overlap with other campaigns and a sample."""
    size = [
        ("users", mine.lines.get_column("user_id").n_unique()),
        ("lines", len(mine.lines)),
        ("held out", int((mine.audience.get_column("arm") == "holdout").sum())),
        (f"expected: {mine.campaign.behaviour}", mine.lines.get_column("probability").sum()),
    ]
    show_table(f"Campaign {mine.campaign.name}", ["what", "count"], size)
    for title, frame in {
        "Waterfall": mine.waterfall.drop("campaign"),
        "Also on the lists of": overlaps(mine, others),
        "Sample": sample(mine.lines),
    }.items():
        show_table(title, frame.columns, frame.rows())
