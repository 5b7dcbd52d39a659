"""Vectors kept by content: a text is encoded once for each encoder, whatever night it comes in."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.encoder import Encoder

log = logging.getLogger(__name__)

_UNFINISHED = ".new-"
_UNREADABLE = (FileNotFoundError, ValueError, LookupError, TypeError)
_ABANDONED = 3600.0  # seconds after which an unfinished shard has no living writer


class DamagedShard(Exception):
    """A shard whose files are not those that were written."""


@dataclass(frozen=True)
class EmbeddedTexts:
    """Vectors of texts, and what they cost.

    Attributes:
        vectors: float32, one row for each text in its order; zeros where the text is empty.
        encoded: distinct texts encoded now.
        cached: distinct texts whose vectors were there already.
        empty: texts with nothing but white space, each occurrence counted.
    """

    vectors: NDArray[np.float32]
    encoded: int
    cached: int
    empty: int


class VectorCache:
    """Vectors on disk under ``folder/<fingerprint>``, found by the hash of their text.

    It only grows, by shards: a folder with ``hashes.npy`` (16-byte BLAKE2b of each text),
    ``vectors.npy`` (float32, mapped into memory) and ``manifest.json`` (SHA-256 of both). A shard
    appears by one rename, so a killed process leaves none by halves. Opening compares every file
    with its manifest: a damaged shard is removed with a warning (only if `writable`, else nothing
    is touched), and its texts count as never seen. Several processes may add at once; each sees
    its own shards and those it found on opening. The time of a shard's folder is when a vector of
    it was last taken.
    """

    def __init__(
        self, folder: Path, *, fingerprint: str, dimension: int, writable: bool = True
    ) -> None:
        self.fingerprint = fingerprint
        self.dimension = dimension
        self._folder = folder / fingerprint
        self._writable = writable
        if writable:
            self._folder.mkdir(parents=True, exist_ok=True)
            _sweep(self._folder)
        self._open_all()

    def _open_all(self) -> None:
        self._hashes: list[NDArray[np.bytes_]] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._shards: list[Path] = []
        self._starts = [0]  # position of the first vector of each shard, and of the next one
        self._index: tuple[NDArray[np.bytes_], NDArray[np.int64]] | None = None
        for path in sorted(self._folder.glob("[0-9]*-*")):
            try:
                self._open(path)
            except DamagedShard as error:
                if self._writable:
                    log.warning("Removed a damaged shard of the vector cache: %s", error)
                    shutil.rmtree(path, ignore_errors=True)

    def __len__(self) -> int:
        return self._starts[-1]

    def find(self, hashes: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Position in the cache of each hash (see `hash_texts`), -1 where it is not there."""
        if not len(self):
            return np.full(len(hashes), -1, dtype=np.int64)
        if self._index is None:
            known = np.concatenate(self._hashes)
            order = np.argsort(known, kind="stable")
            self._index = known[order], order
        known, order = self._index
        place = np.searchsorted(known, hashes).clip(max=len(known) - 1)
        return np.where(known[place] == hashes, order[place], -1)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors at the positions that `find` gave, one row for each; zeros at -1."""
        out = np.zeros((len(positions), self.dimension), dtype=np.float32)
        order = np.argsort(positions, kind="stable")
        cuts = np.searchsorted(positions[order], self._starts)
        for shard, vectors in enumerate(self._vectors):
            rows = order[cuts[shard] : cuts[shard + 1]]
            out[rows] = vectors[positions[rows] - self._starts[shard]]
            if len(rows):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile, still mapped
                    os.utime(self._shards[shard])
        return out

    def add(self, hashes: NDArray[np.bytes_], vectors: NDArray[np.float32]) -> None:
        """Write one shard: the hashes of texts that are not there yet, and their vectors."""
        wanted = (len(hashes), self.dimension)
        if vectors.shape != wanted or vectors.dtype != np.float32:
            raise ValueError(
                f"The cache takes float32 vectors of shape {wanted}, not {vectors.dtype} of shape "
                f"{vectors.shape}."
            )
        name = _name_shard(f"{len(self._vectors):06d}")
        _add_shard(self._folder / name, hashes, vectors)
        self._open(self._folder / name)

    def forget(self, texts: Sequence[str]) -> int:
        """Remove the vectors of some texts, so that they are encoded anew; how many there were.

        Nothing else may write meanwhile.
        """
        gone = hash_texts(texts)
        removed = _sift(self._shards, lambda hashes: ~np.isin(hashes, gone))
        self._open_all()
        return removed

    def set_apart(self, texts: Sequence[str]) -> int:
        """Move vectors of all but some texts out of the shards that hold both; how many moved.

        They get a shard of their own, which then grows old while the others are used. It is there
        before they go: a process killed in between leaves some vectors twice. Nothing else may
        write meanwhile.
        """
        used = hash_texts(texts)
        stays = [np.isin(hashes, used) for hashes in self._hashes]
        mixed = [n for n, kept in enumerate(stays) if kept.any() and not kept.all()]
        if not mixed:
            return 0
        hashes = np.concatenate([self._hashes[n][~stays[n]] for n in mixed])
        vectors = np.concatenate([self._vectors[n][~stays[n]] for n in mixed])
        _add_shard(self._folder / _name_shard(f"{len(self._vectors):06d}"), hashes, vectors)
        _sift([self._shards[n] for n in mixed], lambda found: np.isin(found, used))
        self._open_all()
        return len(hashes)

    def _open(self, path: Path) -> None:
        try:
            hashes, vectors = _read_shard(path)
        except _UNREADABLE as error:
            raise DamagedShard(f"{path}: {error}") from error
        if vectors.shape != (len(hashes), self.dimension):
            raise DamagedShard(f"{path}: {len(hashes)} hashes, but vectors {vectors.shape}")
        self._hashes.append(hashes)
        self._vectors.append(vectors)
        self._shards.append(path)
        self._starts.append(len(self) + len(hashes))
        self._index = None


def embed_texts(
    texts: Sequence[str],
    *,
    encoder: Encoder,
    cache: VectorCache,
    chunk: int = 2048,
    on_progress: Callable[[int], None] | None = None,
) -> EmbeddedTexts:
    """Vectors of `texts`, encoding only those that `cache` does not hold yet.

    Equal texts are encoded once. New ones are encoded and committed by `chunk`, the longest
    first, so that memory which does not suffice shows at once and a killed process loses at most
    one chunk. The vectors come out of the cache, so a later call gives the same bits.

    Args:
        texts: cleaned texts (see `clean_text`).
        encoder: what encodes the new texts.
        cache: where the vectors are kept; it must be of the encoder's fingerprint.
        chunk: texts encoded between two commits.
        on_progress: told after each commit how many texts it held.

    Raises:
        ValueError: if the cache holds vectors of another encoder.
        UnicodeEncodeError: if a text holds a lone surrogate, which cleaning drops.
    """
    if cache.fingerprint != encoder.fingerprint:
        raise ValueError(
            f"The cache holds vectors of the encoder {cache.fingerprint}, not of "
            f"{encoder.fingerprint}; open it with the encoder's own fingerprint."
        )
    filled = [row for row, text in enumerate(texts) if text.strip()]
    number = {text: i for i, text in enumerate(dict.fromkeys(texts[row] for row in filled))}
    distinct = list(number)
    hashes = hash_texts(distinct)
    new = np.flatnonzero(cache.find(hashes) < 0)
    new = new[np.argsort([-len(distinct[i]) for i in new], kind="stable")]
    for start in range(0, len(new), chunk):
        part = new[start : start + chunk]
        cache.add(hashes[part], encoder.encode([distinct[i] for i in part]))
        if on_progress is not None:
            on_progress(len(part))
    positions = np.full(len(texts), -1, dtype=np.int64)
    positions[filled] = cache.find(hashes)[[number[texts[row]] for row in filled]]
    return EmbeddedTexts(
        vectors=cache.take(positions),
        encoded=len(new),
        cached=len(distinct) - len(new),
        empty=len(texts) - len(filled),
    )


def count_new(texts: Sequence[str], *, cache: VectorCache) -> int:
    """How many distinct texts `embed_texts` would encode now."""
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    return int(np.count_nonzero(cache.find(hash_texts(distinct)) < 0))


def keep_only(folder: Path, texts: Sequence[str]) -> int:
    """Remove the vectors of all other texts, whatever their encoder, from every shard.

    A shard is replaced by one that has what is left, and is gone only when that is there. Damaged
    and unfinished shards go: what is in them is not known. Nothing else may write meanwhile.

    Args:
        folder: of the caches, as for `VectorCache`.
        texts: cleaned texts whose vectors stay.

    Returns:
        Vectors removed.
    """
    for path in folder.glob(f"*/{_UNFINISHED}*"):
        shutil.rmtree(path)
    wanted = hash_texts(list(dict.fromkeys(texts)))
    return _sift(sorted(folder.glob("*/[0-9]*-*")), lambda hashes: np.isin(hashes, wanted))


def _sift(
    shards: Sequence[Path], staying: Callable[[NDArray[np.bytes_]], NDArray[np.bool_]]
) -> int:
    """Replace shards by what stays of them, and remove damaged ones; vectors removed."""
    removed = 0
    for path in shards:
        try:
            hashes, vectors = _read_shard(path)
        except _UNREADABLE:
            shutil.rmtree(path)
            continue
        stays = staying(hashes)
        if stays.all():
            continue
        if stays.any():
            _renew_shard(path, hashes[stays], np.asarray(vectors[stays]))
        shutil.rmtree(path)
        removed += int(np.count_nonzero(~stays))
    return removed


def hash_texts(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """The 16-byte BLAKE2b digest of each text, by which the cache knows it."""
    digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    return np.array(digests, dtype="S16")


def _name_shard(number: str) -> str:
    return f"{number}-{uuid.uuid4().hex[:8]}"


def _renew_shard(old: Path, hashes: NDArray[np.bytes_], vectors: NDArray[np.float32]) -> None:
    """Add a shard of the old one's number, last used when that was."""
    new = old.with_name(_name_shard(old.name.split("-")[0]))
    used = old.stat()
    _add_shard(new, hashes, vectors)
    os.utime(new, ns=(used.st_atime_ns, used.st_mtime_ns))


def _add_shard(path: Path, hashes: NDArray[np.bytes_], vectors: NDArray[np.float32]) -> None:
    """Write a shard that appears by one rename."""
    unfinished = path.with_name(f"{_UNFINISHED}{path.name}")
    try:
        _write_shard(unfinished, hashes, vectors)
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync(path.parent)


def _write_shard(folder: Path, hashes: NDArray[np.bytes_], vectors: NDArray[np.float32]) -> None:
    folder.mkdir()
    np.save(folder / "hashes.npy", hashes)
    np.save(folder / "vectors.npy", vectors)
    digests = {name: _sha256(folder / name) for name in ("hashes.npy", "vectors.npy")}
    (folder / "manifest.json").write_text(json.dumps({"sha256": digests}, indent=2))
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _read_shard(folder: Path) -> tuple[NDArray[np.bytes_], NDArray[np.float32]]:
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("hashes.npy", "vectors.npy"):
        found, wanted = _sha256(folder / name), manifest["sha256"][name]
        if found != wanted:
            raise ValueError(f"{name} has SHA-256 {found}, its manifest says {wanted}")
    return np.load(folder / "hashes.npy"), np.load(folder / "vectors.npy", mmap_mode="r")


def _sweep(folder: Path) -> None:
    """Remove what killed writers left; a young one may still be at work in another process."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # finished meanwhile
            if time.time() - path.stat().st_mtime > _ABANDONED:
                shutil.rmtree(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Make sure a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
