import os
from pathlib import Path

import pytest
from hypothesis import settings

from embed import Encoder, load_encoder

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def static_encoder() -> Encoder:
    """The fast packaged encoder: 256 dimensions, real vectors, thousands of texts a second."""
    return load_encoder("packaged/wordllama")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public data sets; the test is skipped where there is none."""
    folder = Path(os.environ.get("NIGHTRANK_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no public data sets in {folder}; set NIGHTRANK_DATA to their folder")
    return folder
