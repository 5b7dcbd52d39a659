"""A FAISS index together with the ids of its rows, saved and loaded as one."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Vectors = NDArray[np.float32]

_FILES = ("index.faiss", "ids.npy")


class DamagedIndex(Exception):
    """A saved index does not match the checksums written beside it."""


class ConflictingFaiss(Exception):
    """faiss-cpu and faiss-gpu are both installed and have overwritten each other."""


@cache
def import_faiss() -> Any:
    """The faiss module, refused when two of its packages lie over each other."""
    installed = {d.metadata["Name"].lower() for d in metadata.distributions() if d.metadata["Name"]}
    both = sorted(n for n in installed if n.startswith("faiss-cpu") or n.startswith("faiss-gpu"))
    if len(both) > 1:
        raise ConflictingFaiss(
            f"{' and '.join(both)} are both installed and overwrite each other's files: "
            f"pip uninstall {' '.join(both)}, then install one of the extras cpu or gpu"
        )
    import faiss

    return faiss


@dataclass(frozen=True)
class VectorIndex:
    """Exact inner-product search over unit vectors, answering with the caller's ids.

    Attributes:
        ids: (n,) the id of each indexed row.
        faiss_index: the FAISS index; row r holds the vector of `ids[r]`.
    """

    ids: Ids
    faiss_index: Any

    @classmethod
    def build(cls, ids: Ids, vectors: Vectors) -> "VectorIndex":
        """Index those rows of `vectors` (n, d) that are not zero: a zero row means "no text"."""
        faiss = import_faiss()
        present = vectors.any(axis=1)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors[present], dtype=np.float32))
        return cls(ids=np.asarray(ids, dtype=np.int32)[present], faiss_index=index)

    def __len__(self) -> int:
        return len(self.ids)

    def on_best_device(self) -> "VectorIndex":
        """The same index on all GPUs where faiss-gpu finds one, else unchanged."""
        faiss = import_faiss()
        if getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
            return self
        return VectorIndex(ids=self.ids, faiss_index=faiss.index_cpu_to_all_gpus(self.faiss_index))

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
        askable = np.isfinite(queries).all(axis=1) & queries.any(axis=1)
        if k == 0 or not askable.any():
            return ids, similarities
        asked = np.ascontiguousarray(queries[askable], dtype=np.float32)
        found, rows = self.faiss_index.search(asked, k)
        ids[askable] = np.where(rows >= 0, self.ids[rows], -1)
        similarities[askable] = np.where(rows >= 0, found, -np.inf)
        return ids, similarities

    def save(self, folder: Path) -> None:
        """Write the index, its ids and a manifest of SHA-256 checksums into `folder`."""
        faiss = import_faiss()
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self.faiss_index, str(folder / "index.faiss"))
        np.save(folder / "ids.npy", self.ids)
        manifest = {name: _sha256(folder / name) for name in _FILES}
        (folder / "manifest.json").write_text(json.dumps({"sha256": manifest}, indent=2))

    @classmethod
    def load(cls, folder: Path) -> "VectorIndex":
        """Read what `save` wrote.

        Raises:
            DamagedIndex: a file is missing or differs from its checksum.
        """
        faiss = import_faiss()
        try:
            manifest = json.loads((folder / "manifest.json").read_text())["sha256"]
            damaged = [name for name in _FILES if _sha256(folder / name) != manifest[name]]
        except (OSError, ValueError, KeyError) as error:
            raise DamagedIndex(f"{folder} holds no complete index: {error}") from error
        if damaged:
            raise DamagedIndex(
                f"{', '.join(str(folder / name) for name in damaged)}: checksum differs from "
                f"the manifest; delete {folder} and run again to rebuild it"
            )
        return cls(
            ids=np.load(folder / "ids.npy", allow_pickle=False),
            faiss_index=faiss.read_index(str(folder / "index.faiss")),
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
