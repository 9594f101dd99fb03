"""Where the daemon's memory comes from: one heap for all of its threads, and what is large from the system each time.

By itself glibc gives threads heaps of their own, up to eight for each processor. What one of them has free no other one
takes, and each grows to the most that any thread ever needed at once. They spare threads waiting for one another, which
those of Python do anyway. And what is large it takes from the heap as soon as something as large was given back: so
what is read of conversations, and soon gone, leaves holes among what stays.
"""

import ctypes
from contextlib import suppress

# Source: malloc.h; mallopt(3).
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
# What is large (bytes).
_LARGE = 1 << 16


def settle() -> None:
    """Has it so for all that begins from now on; nothing is done where malloc is another."""
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
