"""`nightrank erase`: a tombstone first, then every file, then a certificate."""

import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from embed import keep_only
from jobs import morning, nights
from jobs.console import log
from jobs.erasing.kept import erase_from_models, erase_from_pages, erase_from_runs
from jobs.erasing.lists import erase_from_feedback, erase_from_lists, lists_of, names_of
from jobs.erasing.nights import erase_from_nights
from jobs.erasing.person import Person, Removed, total
from jobs.erasing.tombstones import FILE, Tombstones, lay
from jobs.errors import NightrankError
from jobs.ingest import read_inputs
from jobs.manifest import Damaged
from jobs.metrics_file import FILE as METRICS
from jobs.nightly import Night
from jobs.session import LOCK
from jobs.vectors import texts_of

KINDS = ("runs", "lists", "feedback", "models", "pages", "nights", "vectors")
# All that is written below a home; what else lies there is named in the certificate.
OURS = (
    "cache", "encoders", "models", "runs", "campaigns", "feedback", "reports", "tune", "scores-*",
    "current*", nights.PAGE, LOCK, METRICS, FILE,
)  # fmt: skip
# Every row of the sources, whenever it is of.
_EVER = datetime(9999, 12, 31)


def erase(night: Night, user_id: str) -> dict[str, Any]:
    """Remove a person from all that is kept, and from all that is ever read again.

    Every step can be done again: after a crash, erasing again does the rest.

    Args:
        night: whose home, configuration and sources; only for who holds the home's lock.
        user_id: as text, exactly as the sources have it.

    Returns:
        The certificate.

    Raises:
        Damaged: a file is not the one that was written, so nobody can be taken out of it.
        NightrankError: the sources cannot be read; all but the vectors is done.
    """
    home = night.home
    tombstone, user = lay(home, [], user_id=user_id, at=night.started_at)
    try:
        names = names_of(home, night.config, user_id)
        lay(home, names, user_id=user_id, at=night.started_at)
        _sweep(home)
        person = Person(names)
        note = {"tombstone": tombstone, "at": night.started_at.isoformat(timespec="seconds")}
        removed = erase_from_runs(home, person)
        removed += erase_from_lists(home, person, note=note)
        lists = lists_of(home, removed)
        removed += erase_from_feedback(home, person)
        removed += erase_from_models(home, person)
        removed += erase_from_pages(home, person)
        removed += erase_from_nights(home, person, note=note)
        if current := nights.current(home):
            morning.try_current(current)  # of the tables as they are now
        removed += _erase_vectors(night)
    except Damaged as error:
        raise Damaged(
            f"{error}. Nobody can be taken out of it: remove it with its manifest (a night that is "
            "current after `nightrank rollback`), then erase again, which does the rest"
        ) from error
    log.info("erased", tombstone=tombstone, **total(removed))
    return _certificate(night, tombstone, user, removed, lists)


def _sweep(home: Path) -> None:
    """Remove what was being written when a run was killed."""
    nights.sweep(home)
    for folder in ("runs", "models", "campaigns", "feedback"):
        for path in (home / folder).rglob(".*.building"):
            path.unlink()


def _erase_vectors(night: Night) -> list[Removed]:
    """Keep the vectors of the texts that the sources have now, without the erased; no others.

    So the vectors of texts go that the person has edited since, or that are no longer in the
    sources; those of a text that somebody else wrote, too, stay.
    """
    cache = night.home / "cache"
    if not any(cache.glob("*/*")):
        return []
    try:
        erased = Tombstones.of(night.home)
        inputs = read_inputs(night.config, as_of=_EVER, root=night.root, erased=erased)
    except NightrankError as error:
        raise type(error)(
            "all but vectors of texts is erased; which are of others only the sources tell: mend "
            f"them and erase again: {error}"
        ) from None
    texts = [text for of_source in texts_of(inputs, night.config).values() for text in of_source]
    rows = keep_only(cache, texts)
    return [Removed("vectors", "cache", rows)] if rows else []


def _certificate(
    night: Night, tombstone: str, user: str, removed: list[Removed], lists: list[dict[str, Any]]
) -> dict[str, Any]:
    """What was done, sealed by the SHA-256 of its own JSON with sorted keys."""
    ours = {path for pattern in OURS for path in night.home.glob(pattern)}
    content = {
        "certificate": "erasure",
        "name": night.config.name,
        "nightrank": version("nightrank"),
        "tombstone": tombstone,
        "user_digest": user,
        "started_at": night.started_at.isoformat(timespec="seconds"),
        "finished_at": datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds"),
        "rows": dict.fromkeys(KINDS, 0) | dict(total(removed)),
        "removed": [one._asdict() for one in removed],
        "lists": lists,
        "not_ours": sorted(path.name for path in night.home.iterdir() if path not in ours),
    }
    text = json.dumps(content, sort_keys=True)
    return content | {"sha256": hashlib.sha256(text.encode()).hexdigest()}
