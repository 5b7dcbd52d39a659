"""The command line. Heavy imports wait inside the commands, so that `--help` is instant."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from jobs.nightly import Night

app = typer.Typer(
    name="nightrank",
    help="Every night, the probability of what each user will do next.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The TOML file.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        metavar="DATE",
        help="Use only what happened before; a date or a time in UTC. Without it: today, 00:00.",
    ),
]
Root = Annotated[Path, typer.Option(help="Where relative paths of the sources start.")]
Home = Annotated[
    Path | None,
    typer.Option(help="Where everything is written. Without it: nightrank-home/NAME."),
]
Force = Annotated[
    str | None,
    typer.Option(
        metavar="WHO: WHY",
        help="Publish although a gate refuses it; the text is kept in the table `gates`.",
    ),
]


@app.command()
def run(
    config: ConfigFile,
    as_of: AsOf = None,
    root: Root = Path(),
    home: Home = None,
    force: Force = None,
) -> None:
    """Do a whole night: ingest, embed, train when due, score, publish, write the lists."""
    from jobs import nightly, summary

    night = _night(config, as_of, root, home)
    summary.show_outcome(night, nightly.run(night, override=force))


@app.command()
def train(config: ConfigFile, as_of: AsOf = None, root: Root = Path(), home: Home = None) -> None:
    """Train, calibrate and test new models, and keep them; publish nothing."""
    from jobs import nightly, summary

    night = _night(config, as_of, root, home)
    trained = nightly.train(night, nightly.prepare(night))
    folder = night.home / "models" / trained.version
    summary.show_metrics(trained.metrics)
    summary.show_line("model", trained.version, "kept in", folder)
    summary.show_line("report", folder / "report.html")


@app.command()
def score(
    config: ConfigFile,
    as_of: AsOf = None,
    root: Root = Path(),
    home: Home = None,
    force: Force = None,
) -> None:
    """Score, publish and write the lists with models that are already trained."""
    from jobs import nightly, summary
    from jobs.errors import InputMissing

    night = _night(config, as_of, root, home)
    prepared = nightly.prepare(night)
    trained = nightly.kept_models(night, prepared)
    if trained is None:
        raise InputMissing(
            f"{night.home / 'models'} holds no model for this configuration that is young enough "
            f"and not later than {night.as_of:%Y-%m-%d %H:%M}: use `nightrank train` first"
        )
    summary.show_outcome(night, nightly.score(night, prepared, trained, override=force))


@app.command()
def evaluate(
    config: ConfigFile,
    as_of: AsOf = None,
    root: Root = Path(),
    home: Home = None,
    windows: Annotated[
        int,
        typer.Option(
            "--backtest",
            min=1,
            metavar="N",
            help="Train and test at N times, each the longest horizon before the next.",
        ),
    ] = 1,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help="Beside all: without this group of features, or `text`; given again, without all.",
        ),
    ] = None,
) -> None:
    """Train as `train` does and print the metrics of the test window; keep nothing but vectors."""
    from jobs import nightly, summary
    from jobs.backtest import backtest, check_groups
    from jobs.console import log

    night = _night(config, as_of, root, home)
    check_groups(without or [])
    prepared = nightly.prepare(night)
    with night.stages("train"):
        figures = backtest(
            prepared.material,
            night.as_of,
            windows=windows,
            without=without or [],
            on_progress=lambda step: log.info("train", step=step),
        )
    summary.show_backtest(figures, without or [])
    summary.show_stages(night.stages.frame())


@app.command()
def export(config: ConfigFile, home: Home = None) -> None:
    """Write the campaign lists again, from the current night."""
    from jobs import nightly, publish, summary

    night = _night(config, None, Path(), home)
    current = night.home / publish.CURRENT
    with publish.open_scores(current) as connection:
        run_id = connection.sql("select run_id from runs").pl().item()
    summary.show_lists(nightly.export(night, current, run_id))


@app.command()
def status(config: ConfigFile, home: Home = None) -> None:
    """Show what is current, and the nights and models that are kept."""
    from jobs import summary

    summary.show_status(_night(config, None, Path(), home))


@app.command(name="config")
def show_config(config: ConfigFile) -> None:
    """Print the effective configuration, defaults and environment included."""
    from jobs.config import load_config, to_toml

    typer.echo(to_toml(load_config(config)), nl=False)


@app.command()
def demo(
    home: Annotated[Path, typer.Option(help="Where everything is written.")] = Path(
        "nightrank-home/demo"
    ),
    users: Annotated[int, typer.Option(min=200, help="Users of the invented shop.")] = 3000,
    items: Annotated[int, typer.Option(min=50, help="Items of the invented shop.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the invented shop.")] = 0,
) -> None:
    """Invent a small shop and do its night, with a real language model."""
    from jobs import nightly, summary
    from jobs.demo import AS_OF, write_demo

    config = write_demo(home, users=users, items=items, seed=seed)
    night = _night(config, f"{AS_OF:%Y-%m-%d}", config.parent, home)
    summary.show_outcome(night, nightly.run(night))


def main() -> None:
    """Entry point: turns the errors that a user can mend into a sentence and an exit code."""
    from jobs.console import configure_logging
    from jobs.errors import NightrankError

    configure_logging()
    try:
        app()
    except NightrankError as error:
        typer.echo(f"nightrank: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.echo(f"nightrank: {error}", err=True)
        sys.exit(code)


def _night(config: Path, as_of: str | None, root: Path, home: Path | None) -> "Night":
    from jobs.config import load_config
    from jobs.nightly import Night

    effective = load_config(config)
    return Night(
        config=effective,
        as_of=parse_as_of(as_of),
        root=root.resolve(),
        home=(home or Path("nightrank-home") / effective.name).resolve(),
    )


def parse_as_of(text: str | None) -> datetime:
    """A date or time as naive UTC; None is today's midnight in UTC.

    >>> parse_as_of("2024-03-01T02:00:00+02:00")
    datetime.datetime(2024, 3, 1, 0, 0)
    """
    from jobs.errors import ConfigError

    if text is None:
        today = datetime.now(UTC).replace(tzinfo=None)
        return today.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        given = datetime.fromisoformat(text)
        return given.astimezone(UTC).replace(tzinfo=None) if given.tzinfo else given
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--as-of {text!r} is no date: write 2024-03-31 or 2024-03-31T04:00:00+00:00"
        ) from None


def _exit_code(error: Exception) -> int | None:
    """The exit code for an error of the rooms below, which know nothing of exit codes."""
    from jobs.errors import ROOM_ERRORS

    names = [f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__]
    return next((ROOM_ERRORS[name] for name in names if name in ROOM_ERRORS), None)


if __name__ == "__main__":
    main()
