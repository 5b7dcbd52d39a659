"""Search over rows of a matrix, by FAISS and with the caller's ids, saved and loaded as one."""

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
from index.rows import ROWS_PER_BLOCK, blocks

Ids = NDArray[np.int32]
Vectors = NDArray[np.float32]

# Queries are searched in blocks whose proposals hold about so many numbers, and of at least so
# many queries: fewer make the matrix product slower.
CELLS_PER_BLOCK = 2**23
LEAST_QUERIES = 1024
# What is searched through is given to FAISS in blocks of so many numbers.
NUMBERS_PER_BLOCK = 2**24
_BELOW_SIGN = np.int32(2**31 - 1)


class DamagedIndex(Exception):
    """A saved index does not match the checksums written beside it."""


@dataclass(frozen=True)
class VectorIndex:
    """Inner-product search over unit vectors, answering with the caller's ids.

    FAISS proposes rows; their similarities are then computed pair by pair from the vectors, so that
    a similarity depends on the two vectors alone: on no other query of the call, no number of
    threads and no kind of search. Best first, and among equals the smaller id. Which of several
    that equal the last one are found, FAISS decides. Exact search is by bytes where that is faster,
    see `index.int8`, with the same answers; there the smaller ids are found.

    The vectors are the caller's own, not a copy: nothing may be written to them.

    Attributes:
        ids: (n,) the id of each indexed row.
        rows: (n,) where its vector is.
        vectors: (m, d) float32; those of other rows are not looked at.
        proposing: the FAISS index that proposes, of the n rows; None: all are searched through.
        choice: of which kind that is, and how hard it searches.
        on_device: a copy of what proposes, on GPUs.
    """

    ids: Ids
    rows: NDArray[np.int64]
    vectors: Vectors
    proposing: Any = None
    choice: Choice = EXACT
    on_device: Any = None

    @classmethod
    def build(
        cls, ids: Ids, vectors: Vectors, chosen: NDArray[np.bool_] | None = None
    ) -> "VectorIndex":
        """Index the chosen rows that are not zero: a zero row means "no text".

        The search is exact; see `index.choice` for large corpora.

        Args:
            ids: (m,) the id of each row.
            vectors: (m, d).
            chosen: (m,) whether a row takes part; None: all do.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        present = vectors.any(axis=1)
        rows = np.flatnonzero(present if chosen is None else present & chosen)
        return cls(np.asarray(ids, dtype=np.int32)[rows], rows, vectors)

    def __post_init__(self) -> None:
        if self.proposing is not None:
            kinds.search_with(self.proposing, self.choice)

    def __len__(self) -> int:
        return len(self.ids)

    def on_best_device(self) -> "VectorIndex":
        """The same index, whose proposals come from all GPUs where faiss-gpu finds one.

        Exact search and `ivf` move there; FAISS has the other kinds on the CPU only.
        """
        faiss = import_faiss()
        if getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
            return self
        if self.choice.kind not in ("exact", "ivf"):
            return self
        proposing = self.proposing or self._flat()
        return replace(self, on_device=faiss.index_cpu_to_all_gpus(proposing))

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
        left = np.flatnonzero(np.isfinite(queries).all(axis=1) & queries.any(axis=1))
        if k == 0:
            return ids, similarities
        in_bytes = self._in_bytes(k)
        if in_bytes is not None:
            incomplete = [left[:0]]
            for rows, asked in _blocks(queries, left, int8.BLOCK):
                places, complete = in_bytes.nearest(asked, k, self._similarities)
                ids[rows], similarities[rows] = self._best(asked, places, k)
                incomplete.append(rows[~complete])
            left = np.concatenate(incomplete)
        size = max(CELLS_PER_BLOCK // kinds.proposed(self.choice, k), LEAST_QUERIES)
        for rows, asked in _blocks(queries, left, size):
            ids[rows], similarities[rows] = self._best(asked, self._proposed(asked, k), k)
        return ids, similarities

    def _proposed(self, asked: Vectors, k: int) -> NDArray[np.int64]:
        """(q, p) places among the indexed rows, p >= k."""
        p = min(kinds.proposed(self.choice, k), len(self))
        proposing = self.on_device or self.proposing
        if proposing is None:
            return self._nearest_of_all(asked, p)
        found: NDArray[np.int64] = proposing.search(asked, p)[1]
        return found

    def _nearest_of_all(self, asked: Vectors, k: int) -> NDArray[np.int64]:
        """Likewise, by FAISS's exact search, which is given block after block of the vectors."""
        faiss = import_faiss()
        inner = faiss.METRIC_INNER_PRODUCT
        if len(self) == len(self.vectors):
            found: NDArray[np.int64] = faiss.knn(asked, self.vectors, k, inner)[1]
            return found
        best = faiss.ResultHeap(len(asked), k, keep_max=True)
        size = max(NUMBERS_PER_BLOCK // self.vectors.shape[1], k)
        room = np.empty((min(size, len(self)), self.vectors.shape[1]), dtype=np.float32)
        for part in blocks(len(self), size):
            rows = self.rows[part]
            block = np.take(self.vectors, rows, axis=0, out=room[: len(rows)], mode="clip")
            similarities, places = faiss.knn(asked, block, min(k, len(block)), inner)
            best.add_result(similarities, places + part.start)
        best.finalize()
        found = best.I
        return found

    def _in_bytes(self, k: int) -> Int8Vectors | None:
        """What answers queries by bytes; None where floats are faster."""
        exact = self.choice.kind == "exact" and self.on_device is None
        serves = exact and int8.serves(len(self), k) and int8.is_fast()
        return self._int8 if serves else None

    @cached_property
    def _int8(self) -> Int8Vectors:
        return Int8Vectors.of(self.vectors, self.rows)

    def _best(self, asked: Vectors, places: NDArray[np.int64], k: int) -> tuple[Ids, Vectors]:
        """The `k` nearest among the indexed rows (q, p) that were proposed, p >= k."""
        similarities = self._similarities(asked, places)
        found = np.where(places >= 0, self.ids[places], -1)
        keys = np.sort(np.partition(_key(similarities, found), k - 1, axis=1)[:, :k], axis=1)
        return _unkeyed(keys)

    def _similarities(self, asked: Vectors, places: NDArray[np.int64]) -> Vectors:
        """(q, p): inner product of each query with the vectors at its places; -inf where -1."""
        faiss = import_faiss()
        rows = np.where(places >= 0, self.rows[places], -1)
        found = np.empty(rows.shape, dtype=np.float32)
        to, of, vectors, at = map(faiss.swig_ptr, (found, asked, self.vectors, rows))
        faiss.fvec_inner_products_by_idx(to, of, vectors, at, self.vectors.shape[1], *rows.shape)
        return found

    def _flat(self) -> Any:
        """FAISS's index of the vectors; row r holds the one of `ids[r]`."""
        flat = import_faiss().IndexFlatIP(self.vectors.shape[1])
        for part in blocks(len(self), ROWS_PER_BLOCK):
            flat.add(self.vectors[self.rows[part]])
        return flat

    def save(self, folder: Path) -> None:
        """Write the index, its ids and a manifest of SHA-256 checksums into `folder`."""
        faiss = import_faiss()
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self._flat(), str(folder / "vectors.faiss"))
        if self.proposing is not None:
            kinds.write(self.proposing, folder / "proposing.faiss")
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
        faiss = import_faiss()
        told = json.loads((folder / "choice.json").read_text())
        choice = Choice(**{**told, "refused": tuple(told["refused"])})
        flat = faiss.read_index(str(folder / "vectors.faiss"), faiss.IO_FLAG_MMAP_IFC)
        return cls(
            ids=np.load(folder / "ids.npy", allow_pickle=False),
            rows=np.arange(flat.ntotal),
            vectors=flat.reconstruct_n(0, flat.ntotal),
            proposing=None if choice.kind == "exact" else kinds.read(folder / "proposing.faiss"),
            choice=choice,
        )


def _blocks(
    queries: Vectors, rows: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Some rows of queries, a block at a time, with what they ask."""
    for part in blocks(len(rows), size):
        yield rows[part], np.ascontiguousarray(queries[rows[part]], dtype=np.float32)


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
