"""`nightrank tune`: how trees are best grown for one shop."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import AsOf, ConfigFile, Home, Root, night_of

app = typer.Typer()

Trials = Annotated[
    int, typer.Option(min=1, metavar="N", help="Stop at so many trials, those found included.")
]
Minutes = Annotated[
    float | None, typer.Option(min=0.0, metavar="M", help="Begin no trial after so many minutes.")
]


@app.command()
def tune(
    config: ConfigFile,
    as_of: AsOf = None,
    root: Root = Path(),
    home: Home = None,
    trials: Trials = 30,
    minutes: Minutes = None,
) -> None:
    """Search for better settings of [training], and print them; run again, it goes on."""
    import tomli_w

    from jobs import nightly, summary
    from jobs.console import log
    from jobs.tuning import best_settings
    from jobs.tuning import tune as search

    night = night_of(config, as_of, root, home)
    folder = night.home / "tune"
    prepared = nightly.prepare(night)
    with night.stages("tune"):
        found = search(
            prepared.material,
            night.as_of,
            folder=folder,
            trials=trials,
            minutes=float("inf") if minutes is None else minutes,
            on_progress=lambda step: log.info("tune", step=step),
        )
    summary.show_frame("The ten best trials", found.head(10))
    summary.show_line("table and journal", folder)
    typer.echo(tomli_w.dumps({"training": best_settings(found)}), nl=False)
