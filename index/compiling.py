"""Compiles loops by numba; kept in a file of each room, as the rooms share no code."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(*, fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called, and keep that where there is a place for it.

    Args:
        fastmath: which liberties with floats it takes, see `numba.njit`.
    """

    def compile_it(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, fastmath=fastmath)(function)
        except RuntimeError:  # neither this folder nor the user's cache can be written to
            return numba.njit(nogil=True, fastmath=fastmath)(function)

    return compile_it
