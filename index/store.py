"""A FAISS index together with the ids of its rows, saved and loaded as one."""

import logging
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from artefacts.manifest import MANIFEST, Damaged, seal, verify

log = logging.getLogger(__name__)

Ids = NDArray[np.int32]
Vectors = NDArray[np.float32]


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
        """Write the index and its ids into `folder`, and a manifest of all files there."""
        faiss = import_faiss()
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self.faiss_index, str(folder / "index.faiss"))
        np.save(folder / "ids.npy", self.ids)
        seal(folder)

    def kept(self, folder: Path, rows: pl.DataFrame) -> "VectorIndex":
        """What `folder` holds of this index; written anew where it is missing or damaged.

        Args:
            folder: where it is kept.
            rows: what its ids stand for; kept beside it as `rows.parquet`.
        """
        try:
            return VectorIndex.load(folder)
        except Damaged as error:
            if folder.exists():
                log.warning("Built a damaged index anew: %s", error)
        folder.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(folder / "rows.parquet")
        self.save(folder)
        return VectorIndex.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "VectorIndex":
        """Read what `save` wrote.

        Raises:
            Damaged: a file is missing or differs from its checksum.
        """
        verify(folder / MANIFEST)
        return cls(
            ids=np.load(folder / "ids.npy", allow_pickle=False),
            faiss_index=import_faiss().read_index(str(folder / "index.faiss")),
        )
