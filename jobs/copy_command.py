"""The command `nightrank copy`. Heavy imports wait inside it, as in `jobs.cli`."""

import re
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def copy(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The TOML file.")],
    to: Annotated[
        str, typer.Option(metavar="STORE", help="`parquet`, or `postgres://USER@HOST/DATABASE`.")
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where the Parquet files go.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Where the nights are. Without it: nightrank-home/NAME.")
    ] = None,
) -> None:
    """Copy the views for business intelligence, earlier nights included, to another store."""
    from jobs.config import load_config
    from jobs.copying import to_parquet, to_postgres
    from jobs.errors import ConfigError
    from jobs.publish import CURRENT

    current = (home or Path("nightrank-home") / load_config(config).name) / CURRENT
    if to == "parquet" and folder is not None:
        rows = to_parquet(current, folder)
    elif re.match(r"postgres(ql)?://", to) and folder is None:
        rows = to_postgres(current, to)
    else:
        raise ConfigError("write `--to parquet DIR` or `--to postgres://USER@HOST/DATABASE`")
    for view, count in rows.items():
        typer.echo(f"{view} {count:,}")
