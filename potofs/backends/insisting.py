"""Who waits until the own deadline although others have just waited in vain.

A mount has backends `hurry`: whoever comes after one that has waited in vain is told so soon. What nobody tries again
insists.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Thread(threading.local):
    insists = False


_thread = _Thread()


@contextmanager
def insisting() -> Iterator[None]:
    """What this thread does meanwhile is tried until its own deadline."""
    before = _thread.insists
    _thread.insists = True
    try:
        yield
    finally:
        _thread.insists = before


def insists() -> bool:
    """Whether this thread does."""
    return _thread.insists
