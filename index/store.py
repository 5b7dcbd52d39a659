"""FAISS indexes together with the ids and vectors of their rows, saved and loaded as one."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index import int8, kinds
from index.int8 import Int8Vectors
from index.kinds import EXACT, Choice
from index.library import import_faiss

Ids = NDArray[np.int32]
Vectors = NDArray[np.float32]

# Queries are searched in blocks whose proposals hold about so many numbers, and of at least so
# many queries: fewer make the matrix product slower.
CELLS_PER_BLOCK = 2**23
LEAST_QUERIES = 1024
_BELOW_SIGN = np.int32(2**31 - 1)


class DamagedIndex(Exception):
    """A saved index does not match the checksums written beside it."""


@dataclass(frozen=True)
class VectorIndex:
    """Inner-product search over unit vectors, answering with the caller's ids.

    One FAISS index proposes rows; their similarities are then computed pair by pair from the
    vectors, so that a similarity depends on the two vectors alone: on no other query of the call,
    no number of threads and no kind of search. Best first, and among equals the smaller id. Which
    of several that equal the last one are found, FAISS decides. Exact search is by bytes where
    that is faster, see `index.int8`, with the same answers; there the smaller ids are found.

    Attributes:
        ids: (n,) the id of each indexed row.
        flat: FAISS's IndexFlatIP; row r holds the vector of `ids[r]`.
        proposing: the FAISS index that proposes, of the same rows; None: `flat` itself.
        choice: of which kind that is, and how hard it searches.
        on_device: a copy of what proposes, on GPUs.
    """

    ids: Ids
    flat: Any
    proposing: Any = None
    choice: Choice = EXACT
    on_device: Any = None

    @classmethod
    def build(cls, ids: Ids, vectors: Vectors) -> "VectorIndex":
        """Index those rows of `vectors` (n, d) that are not zero: a zero row means "no text".

        The search is exact; see `index.choice` for large corpora.
        """
        present = vectors.any(axis=1)
        flat = import_faiss().IndexFlatIP(vectors.shape[1])
        flat.add(np.ascontiguousarray(vectors[present], dtype=np.float32))
        return cls(ids=np.asarray(ids, dtype=np.int32)[present], flat=flat)

    def __post_init__(self) -> None:
        if self.proposing is not None:
            kinds.search_with(self.proposing, self.choice)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def vectors(self) -> Vectors:
        """(n, d): the indexed vectors; read them, and only while the index is there."""
        shape = (self.flat.ntotal, self.flat.d)
        found: Vectors = import_faiss().rev_swig_ptr(self.flat.get_xb(), shape[0] * shape[1])
        return found.reshape(shape)

    def on_best_device(self) -> "VectorIndex":
        """The same index, whose proposals come from all GPUs where faiss-gpu finds one.

        Exact search and `ivf` move there; FAISS has the other kinds on the CPU only.
        """
        faiss = import_faiss()
        if getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
            return self
        if self.choice.kind not in ("exact", "ivf"):
            return self
        return replace(self, on_device=faiss.index_cpu_to_all_gpus(self.proposing or self.flat))

    def search(self, queries: Vectors, k: int) -> tuple[Ids, Vectors]:
        """The `k` nearest ids of each query and their similarities, best first.

        Args:
            queries: (q, d) float32. A zero or non-finite query finds nothing.
            k: how many neighbours; never more than the index holds.

        Returns:
            ids (q, k') and similarities (q, k') with k' = min(k, len(self)). Places that hold
            no neighbour have id -1 and similarity -inf.
        """
        k = min(k, len(self))
        ids = np.full((len(queries), k), -1, dtype=np.int32)
        similarities = np.full((len(queries), k), -np.inf, dtype=np.float32)
        askable = np.flatnonzero(np.isfinite(queries).all(axis=1) & queries.any(axis=1))
        if k > 0:
            for rows in self._blocks(askable, k):
                asked = np.ascontiguousarray(queries[rows], dtype=np.float32)
                ids[rows], similarities[rows] = self._nearest(asked, k)
        return ids, similarities

    def _blocks(self, rows: NDArray[np.int64], k: int) -> Iterator[NDArray[np.int64]]:
        size = max(CELLS_PER_BLOCK // kinds.proposed(self.choice, k), LEAST_QUERIES)
        if self._in_bytes(k) is not None:
            size = int8.BLOCK
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def _nearest(self, asked: Vectors, k: int) -> tuple[Ids, Vectors]:
        """Likewise, of queries (q, d) that all have a direction."""
        in_bytes = self._in_bytes(k)
        if in_bytes is None:
            return self._best(asked, self._proposed(asked, k), k)
        rows, complete = in_bytes.nearest(asked, k, self._similarities)
        ids, similarities = self._best(asked, rows, k)
        others = asked[~complete]
        if len(others):
            found = self._best(others, self._proposed(others, k), k)
            ids[~complete], similarities[~complete] = found
        return ids, similarities

    def _proposed(self, asked: Vectors, k: int) -> NDArray[np.int64]:
        proposing = self.on_device or self.proposing or self.flat
        rows: NDArray[np.int64] = proposing.search(
            asked, min(kinds.proposed(self.choice, k), len(self))
        )[1]
        return rows

    def _in_bytes(self, k: int) -> Int8Vectors | None:
        """What answers queries by bytes; None where floats are faster."""
        exact = self.choice.kind == "exact" and self.on_device is None
        serves = exact and int8.serves(len(self), k) and int8.is_fast()
        return self._int8 if serves else None

    @cached_property
    def _int8(self) -> Int8Vectors:
        return Int8Vectors.of(self.vectors)

    def _best(self, asked: Vectors, rows: NDArray[np.int64], k: int) -> tuple[Ids, Vectors]:
        """The `k` nearest among the rows (q, p) that were proposed, p >= k."""
        similarities = self._similarities(asked, rows)
        found = np.where(rows >= 0, self.ids[rows], -1)
        keys = np.sort(np.partition(_key(similarities, found), k - 1, axis=1)[:, :k], axis=1)
        return _unkeyed(keys)

    def _similarities(self, asked: Vectors, rows: NDArray[np.int64]) -> Vectors:
        """(q, p): inner product of each query with the vectors of its rows; -inf where -1."""
        faiss = import_faiss()
        found = np.empty(rows.shape, dtype=np.float32)
        to, of, at = (faiss.swig_ptr(array) for array in (found, asked, rows))
        vectors, dimension = self.flat.get_xb(), self.flat.d
        faiss.fvec_inner_products_by_idx(to, of, vectors, at, dimension, *rows.shape)
        return found

    def save(self, folder: Path) -> None:
        """Write the index, its ids and a manifest of SHA-256 checksums into `folder`."""
        faiss = import_faiss()
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self.flat, str(folder / "vectors.faiss"))
        if self.proposing is not None:
            faiss.write_index(self.proposing, str(folder / "proposing.faiss"))
        np.save(folder / "ids.npy", self.ids)
        (folder / "choice.json").write_text(json.dumps(self.choice._asdict(), indent=2))
        manifest = {name: _sha256(folder / name) for name in _files(self.choice)}
        (folder / "manifest.json").write_text(json.dumps({"sha256": manifest}, indent=2))

    @classmethod
    def load(cls, folder: Path) -> "VectorIndex":
        """Read what `save` wrote.

        Raises:
            DamagedIndex: a file is missing or differs from its checksum.
        """
        _check(folder)
        return cls._read(folder)

    @classmethod
    def mapped(cls, folder: Path) -> "VectorIndex":
        """As `load`, with the vectors left on disk: processes that read them share the memory.

        Files are not compared with their checksums, which would read all of them.
        """
        return cls._read(folder, import_faiss().IO_FLAG_MMAP_IFC)

    @classmethod
    def _read(cls, folder: Path, *how: int) -> "VectorIndex":
        read = import_faiss().read_index
        told = json.loads((folder / "choice.json").read_text())
        choice = Choice(**{**told, "refused": tuple(told["refused"])})
        return cls(
            ids=np.load(folder / "ids.npy", allow_pickle=False),
            flat=read(str(folder / "vectors.faiss"), *how),
            proposing=None if choice.kind == "exact" else read(str(folder / "proposing.faiss")),
            choice=choice,
        )


def _key(similarities: Vectors, ids: Ids) -> NDArray[np.int64]:
    """Whole numbers that stand in the order of answers: best first, then the smaller id.

    A float's bits grow with it where it is positive, and fall where it is negative.
    """
    bits = (similarities + np.float32(0)).view(np.int32)
    descending = ~(bits ^ ((bits >> 31) & _BELOW_SIGN))
    return descending.astype(np.int64) << 32 | ids.view(np.uint32)


def _unkeyed(keys: NDArray[np.int64]) -> tuple[Ids, Vectors]:
    """The ids and similarities that `_key` was given."""
    ids = keys.astype(np.uint32).view(np.int32)
    ascending = ~(keys >> 32).astype(np.int32)
    return ids, (ascending ^ ((ascending >> 31) & _BELOW_SIGN)).view(np.float32)


def _files(choice: Choice) -> list[str]:
    proposing = [] if choice.kind == "exact" else ["proposing.faiss"]
    return ["vectors.faiss", *proposing, "ids.npy", "choice.json"]


def _check(folder: Path) -> None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())["sha256"]
        damaged = [name for name, digest in manifest.items() if _sha256(folder / name) != digest]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DamagedIndex(f"{folder} holds no complete index: {error}") from error
    if not {*_files(EXACT)} <= {*manifest}:
        raise DamagedIndex(f"{folder} holds no complete index: {sorted(manifest)} is all it names")
    if damaged:
        raise DamagedIndex(
            f"{', '.join(str(folder / name) for name in damaged)}: checksum differs from "
            f"the manifest; delete {folder} and run again to rebuild it"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
