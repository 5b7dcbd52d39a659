"""Commands that look after what is kept: going back, its page, room, erasing, damage."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import AsOf, ConfigFile, Home, Root, home_of, night_of
from jobs.session import one_at_a_time

if TYPE_CHECKING:
    from jobs.nightly import Night

app = typer.Typer()


@app.command()
def rollback(
    config: ConfigFile,
    home: Home = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The run whose night becomes current; see `status`."),
    ] = None,
) -> None:
    """Make the last good night before the current one current again."""
    from jobs import nights
    from jobs.config import load_config

    scores = nights.rollback(home_of(load_config(config), home), to=to)
    typer.echo(f"current is {nights.run_of(scores)} - `nightrank export` writes its lists")


@app.command()
def report(
    config: ConfigFile,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="The run of a kept night; without it, the current one."),
    ] = None,
    home: Home = None,
) -> None:
    """Write the morning page of a kept night again."""
    from jobs import morning, nights, summary

    scores = nights.named(night_of(config, home=home).home, run)
    page = morning.write_page(scores, nights.run_of(scores))
    nights.show_page(scores.parent)
    summary.show_line("page", page)


@app.command()
def gc(
    config: ConfigFile,
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go.")] = False,
) -> None:
    """Remove old nights, runs, models, lists and unused vectors, as far as `retention` allows."""
    from jobs import publish, retention
    from jobs.console import show_table

    night = night_of(config, home=home)
    found = retention.removable(night.home, night.config.retention)
    rows = [(one.kind, one.paths[0].relative_to(night.home), one.size / 2**20) for one in found]
    show_table("Would go" if dry_run else "Removed", ["what", "path", "MiB"], rows)
    for path in (path for one in found for path in one.paths if not dry_run):
        publish.remove(path)


@app.command()
def erase(
    config: ConfigFile,
    user: Annotated[
        str,
        typer.Argument(
            metavar="USER", help="The user_id, or - to read it from standard input, one line."
        ),
    ],
    root: Root = Path(),
    home: Home = None,
) -> None:
    """Remove a person from all that is kept and ever read again; print a certificate."""
    import json

    from jobs.campaigns.records import FOLDER
    from jobs.erasing.erase import erase as erase_user
    from jobs.errors import ConfigError

    user_id = sys.stdin.readline().rstrip("\r\n") if user == "-" else user
    if not user_id.strip():
        raise ConfigError("there is no user_id: give it as USER, or as a line of standard input")
    night = night_of(config, None, root, home)
    with one_at_a_time(night.home, "erase"), one_at_a_time(night.home / FOLDER, "erase"):
        certificate = erase_user(night, user_id)
    typer.echo(json.dumps(certificate, indent=2))


@app.command()
def doctor(
    config: ConfigFile,
    as_of: AsOf = None,
    root: Root = Path(),
    home: Home = None,
    encoder: Annotated[
        bool,
        typer.Option(
            "--encoder",
            help="Measure the encoder's backends and precisions on texts of the sources instead.",
        ),
    ] = False,
) -> None:
    """Look at the machine, the inputs and all that is kept; exit code 5 if something is broken."""
    from jobs.doctor import examine
    from jobs.summary import show_line

    night = night_of(config, as_of, root, home)
    if encoder:
        _show_encoders(night)
        return
    findings = examine(night)
    for check, said, remedy in findings:
        show_line(f"broken  {check}: {said}; {remedy}" if remedy else f"ok      {check}: {said}")
    if any(finding.remedy for finding in findings):
        raise typer.Exit(5)


def _show_encoders(night: "Night") -> None:
    from jobs.console import show_table
    from jobs.encoders import measure, recommend
    from jobs.summary import show_line

    figures, kept_out = measure(night)
    columns = [name.replace("_", " ") for name in figures.columns]
    show_table("Encoders on texts of the sources", columns, figures.rows())
    for line in (*kept_out, recommend(figures)):
        show_line(line)
