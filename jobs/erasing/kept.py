"""Takes a person out of runs, models and pages."""

import shutil
from pathlib import Path

from jobs import manifest, models
from jobs.erasing.person import Person, Removed, read
from jobs.errors import ResourceError
from jobs.ledger import LEDGER, START, Ledger, is_published, write_parquet
from jobs.manifest import MANIFEST, Damaged

MISSES = "misses.parquet"  # the only file of a model that names users


def erase_from_runs(home: Path, person: Person) -> list[Removed]:
    """Remove what runs of the person's rows wrote: nothing that is published needs it.

    An unfinished run goes as a whole, as it would go on with these rows. Of a published one the
    ledger stays; indexes name users by position only, so nobody can be taken out of them.
    """
    removed = []
    for folder in sorted(path for path in (home / "runs").glob("*") if path.is_dir()):
        rows = _rows_of(folder, person)
        if (folder / LEDGER).exists() and not rows:
            continue
        if _is_published(home, folder):
            for path in sorted(folder.iterdir()):  # users/ tells of the person, and is the last
                if path.is_dir():
                    shutil.rmtree(path)
        else:  # what has no ledger is what a removal left that was killed
            (folder / LEDGER).unlink(missing_ok=True)
            shutil.rmtree(folder)
        removed.append(Removed("runs", str(folder.relative_to(home)), rows))
    return removed


def _is_published(home: Path, folder: Path) -> bool:
    try:
        ledger = Ledger(folder)
    except ResourceError:  # a damaged one tells of nothing that could be resumed
        return False
    return START in ledger and is_published(home, ledger)


def _rows_of(folder: Path, person: Person) -> int:
    """How many rows of a run's files are of the person; 1 for a file that cannot be read."""
    rows = 0
    for path in folder.rglob("*.parquet"):
        try:
            rows += person.without(read(path))[1]
        except Damaged:
            rows += 1
    return rows


def erase_from_models(home: Path, person: Person) -> list[Removed]:
    """Take a person out of what models tell of their test window; trees name nobody.

    Damaged models that were set aside go, as nobody can tell what is in them.

    Raises:
        Damaged: a model is not the one that was written.
    """
    removed = []
    for folder in (home / "models").glob(".damaged-*"):
        shutil.rmtree(folder)
        removed.append(Removed("models", str(folder.relative_to(home)), 0))
    for folder in models.folders(home):
        manifest.whole(folder / MANIFEST)
        misses, touched = person.without(read(folder / MISSES))
        if touched:
            building = write_parquet(misses, folder / f".{MISSES}.building")
            manifest.exchange(folder / MANIFEST, building, folder / MISSES)
            removed.append(Removed("models", str((folder / MISSES).relative_to(home)), touched))
    return removed


def erase_from_pages(home: Path, person: Person) -> list[Removed]:
    """Remove the pages that name the person; a model's is written again when it is next used."""
    removed = []
    for path in [*(home / "models").glob("*/*.html"), *(home / "reports").rglob("*")]:
        if path.is_file() and person.in_text(path.read_text("utf-8", errors="replace")):
            path.unlink()
            removed.append(Removed("pages", str(path.relative_to(home)), 0))
    return removed
