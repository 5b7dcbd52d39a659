import pytest
from nights import write_night

from jobs import nightly
from jobs.nightly import Night, Outcome


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Night, Outcome]:
    """A whole night of the small shop, for tests that leave its tables as they are."""
    night = write_night(tmp_path_factory.mktemp("night"))
    return night, nightly.run(night)
