"""Memory that was freed goes back to the system."""

import platform

import numpy as np
import psutil
import pytest

from jobs.memory import give_back


def held() -> float:
    """MiB of this process."""
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only GNU's C library gives back")
def test_what_lies_free_between_what_is_used_goes_back() -> None:
    rows = [np.ones(12_000) for _ in range(2_000)]  # some 90 KiB each, too small for a map
    used = rows[::100]
    del rows
    before = held()
    give_back()
    assert before - held() > 100
    assert all(row.sum() == 12_000 for row in used)
