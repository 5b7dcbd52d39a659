"""The commands that do a night: `run`, `resume`, `score`. Heavy imports wait inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import (
    AsOf,
    ConfigFile,
    Force,
    Home,
    Memory,
    Root,
    home_of,
    likely_home,
    parse_as_of,
    use_memory,
)
from jobs.session import LastLine, last_line, one_at_a_time, refuse_second

if TYPE_CHECKING:
    from jobs.nightly import Night

app = typer.Typer()


@app.command()
def run(
    config: ConfigFile,
    as_of: AsOf = None,
    root: Root = Path(),
    home: Home = None,
    force: Force = None,
    memory: Memory = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Do it although the same time, configuration and rows are published."
        ),
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Encode every text anew, published already or not; only models are kept.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what there is to do and what it takes; write nothing."),
    ] = False,
) -> None:
    """Do a whole night: ingest, embed, train when due, score, publish, write the lists."""
    use_memory(memory)
    if dry_run:
        _show_plan(config, as_of, root, home)
    else:
        do_night(config, as_of, root, home, full=full, override=force, again=again or full)


@app.command()
def resume(
    config: ConfigFile,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="Without it: the newest unfinished one, if it began after the current night.",
        ),
    ] = None,
    home: Home = None,
    force: Force = None,
    memory: Memory = None,
    from_stage: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="Do this stage and all after it anew: ingest, embed, train, index, score, gates "
            "or publish.",
        ),
    ] = None,
) -> None:
    """Go on with a run that was stopped, killed or refused: only what is not done is done."""
    use_memory(memory)
    with last_line() as line:
        if likely := likely_home(config, home):
            refuse_second(likely)
        from jobs.config import load_config
        from jobs.ledger import START, to_resume

        effective = load_config(config)
        place = home_of(effective, home)
        with one_at_a_time(place, run or "to be resumed"):
            ledger = to_resume(place, run, effective)
            started = {name: datetime.fromisoformat(ledger[START][name]) for name in _TIMES}
            line.of_run(ledger.run_id, started["as_of"])
            if from_stage is not None:
                ledger.forget(from_stage)
            from jobs.nightly import Night
            from jobs.stages import Stages

            night = Night(
                config=effective,
                root=Path(ledger[START]["root"]),
                home=place,
                stages=Stages(ledger.measured()),
                **started,
            )
            _finish(night, line, ledger=ledger, override=force, again=True)


@app.command()
def score(
    config: ConfigFile,
    as_of: AsOf = None,
    root: Root = Path(),
    home: Home = None,
    force: Force = None,
) -> None:
    """Score, publish and write the lists with models that are already trained."""
    do_night(config, as_of, root, home, override=force, again=True, may_train=False)


_TIMES = ("as_of", "started_at")


def do_night(
    config: Path,
    as_of: str | None,
    root: Path,
    home: Path | None,
    *,
    full: bool = False,
    **options: Any,
) -> None:
    """Start a run, do it and show what came of it.

    For `full` see `jobs.nightly.begin`, for the other options `jobs.nightly.run`.
    """
    with locked_night(config, as_of, root, home) as (night, line, run_id):
        from jobs.nightly import begin

        _finish(night, line, ledger=begin(night, run_id, full=full), **options)


@contextmanager
def locked_night(
    config: Path, as_of: str | None, root: Path, home: Path | None
) -> Iterator[tuple["Night", LastLine, str]]:
    """A night with its home's lock and a name, and the last line that it will print.

    The lock comes before what takes seconds to import.
    """
    from jobs.ledger import new_run_id

    with last_line() as line:
        started_at, at = datetime.now(UTC).replace(tzinfo=None), parse_as_of(as_of)
        run_id = new_run_id(at, started_at)
        line.of_run(run_id, at)
        if likely := likely_home(config, home):
            refuse_second(likely)
        from jobs.config import load_config

        effective = load_config(config)
        place = home_of(effective, home)
        with one_at_a_time(place, run_id):
            from jobs.nightly import Night

            night = Night(effective, at, root.resolve(), place, started_at=started_at)
            yield night, line, run_id


def _finish(night: "Night", line: LastLine, **options: Any) -> None:
    from jobs import nightly, publish, summary
    from jobs.campaigns.lists import raise_refused
    from jobs.metrics_file import reported

    with reported(night):
        outcome = nightly.run(night, **options)
    summary.show_outcome(night, outcome)
    line.update(
        rows=outcome.predictions,
        paths={
            "scores": str(outcome.scores),
            "current": str(night.home / publish.CURRENT),
            "model": str(night.home / "models" / outcome.trained.version),
            "page": str(outcome.page) if outcome.page else None,
            "lists": {made.campaign: str(made.path) for made in outcome.lists if not made.refused},
        },
    )
    raise_refused(outcome.lists)  # the night is published, but a campaign got no list


def _show_plan(config: Path, as_of: str | None, root: Path, home: Path | None) -> None:
    with last_line() as line:
        from jobs.options import night_of
        from jobs.plan import plan
        from jobs.summary import show_frame

        night = night_of(config, as_of, root, home)
        made = plan(night)
        show_frame("Rows", made.rows)
        show_frame("Texts", made.texts)
        show_frame("It takes about", made.needs)
        line.update(
            as_of=night.as_of.isoformat(),
            status="dry_run",
            rows=made.rows.get_column("kept").sum(),
            needs=dict(made.needs.select("what", "needed").iter_rows()),
        )
