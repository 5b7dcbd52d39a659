"""The command line. Heavy imports wait inside the commands, so that `--help` is instant."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs import care, copy_command, night_commands, tune_command
from jobs.campaigns.commands import app as campaigns
from jobs.options import AsOf, ConfigFile, Home, Root, night_of

app = typer.Typer(
    name="nightrank",
    help="Every night, the probability of what each user will do next.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(night_commands.app)
app.add_typer(care.app)
app.add_typer(tune_command.app)
app.add_typer(campaigns)
app.add_typer(copy_command.app)


@app.command()
def train(config: ConfigFile, as_of: AsOf = None, root: Root = Path(), home: Home = None) -> None:
    """Train, calibrate and test new models, and keep them; publish nothing."""
    with night_commands.locked_night(config, as_of, root, home) as (night, line, _):
        from jobs import nightly, summary

        trained = nightly.train(night, nightly.prepare(night))
        folder = night.home / "models" / trained.version
        summary.show_metrics(trained.metrics)
        summary.show_line("model", trained.version, "kept in", folder)
        summary.show_line("report", folder / "report.html")
        line.update(status="trained", paths={"model": str(folder)})


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
    figures_file: Annotated[
        Path | None,
        typer.Option(
            "--figures", dir_okay=False, help="Also write all figures of all times: a Parquet file."
        ),
    ] = None,
) -> None:
    """Train as `train` does and print the metrics of the test window; keep nothing but vectors."""
    from jobs import nightly, summary
    from jobs.backtest import backtest, check_groups
    from jobs.console import log
    from jobs.ledger import write_parquet

    night = night_of(config, as_of, root, home)
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
    if figures_file:
        write_parquet(figures, figures_file)
    summary.show_backtest(figures, without or [])
    summary.show_stages(night.stages.frame())


@app.command()
def status(config: ConfigFile, home: Home = None) -> None:
    """Show what is current, and the nights and models that are kept."""
    from jobs import summary

    summary.show_status(night_of(config, None, Path(), home))


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
    from jobs.demo import AS_OF, write_demo

    config = write_demo(home, users=users, items=items, seed=seed)
    night_commands.do_night(config, f"{AS_OF:%Y-%m-%d}", config.parent, home, again=True)


def main() -> None:
    """Entry point: turns the errors that a user can mend into a sentence and an exit code."""
    from jobs.console import configure_logging, say_failure
    from jobs.errors import exit_code

    configure_logging()
    try:
        app()
    except Exception as error:
        code = exit_code(error)
        say_failure(error, code)
        sys.exit(code)


if __name__ == "__main__":
    main()
