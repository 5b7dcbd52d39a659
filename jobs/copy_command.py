"""The command `nightrank copy`. Heavy imports wait inside it, as in `jobs.cli`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from jobs.options import ConfigFile, Home, night_of

app = typer.Typer()


@app.command()
def copy(
    config: ConfigFile,
    to: Annotated[
        str, typer.Option(metavar="STORE", help="`parquet`, or `postgres://USER@HOST/DATABASE`.")
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where the Parquet files go.")
    ] = None,
    home: Home = None,
) -> None:
    """Copy the views for business intelligence, earlier nights included, to another store."""
    from jobs.copying import to_parquet, to_postgres
    from jobs.errors import ConfigError
    from jobs.publish import CURRENT

    current = night_of(config, home=home).home / CURRENT
    if to == "parquet" and folder is not None:
        rows = to_parquet(current, folder)
    elif re.match(r"postgres(ql)?://", to) and folder is None:
        rows = to_postgres(current, to)
    else:
        raise ConfigError("write `--to parquet DIR` or `--to postgres://USER@HOST/DATABASE`")
    for view, count in rows.items():
        typer.echo(f"{view} {count:,}")
