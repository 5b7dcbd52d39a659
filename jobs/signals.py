"""SIGTERM and SIGINT let the batch or shard in hand finish, then stop the run."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.errors import Stopped

_received: list[int] = []


@contextmanager
def graceful() -> Iterator[None]:
    """Within the body the first signal is remembered for `stop_if_asked`; a second one kills."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, _remember) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


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
