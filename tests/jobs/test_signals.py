"""A signal stops what takes long: the growing of trees, and the work on shards of users."""

import signal
from pathlib import Path

import pytest
from forks import done
from stopping import GROWING, grow, next_shard, signalled

STOPPED = 128 + signal.SIGTERM


@pytest.mark.parametrize("name", GROWING)
def test_growing_stops_with_the_next_tree(name: str) -> None:
    assert done(signalled, grow, name) == STOPPED


@pytest.mark.parametrize("name", GROWING)
def test_without_a_signal_it_goes_on(name: str) -> None:
    assert GROWING[name]()


def test_work_on_users_stops_with_the_next_shard(tmp_path: Path) -> None:
    assert done(signalled, next_shard, tmp_path) == STOPPED
