"""FAISS itself: one package of it, and the fastest matrix product that the processor knows."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

# All of them install the import name faiss.
PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cu13")
# Read by every OpenBLAS when it is loaded, in place of its own look at the processor.
VARIABLE = "OPENBLAS_CORETYPE"
CPUINFO = Path("/proc/cpuinfo")
# Kernels of OpenBLAS to ask for, the best first, and what a processor must be able to do.
_NEEDED = {
    "SKYLAKEX": {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"},
    "HASWELL": {"avx2", "fma"},
}
# Those that make less of a processor than each of these. A kernel that is not named is newer.
_BEFORE_HASWELL = (
    "katmai", "coppermine", "northwood", "prescott", "banias", "core2", "penryn", "dunnington",
    "nehalem", "atom", "nano", "athlon", "opteron", "opteron_sse3", "barcelona", "bobcat",
    "sandybridge", "bulldozer", "piledriver", "steamroller", "excavator",
)  # fmt: skip
_OLDER = {"SKYLAKEX": (*_BEFORE_HASWELL, "haswell", "zen"), "HASWELL": _BEFORE_HASWELL}
# With fewer numbers in all queries of a call FAISS leaves BLAS out, and out of the box with fewer
# than 128,000: 333 queries of 384 dimensions. From four queries on BLAS is the faster.
_BLAS_FROM = 4 * 384


class ConflictingFaiss(Exception):
    """faiss-cpu and faiss-gpu are both installed and have overwritten each other."""


@cache
def import_faiss() -> Any:
    """The faiss module, refused when two of its packages lie over each other.

    The OpenBLAS of a wheel may be older than the processor, not know it and take a kernel of the
    time before it. So `OPENBLAS_CORETYPE` names the best one while FAISS is loaded, unless the
    operator has set it. Before and after it is not set: what else brings an OpenBLAS, such as
    NumPy and SciPy, chooses for itself whether it is loaded earlier or later, so that every
    process rounds alike.

    Raises:
        ConflictingFaiss: see above.
    """
    both = [name for name in PACKAGES if _is_installed(name)]
    if len(both) > 1:
        raise ConflictingFaiss(
            f"{' and '.join(both)} are both installed and overwrite each other's files: "
            f"pip uninstall {' '.join(both)}, then install one of the extras cpu or gpu"
        )
    with _asking_for(best_kernel()):
        import faiss
    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM
    return faiss


def flags(cpuinfo: Path = CPUINFO) -> set[str]:
    """What this processor can do, by the names of Linux; empty where that is not told."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    return next(
        ({*line.split(":")[1].split()} for line in lines if line.startswith("flags")), set()
    )


def best_kernel(cpuinfo: Path = CPUINFO) -> str | None:
    """The best of OpenBLAS's kernels that this processor can run; None where that is not told."""
    known = flags(cpuinfo)
    return next((kernel for kernel, needed in _NEEDED.items() if needed <= known), None)


def kernel_of_faiss() -> str | None:
    """The kernel that FAISS's own OpenBLAS has taken, as threadpoolctl names it; None without."""
    from threadpoolctl import threadpool_info

    import_faiss()
    return next(
        (
            library["architecture"]
            for library in threadpool_info()
            if library["internal_api"] == "openblas"
            and Path(library["filepath"]).parent.name.startswith("faiss")
        ),
        None,
    )


def is_old(kernel: str, best: str) -> bool:
    """Whether a kernel, as threadpoolctl names it, makes less of a processor than `best`.

    >>> is_old("Zen", "SKYLAKEX"), is_old("Zen", "HASWELL"), is_old("SkylakeX", "SKYLAKEX")
    (True, False, False)
    """
    return kernel.lower() in _OLDER[best]


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


@contextmanager
def _asking_for(kernel: str | None) -> Iterator[None]:
    if kernel is None or VARIABLE in os.environ:
        yield
        return
    os.environ[VARIABLE] = kernel
    try:
        yield
    finally:
        del os.environ[VARIABLE]
