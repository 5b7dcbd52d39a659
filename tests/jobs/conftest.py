import shutil

import pytest
from nights import ALL_GENERATORS, write_night

from jobs import nightly
from jobs.nightly import Night, Outcome


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Night, Outcome]:
    """A whole night of the small shop, for tests that leave its tables as they are."""
    night = write_night(tmp_path_factory.mktemp("night"), ALL_GENERATORS)
    return night, nightly.run(night)


@pytest.fixture(scope="session")
def browser() -> str:
    """The command of a headless browser; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return found
