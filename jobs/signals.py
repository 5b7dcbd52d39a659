"""SIGTERM and SIGINT let the batch or shard in hand finish, then stop the run."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.errors import Stopped

GRACEFUL = (signal.SIGTERM, signal.SIGINT)
_received: list[int] = []


@contextmanager
def graceful() -> Iterator[None]:
    """Within the body the first signal is remembered for `stop_if_asked`; a second one kills."""
    before = {number: signal.signal(number, _remember) for number in GRACEFUL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


@contextmanager
def unsignalled() -> Iterator[None]:
    """Let processes that are started in the body inherit that signals wait, until they say more.

    A terminal and systemd signal all processes, but it is the parent that ends gracefully.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GRACEFUL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _remember(number: int, _: FrameType | None) -> None:
    _received.append(number)
    signal.signal(number, signal.SIG_DFL)


def stop_if_asked() -> None:
    """Called where nothing that is done would be lost.

    Raises:
        Stopped: a signal has come.
    """
    if _received:
        raise Stopped(_received[0])
