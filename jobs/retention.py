"""What is kept for how long, and what may go."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jobs import models, nights, publish
from jobs.config_sections import RetentionConfig
from jobs.manifest import Damaged, read

DAY = 86_400.0


class Removable(NamedTuple):
    """Something that may go: its kind, and its files and folders."""

    kind: str
    paths: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(size(path) for path in self.paths)


def removable(home: Path, keep: RetentionConfig, *, now: float | None = None) -> list[Removable]:
    """All that is neither among the latest of its kind, nor young, nor of a protected night.

    The current night and the one before are protected, with their runs, models and lists.

    Args:
        home: the folder of all that is written.
        keep: how much stays.
        now: Unix time; None is the present.
    """
    now = time.time() if now is None else now
    old = _older_than(now - keep.days * DAY)
    shown = nights.current(home)
    protected = [*([shown] if shown else []), *nights.before_current(home)[:1]]
    runs = {nights.run_of(path) for path in protected}

    scores = [p for p in nights.kept(home)[: -keep.nights] if p not in protected and old(p)]
    staying = [path for path in nights.kept(home) if path not in scores]
    found = [Removable("night", (path, publish.manifest_of(path))) for path in scores]
    folders = sorted((home / "runs").glob("*"))[: -keep.runs]
    gone = [p for p in folders if p.name not in runs and old(p)]
    found += [Removable("run", (p,)) for p in gone]
    found += _pages(home, staying, gone)
    found += _models(home, keep, staying, old)
    for folder in sorted((home / "campaigns").glob("*")):
        lists = _by_run(folder)
        found += [
            Removable("list", lists[run])
            for run in sorted(lists)[: -keep.lists]
            if run not in runs and all(map(old, lists[run]))
        ]
    unused = _older_than(now - keep.vector_days * DAY)
    shards = sorted((home / "cache").glob("*/[0-9]*-*"))
    return found + [Removable("vectors", (path,)) for path in shards if unused(path)]


def _pages(home: Path, staying: Iterable[Path], gone: Iterable[Path]) -> Iterator[Removable]:
    """Pages of which neither the night nor the folder of the run, as of a refused one, stays."""
    runs = {path.name for path in (home / "runs").glob("*")} - {path.name for path in gone}
    kept = runs | {nights.run_of(path) for path in staying}
    for path in sorted(nights.page_of(home, "*").parent.glob("[!.]*")):
        if path.stem not in kept:
            yield Removable("page", (path,))


def _models(
    home: Path, keep: RetentionConfig, staying: Iterable[Path], old: Callable[[Path], bool]
) -> Iterator[Removable]:
    used = {version for scores in staying if (version := _model_of(scores))}
    aside = sorted((home / "models").glob(".damaged-*"))
    for path in [*models.folders(home)[: -keep.models], *aside]:
        if path.name not in used and old(path):
            yield Removable("model", (path,))


def _model_of(scores: Path) -> str | None:
    try:
        return str(read(publish.manifest_of(scores))["model_version"])
    except Damaged:
        return None


def _by_run(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of a campaign's lists and deltas by their run, which their names start with."""
    files: dict[str, tuple[Path, ...]] = {}
    for path in sorted(path for path in folder.rglob("[!.]*") if path.is_file()):
        run = path.name.split(".")[0]
        files[run] = (*files.get(run, ()), path)
    return files


def _older_than(moment: float) -> Callable[[Path], bool]:
    return lambda path: path.stat().st_mtime < moment


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
