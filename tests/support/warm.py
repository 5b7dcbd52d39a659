"""What the server of `forks` holds in memory before it forks.

Imports, FAISS, an encoder, and the compiled loops that numba has kept of earlier processes.

Nothing here may start a thread, which no fork would have.
"""

from types import ModuleType

import altair  # noqa: F401
import lightgbm  # noqa: F401
import sentence_transformers  # noqa: F401
import sklearn.cluster
import sklearn.isotonic
import sklearn.linear_model  # noqa: F401
from numba.core.registry import CPUDispatcher

import index.lookups
import jobs.cli
import jobs.nightly
import jobs.plan
import jobs.summary  # noqa: F401
import rank.contributions
import rank.kernel
import rank.lookups
from embed import load_encoder
from index.library import import_faiss


def _load_loops(module: ModuleType) -> None:
    for function in vars(module).values():
        if isinstance(function, CPUDispatcher):
            for signature, *_ in function._cache._cache_file._load_index():
                function.compile(signature)


import_faiss()
for module in (index.lookups, rank.contributions, rank.kernel, rank.lookups):
    _load_loops(module)
ENCODER = load_encoder("packaged/wordllama")
