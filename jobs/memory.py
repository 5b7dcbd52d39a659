"""Gives memory back that was freed."""

import ctypes
import sys


def give_back() -> None:
    """Let the system have what the process has freed, where the C library can do that.

    Of matrices that come and go, GNU's keeps a third of a gigabyte for later ones that do not fit.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # musl has none
            trim(0)
