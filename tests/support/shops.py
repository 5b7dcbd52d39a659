"""A shop with the command line beside it."""

import json
from pathlib import Path
from typing import Any

from forks import told
from nights import write_night

from jobs import shop


class Shop:
    """A shop, the small one or another, with the command line beside it."""

    def __init__(self, folder: Path, toml: str, shop: shop.Shop | None = None) -> None:
        night = write_night(folder, toml, shop)
        self.folder, self.home = folder, night.home
        self.config, self.root = night.root / "small.toml", night.root
        self.logs: list[Path] = []

    def __call__(self, name: str, *words: str, **options: Any) -> tuple[int, dict[str, Any], str]:
        """Exit code, the last line of standard output read as JSON, and the log.

        For the options see `forks.command`.
        """
        out = self.folder / f"{len(self.logs)}-{name}"
        where = ["--home", str(self.home)]
        if name in ("run", "score", "train"):
            where += ["--as-of", "2025-06-01", "--root", str(self.root)]
        line = [name, str(self.config), *words, *where]
        ended = told(line, out, **options)
        self.logs.append(Path(f"{out}.stderr"))
        return ended.returncode, json.loads(ended.stdout.splitlines()[-1]), ended.stderr
