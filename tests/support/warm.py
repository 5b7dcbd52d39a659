"""What the server of `forks` holds in memory before it forks: imports, FAISS and an encoder.

Nothing here may start a thread, which no fork would have.
"""

import altair.utils.save  # noqa: F401
import lightgbm  # noqa: F401
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
import rank.kernel
import rank.lookups  # noqa: F401
from embed import load_encoder
from index.library import import_faiss

import_faiss()
ENCODER = load_encoder("packaged/wordllama")
