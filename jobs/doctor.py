"""Looks at the machine, the inputs and all that is kept, and says what to do."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from index import library
from index.library import ConflictingFaiss, import_faiss
from jobs import models, nights, publish
from jobs.campaigns import records
from jobs.campaigns.files import check_list
from jobs.erasing.tombstones import Tombstones
from jobs.errors import NightrankError
from jobs.ingest import read_inputs
from jobs.manifest import MANIFEST, Damaged, verify
from jobs.nightly import Night
from jobs.retention import size
from jobs.session import LOCK

MIB = 2**20
# A night writes shards and reasons, the file, and DuckDB's own temporary files.
ROOM_FOR_NIGHTS = 3
LEAST_ROOM = 512 * MIB


class Finding(NamedTuple):
    """One check: what was found and, where something is broken, what to do."""

    check: str
    said: str
    remedy: str | None = None


def examine(night: Night) -> list[Finding]:
    """Every check, in the order in which a night meets what it looks at."""
    home = night.home
    manifests: dict[str, tuple[list[Path], str]] = {
        "vectors": (
            [shard / MANIFEST for shard in sorted((home / "cache").glob("*/[0-9]*-*"))],
            "nothing needs doing: the next night encodes their texts again",
        ),
        "encoders": (
            sorted((home / "encoders").glob("[!.]*/" + MANIFEST)),
            "remove the folder: the next night calibrates anew and encodes every text again",
        ),
        "indexes": (
            [index / MANIFEST for index in sorted((home / "runs").glob("*/index/*/"))],
            "remove the folder: every night builds its own",
        ),
        "nights": (
            [publish.manifest_of(scores) for scores in nights.kept(home)],
            "if it is the current one, use `nightrank rollback`; then remove the file",
        ),
    }
    return [
        packages(),
        blas(),
        lock(home),
        disk(home),
        memory(home),
        inputs(night),
        trained(home),
        *(whole(name, found, remedy) for name, (found, remedy) in manifests.items()),
        lists(home),
        feedback(home),
        current(home),
    ]


def packages() -> Finding:
    """Whether FAISS is there once."""
    try:
        version = import_faiss().__version__
    except (ConflictingFaiss, ImportError) as error:
        return Finding("packages", str(error), "install one of the extras cpu or gpu")
    return Finding("packages", f"faiss {version}, installed once")


def blas() -> Finding:
    """Whether FAISS multiplies matrices with the kernel that this processor is worth."""
    try:
        kernel, best = library.kernel_of_faiss(), library.best_kernel()
    except (ConflictingFaiss, ImportError):
        return Finding("blas", "not known without FAISS")
    return kernel_found(kernel, best, asked=os.environ.get(library.VARIABLE))


def kernel_found(kernel: str | None, best: str | None, *, asked: str | None) -> Finding:
    """What there is to say of the kernel of FAISS's BLAS.

    Args:
        kernel: as threadpoolctl names it; None: FAISS has no OpenBLAS of its own.
        best: what the processor is worth; None: not known.
        asked: what the environment asks for.
    """
    if kernel is None or best is None:
        return Finding("blas", f"kernel {kernel or 'not told'}, best {best or 'not known'}")
    if not library.is_old(kernel, best):
        return Finding("blas", f"kernel {kernel} of FAISS's OpenBLAS, as the processor is worth")
    return Finding(
        "blas",
        f"kernel {kernel} of FAISS's OpenBLAS is older than the processor, which can {best}",
        f"{library.VARIABLE}={asked} asks for it: unset it, or name {best}"
        if asked
        else f"something loads FAISS before nightrank: set {library.VARIABLE}={best}",
    )


def lock(home: Path) -> Finding:
    """Whether a run is at work; the kernel frees the lock of one that is gone."""
    if not (home / LOCK).exists():
        return Finding("lock", "no run has been here")
    with (home / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Finding("lock", f"held: {file.read()}")
    return Finding("lock", "free")


def disk(home: Path) -> Finding:
    """Whether the disk has room for a night such as the current one."""
    now = nights.current(home)
    last = 0
    if now is not None:
        last = size(now) + size(home / "runs" / nights.run_of(now))
    free = shutil.disk_usage(next(p for p in (home, *home.parents) if p.exists())).free
    needed = max(ROOM_FOR_NIGHTS * last, LEAST_ROOM)
    said = f"{free / MIB:,.0f} MiB free, a night may need {needed / MIB:,.0f}"
    remedy = "free some, for instance with `nightrank gc`" if free < needed else None
    return Finding("disk", said, remedy)


def memory(home: Path) -> Finding:
    """Whether the memory that is free is what the last night took."""
    now, needed = nights.current(home), 0.0
    if now is not None and nights.problem(now) is None:
        with publish.open_scores(now) as connection:
            needed = connection.sql("select max(peak_mib) from stages").fetchall()[0][0] or 0.0
    free = psutil.virtual_memory().available / MIB
    said = f"{free:,.0f} MiB free, the current night took {needed:,.0f}"
    remedy = "end other work, or lower scoring.memory" if free < needed else None
    return Finding("memory", said, remedy)


def inputs(night: Night) -> Finding:
    """Whether every source can be read and keeps its contract."""
    try:
        erased = Tombstones.of(night.home)
        read = read_inputs(night.config, as_of=night.as_of, root=night.root, erased=erased)
    except NightrankError as error:
        return Finding("inputs", str(error), "mend the source, or its entry in [sources]")
    except Damaged as error:
        return Finding("inputs", str(error), "take the file that says who was erased from a backup")
    report = read.report
    rows = (f"{row['source']} {row['kept']:,}" for row in report.iter_rows(named=True))
    return Finding("inputs", f"rows kept: {', '.join(rows)}")


def trained(home: Path) -> Finding:
    """Whether every kept model is whole and LightGBM loads it."""
    remedy = "nothing needs doing: it is set aside, and the next `nightrank run` trains when due"
    return _each("models", models.folders(home), models.load, remedy)


def whole(name: str, manifests: list[Path], remedy: str) -> Finding:
    """Whether every file is the one that its manifest describes."""
    return _each(name, manifests, verify, remedy)


def lists(home: Path) -> Finding:
    """Whether the files of every campaign's list are those that its manifest describes."""
    remedy = (
        "`nightrank export` writes those of the current night again, if they were not sent; take "
        "others from a backup, or remove them"
    )
    return _each("lists", sorted((home / "campaigns").glob("*/*.json")), check_list, remedy)


def feedback(home: Path) -> Finding:
    """Whether what is known of messages, and of who was on lists, is what was written."""
    remedy = "messages cannot be made anew: see above"
    return _each("feedback", records.kept(home), records.read, remedy)


def current(home: Path) -> Finding:
    """Whether readers are given a night."""
    link, now = home / publish.CURRENT, nights.current(home)
    if now is not None and (found := nights.stray_log(now)):
        return Finding("current", found, "let no tool write in the folder, see docs/bi.md")
    if now is not None:
        return Finding("current", f"{nights.run_of(now)}")
    if link.is_symlink():
        return Finding("current", f"{link} points to nothing", "use `nightrank rollback`")
    return Finding("current", "nothing is published yet")


def _each(
    name: str, paths: Iterable[Path], check: Callable[[Path], object], remedy: str
) -> Finding:
    found, problems = 0, []
    for path in paths:
        found += 1
        try:
            check(path)
        except Damaged as error:
            problems.append(str(error))
    if problems:
        return Finding(
            name, f"{len(problems)} of {found} are damaged: {'; '.join(problems)}", remedy
        )
    return Finding(name, f"{found} verified")
