"""The embedded default: an invented shop, its configuration and the day to look at it."""

from datetime import date
from importlib import resources
from pathlib import Path

from jobs.shop import make_shop, write_shop

AS_OF = date(2025, 6, 1)


def write_demo(home: Path, *, users: int, items: int, seed: int) -> Path:
    """Write the shop's sources and its configuration into `home/shop`; the configuration's path."""
    folder = home / "shop"
    folder.mkdir(parents=True, exist_ok=True)
    write_shop(make_shop(users=users, items=items, end=AS_OF, seed=seed), folder)
    config = folder / "demo.toml"
    config.write_text(resources.files("jobs").joinpath("demo.toml").read_text())
    return config
