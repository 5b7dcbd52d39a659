import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from index.library import VARIABLE, best_kernel, is_old, kernel_of_faiss

ROOT = Path(__file__).resolve().parents[2]
AVX2 = "fpu sse4_2 avx avx2 fma"
AVX512 = f"{AVX2} avx512f avx512dq avx512bw avx512vl avx512cd"

# What the environment and the kernels are while FAISS is loaded, and after.
LOADED = """
import json, os, sys
from threadpoolctl import threadpool_info
from index.library import VARIABLE, import_faiss, kernel_of_faiss

class Watch:
    seen = None
    def find_spec(self, name, path=None, target=None):
        if name == "faiss":
            Watch.seen = os.environ.get(VARIABLE)

sys.meta_path.insert(0, Watch())
before = "faiss" in sys.modules
import_faiss()
import scipy.linalg
others = {i["architecture"] for i in threadpool_info() if i["internal_api"] == "openblas"
          and "faiss" not in i["filepath"]}
print(json.dumps([before, Watch.seen, os.environ.get(VARIABLE), kernel_of_faiss(), sorted(others)]))
"""


def run(code: str, *, path: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != VARIABLE}
    known["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path}"
    return subprocess.run(
        [sys.executable, "-c", code], env={**known, **environment}, capture_output=True, text=True
    )


def test_the_best_kernel_is_asked_for_while_faiss_is_loaded_and_only_then() -> None:
    before, during, after, kernel, others = json.loads(run(LOADED).stdout)
    assert (before, during, after) == (False, best_kernel(), None)
    alone = "import scipy.linalg, threadpoolctl as t; print({i.get('architecture') for i in "
    alone += "t.threadpool_info() if i['internal_api'] == 'openblas'})"
    assert set(others) == eval(run(alone).stdout)
    if best_kernel() is not None and kernel is not None:
        assert kernel.upper() == best_kernel()


def test_what_the_operator_has_set_stays() -> None:
    before, during, after, kernel, _ = json.loads(run(LOADED, **{VARIABLE: "Nehalem"}).stdout)
    assert (before, during, after) == (False, "Nehalem", "Nehalem")
    assert kernel in (None, "Nehalem")


@pytest.mark.parametrize(
    ("flags", "best"),
    [(AVX512, "SKYLAKEX"), (AVX2, "HASWELL"), (f"{AVX2} avx512f", "HASWELL"), ("fpu sse4_2", None)],
)
def test_the_best_kernel_is_one_that_the_processor_can_run(tmp_path, flags: str, best) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    assert best_kernel(told) == best


def test_without_flags_no_kernel_is_asked_for(tmp_path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert best_kernel(tmp_path / "cpuinfo") is None
    assert best_kernel(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("kernel", "than_avx2", "than_avx512"),
    [
        ("Prescott", True, True), ("Nehalem", True, True), ("Sandybridge", True, True),
        ("Haswell", False, True), ("Zen", False, True), ("SkylakeX", False, False),
        ("Cooperlake", False, False), ("Sapphirerapids", False, False), ("Zen9", False, False),
    ],
)  # fmt: skip
def test_which_kernels_are_old(kernel: str, than_avx2: bool, than_avx512: bool) -> None:
    assert is_old(kernel, "HASWELL") == than_avx2
    assert is_old(kernel, "SKYLAKEX") == than_avx512


def test_this_process_has_the_kernel_that_it_should() -> None:
    kernel, best = kernel_of_faiss(), best_kernel()
    assert kernel is None or best is None or VARIABLE in os.environ or not is_old(kernel, best)


def test_two_packages_of_faiss_are_refused(tmp_path) -> None:
    for name in ("faiss_cpu", "faiss_gpu"):
        folder = tmp_path / f"{name}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 9.9\n"
        )
    failed = run("from index.library import import_faiss; import_faiss()", path=tmp_path)
    assert "pip uninstall faiss-cpu faiss-gpu" in failed.stderr
