"""What the server of `forks` holds in memory before it forks.

Imports, FAISS, an encoder, and what numba makes ready with the first compiled function.

Nothing here may start a thread, which no fork would have.
"""

import altair.utils.save  # noqa: F401
import lightgbm  # noqa: F401
import numpy as np
import sentence_transformers  # noqa: F401
import sklearn.cluster
import sklearn.isotonic
import sklearn.linear_model  # noqa: F401
import vl_convert  # noqa: F401

import index.lookups  # noqa: F401
import jobs.cli
import jobs.nightly
import jobs.plan
import jobs.summary  # noqa: F401
import rank.kernel  # noqa: F401
from embed import load_encoder
from index.library import import_faiss
from rank.lookups import means

import_faiss()
means(np.zeros((1, 1), np.float32))
ENCODER = load_encoder("packaged/wordllama")
