"""What a run has done: one line of JSON for each step, in `runs/<run_id>/ledger.jsonl`.

Imports little, so that a second start is refused at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.errors import ConfigError, InputMissing, NothingToDo, ResourceError
from jobs.links import CURRENT
from jobs.manifest import checksum, sha256

if TYPE_CHECKING:
    import polars as pl

    from jobs.config import Config

# The stages of a night in their order, and the folders that each writes below that of its run.
STAGES = {
    "ingest": ("inputs",),
    "embed": ("vectors",),
    "train": (),
    "index": ("index", "state"),
    "score": ("shards", "reasons", "health", "users"),
    "gates": (),
    "publish": (),
}
# Of these, no run has need that is published.
PASSING = ("inputs", "vectors", "state")
LEDGER = "ledger.jsonl"
START = "start"
_SEAL = "seal"


class Ledger:
    """The steps of one run that are done, on disk before the next one begins.

    A step is a stage, or a part of one, as `score:000003`. A line is appended and synced, with a
    checksum of its own; one that a killed run left unfinished counts as never written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / LEDGER
        self._steps: dict[str, dict[str, Any]] = {}
        found = self._path.read_bytes() if self._path.exists() else b""
        self._end = found.rfind(b"\n") + 1
        for number, line in enumerate(found[: self._end].splitlines(), 1):
            try:
                self._apply(_unsealed(line))
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise ResourceError(
                    f"{self._path}:{number} is damaged: {error!r}: start a new run, and remove "
                    f"{self.folder}"
                ) from None

    @classmethod
    def start(cls, home: Path, run_id: str, **facts: object) -> Ledger:
        """The ledger of a new run.

        Args:
            home: the folder of all that is written.
            run_id: see `new_run_id`.
            facts: what makes the run the one it is; see `jobs.nightly.begin`.
        """
        ledger = cls(home / "runs" / run_id)
        ledger.folder.mkdir(parents=True)
        ledger.note(START, **facts)
        return ledger

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def last(self) -> str:
        """The step that was done last."""
        return list(self._steps)[-1] if self._steps else "nothing"

    def __contains__(self, step: str) -> bool:
        return step in self._steps

    def __getitem__(self, step: str) -> dict[str, Any]:
        return self._steps[step]

    def get(self, step: str, **default: object) -> dict[str, Any]:
        """What was noted of a step, else the default."""
        return self._steps.get(step, default)

    def note(self, step: str, *files: Path, **facts: object) -> None:
        """Keep that a step is done, with the SHA-256 of its files (below the run's folder)."""
        line = {"step": step, "at": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        if files:
            line["sha256"] = {str(f.relative_to(self.folder)): sha256(f) for f in sorted(files)}
        text = json.dumps(line | {_SEAL: checksum(line)}).encode() + b"\n"
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.seek(self._end)
            file.truncate()
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._end += len(text)
        self._apply(line)

    def holds(self, step: str) -> bool:
        """Whether a step is done and its files are those that it wrote."""
        return step in self and not self.damaged(step)

    def damaged(self, step: str) -> list[Path]:
        """Which files of a step are missing or changed."""
        noted: dict[str, str] = self._steps[step].get("sha256", {})
        paths = {self.folder / name: digest for name, digest in noted.items()}
        return [p for p, digest in paths.items() if not p.is_file() or sha256(p) != digest]

    def written(self, folder: str) -> dict[str, str]:
        """SHA-256 of the files that the steps wrote into a folder below the run's, by name."""
        noted = [step.get("sha256", {}).items() for step in self._steps.values()]
        paths = {Path(name): digest for items in noted for name, digest in items}
        return {p.name: digest for p, digest in sorted(paths.items()) if str(p.parent) == folder}

    def measured(self) -> dict[str, tuple[float, float]]:
        """Seconds and peak memory in MiB of the stages that are done."""
        return {n: tuple(s["measured"]) for n, s in self._steps.items() if "measured" in s}

    def forget(self, stage: str) -> None:
        """Let a stage and all after it be done anew; their files are removed.

        Raises:
            ConfigError: there is no such stage.
        """
        if stage not in STAGES:
            raise ConfigError(f"--from-stage {stage!r} is none of {', '.join(STAGES)}")
        self.note("forget", stage=stage)
        for later in _from(stage):
            for name in STAGES[later]:
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def _apply(self, line: dict[str, Any]) -> None:
        if line["step"] == "forget":
            gone = _from(line["stage"])
            self._steps = {s: f for s, f in self._steps.items() if s.split(":")[0] not in gone}
        else:
            self._steps[line["step"]] = line


def new_run_id(as_of: datetime, started_at: datetime) -> str:
    """A name that sorts by `as_of`, then by start."""
    return f"{as_of:%Y%m%dT%H%M}-{started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def settings_digest(config: Config) -> str:
    """What decides, beside the rows, what a run writes; not the passwords of its sources.

    Nor how many processes score: a run that memory did not suffice for goes on with fewer.
    """
    decisive = config.model_dump(
        mode="json", exclude={"sources": {"attach"}, "scoring": {"processes"}}
    )
    text = json.dumps(decisive, sort_keys=True) + version("nightrank")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unfinished(home: Path) -> list[Ledger]:
    """Runs that have begun and not published, in the order of their start."""
    ledgers = [Ledger(path.parent) for path in (home / "runs").glob(f"*/{LEDGER}")]
    begun = [ledger for ledger in ledgers if START in ledger and not is_published(home, ledger)]
    return sorted(begun, key=lambda ledger: str(ledger[START]["started_at"]))


def to_resume(home: Path, run_id: str | None, config: Config) -> Ledger:
    """The run to go on with: the one named, else the newest, if it began after the current night.

    An older one is not chosen by itself: it would take the place of a night that is newer.

    Raises:
        InputMissing: there is no such run.
        NothingToDo: it is published, or there is none to go on with.
        ConfigError: it was started with another configuration or version of nightrank.
    """
    if run_id is None:
        ledger = _newest(home)
    else:
        ledger = Ledger(home / "runs" / run_id)
        if START not in ledger:
            known = ", ".join(found.run_id for found in unfinished(home)) or "none"
            raise InputMissing(f"{home} has no run {run_id}; unfinished: {known}")
    if is_published(home, ledger):
        raise NothingToDo(f"{ledger.run_id} is published")
    if ledger[START]["settings"] != settings_digest(config):
        raise ConfigError(
            f"{ledger.run_id} was started with another configuration or version of nightrank: "
            "give it the same, or start a new run, which finds the vectors of this one"
        )
    return ledger


def _newest(home: Path) -> Ledger:
    open_runs = unfinished(home)
    current = current_run(home)
    if current and START in current:
        since = current[START]["started_at"]
        open_runs = [ledger for ledger in open_runs if ledger[START]["started_at"] > since]
    if not open_runs:
        raise NothingToDo(
            f"{home} has no unfinished run that is newer than the current night; "
            "`nightrank status` lists older ones, which can be named"
        )
    return open_runs[-1]


def is_published(home: Path, ledger: Ledger) -> bool:
    """Whether a run has published; it may have been killed before it could note that."""
    return "publish" in ledger or _current_id(home) == ledger.run_id


def current_run(home: Path) -> Ledger | None:
    """The run of the night that readers see; empty where its folder is gone.

    Raises:
        ResourceError: its ledger is damaged.
    """
    run_id = _current_id(home)
    return Ledger(home / "runs" / run_id) if run_id else None


def _current_id(home: Path) -> str | None:
    link = home / CURRENT
    return link.resolve().stem.removeprefix("scores-") if link.exists() else None


def write_parquet(frame: pl.DataFrame, path: Path) -> Path:
    """Write a file by one rename; its name never stands for a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.building")
    frame.write_parquet(building)
    with building.open("rb") as file:
        os.fsync(file.fileno())
    building.replace(path)
    return path


def _unsealed(line: bytes) -> dict[str, Any]:
    """What was written of a step.

    Raises:
        ValueError: it is not that.
    """
    written: dict[str, Any] = json.loads(line)
    if written.pop(_SEAL, None) != checksum(written):
        raise ValueError("it is not the line that was written")
    return written


def _from(stage: str) -> Iterable[str]:
    names = list(STAGES)
    return names[names.index(stage) :]
