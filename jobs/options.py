"""Options that several commands share, and the night they name. Imports nothing heavy."""

import os
import tomllib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from jobs.config import Config
    from jobs.nightly import Night

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


Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="What a shard of users may take, such as 4GiB or 500MiB: scoring.memory.",
    ),
]
MEMORY = "NIGHTRANK__SCORING__MEMORY"
NAME = "NIGHTRANK__NAME"


def use_memory(memory: str | None) -> None:
    """Let an option come before the file and the environment: it is put into the latter."""
    if memory is not None:
        os.environ[MEMORY] = memory


def night_of(
    config: Path, as_of: str | None = None, root: Path = Path(), home: Path | None = None
) -> "Night":
    """What a command works on.

    Raises:
        ConfigError: the configuration or the time cannot be used.
    """
    from jobs.config import load_config
    from jobs.nightly import Night

    effective = load_config(config)
    return Night(
        config=effective,
        as_of=parse_as_of(as_of),
        root=root.resolve(),
        home=home_of(effective, home),
    )


def home_of(config: "Config", home: Path | None) -> Path:
    """Where everything is written."""
    return (home or Path("nightrank-home") / config.name).resolve()


def likely_home(config: Path, home: Path | None) -> Path | None:
    """As `home_of`, by the least of the file that tells; None where it does not.

    Reading and checking all of a configuration takes longer than a second start may.
    """
    if home is None and NAME not in map(str.upper, os.environ):
        with suppress(OSError, ValueError, LookupError, TypeError):
            home = Path("nightrank-home") / tomllib.loads(config.read_text("utf-8"))["name"]
    return home.resolve() if home else None


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
