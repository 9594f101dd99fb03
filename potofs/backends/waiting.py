"""How long this thread waits for others: for a lock, or for a server.

A deadline is that of whoever asks, and waiting for a thread has used some of it up already. And a mount has backends
`hurry`: a kernel sends one of many requests after the other, so whoever comes after one that has waited in vain is told
so soon, and sooner each time. What nobody tries again insists.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What is left at least (part of a deadline): who is free at once should be found so.
_LEAST = 1 / 5
# As much is as good as all of it.
_NEARLY = 0.9


class _Thread(threading.local):
    insists = False
    waited = 0.0


_thread = _Thread()


@contextmanager
def insisting() -> Iterator[None]:
    """What this thread does meanwhile is tried until its own deadline, although others have just waited in vain."""
    before = _thread.insists
    _thread.insists = True
    try:
        yield
    finally:
        _thread.insists = before


def insists() -> bool:
    """Whether this thread does."""
    return _thread.insists


@contextmanager
def having_waited(seconds: float) -> Iterator[None]:
    """What this thread does meanwhile has been waited for so long already."""
    before = _thread.waited
    _thread.waited = seconds
    try:
        yield
    finally:
        _thread.waited = before


def left_of(deadline: float) -> float:
    """What is left of the time that this thread may wait for something (seconds)."""
    return max(deadline * _LEAST, deadline - _thread.waited)


def is_whole(waited: float, deadline: float) -> bool:
    """Whether that was a deadline, from which something follows for others, and not what was left of one."""
    return waited >= deadline * _NEARLY
