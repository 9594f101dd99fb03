"""Where the daemon's memory comes from: one heap, for all of its threads.

By itself glibc gives threads heaps of their own, up to eight for each processor. What one of them has free no other one
takes, and each grows to the most that any thread ever needed at once. They spare threads waiting for one another, which
those of Python do anyway.
"""

import ctypes
from contextlib import suppress

# Source: malloc.h; mallopt(3).
_M_ARENA_MAX = -8


def share() -> None:
    """Has threads that begin from now on take their memory from one heap; nothing where malloc is another."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
