"""The commands of campaigns. Heavy imports wait inside them, so that `--help` is instant."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import ConfigFile, Home, Root, home_of, night_of
from jobs.session import one_at_a_time

if TYPE_CHECKING:
    from jobs.campaigns.lists import Lists

app = typer.Typer()


@app.command()
def export(config: ConfigFile, root: Root = Path(), home: Home = None) -> None:
    """Write the campaign lists again, from the current night; lists that were sent stay."""
    from datetime import UTC, datetime

    from jobs import summary
    from jobs.campaigns.lists import raise_refused

    with one_at_a_time(night_of(config, home=home).home, "export"):
        lists, run_id = _of_current_night(config, root, home)
        written = lists.write(run_id, at=datetime.now(UTC).replace(tzinfo=None))
    summary.show_lists(written)
    raise_refused(written)


@app.command()
def preview(
    config: ConfigFile,
    campaign: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Its name.")],
    root: Root = Path(),
    home: Home = None,
) -> None:
    """Show what a campaign would send from the current night; write nothing."""
    from jobs.campaigns.preview import show_preview
    from jobs.errors import ConfigError

    lists, _ = _of_current_night(config, root, home)
    found = {selection.campaign.name: selection for selection in lists.selections}
    if campaign not in found:
        known = ", ".join(found) or "none"
        raise ConfigError(f"{config}: there is no campaign {campaign!r}; there are: {known}")
    mine = found.pop(campaign)
    if mine.refused is not None:
        raise type(mine.refused)(f"campaign {campaign!r} has no list: {mine.refused}")
    show_preview(mine, [other for other in found.values() if other.refused is None])


@app.command()
def feedback(
    config: ConfigFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, NDJSON or Parquet.")],
    home: Home = None,
) -> None:
    """Take in what became of messages: sent, opened, clicked; see docs/campaigns.md."""
    from jobs.campaigns.feedback import take_feedback
    from jobs.campaigns.records import FOLDER
    from jobs.config import load_config
    from jobs.summary import show_line

    place = home_of(load_config(config), home)
    with one_at_a_time(place / FOLDER, "feedback"):  # not the home's lock: a night takes hours
        taken = take_feedback(file, home=place)
    show_line(f"{taken.read:,} rows: {taken.new:,} new, {taken.known:,} known already,")
    show_line(f"{taken.quarantined:,} quarantined, {taken.erased:,} of people who were erased")


def _of_current_night(config: Path, root: Path, home: Path | None) -> tuple["Lists", str]:
    """The lists that the current night gives with the configuration as it is now, and its run."""
    from jobs import publish
    from jobs.campaigns.lists import Lists
    from jobs.campaigns.segments import check_segments
    from jobs.config import load_config

    effective = load_config(config)
    check_segments(effective)
    folder = home_of(effective, home)
    lists = Lists(effective, home=folder, root=root.resolve())
    with publish.open_scores(folder / publish.CURRENT) as connection:
        lists.select(connection)
        run_id: str = connection.sql("select run_id from runs").pl().item()
    return lists, run_id
