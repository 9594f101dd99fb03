"""How long this thread waits for others: for a lock, or for a server.

A request has one deadline, however often it asks, and waiting for a thread has used some of it up already. And a mount
has backends `hurry`: a kernel sends one of many requests after the other, so whoever comes after one that has waited in
vain is told so soon, and sooner each time. What nobody tries again insists.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# What is left at least (part of a deadline): who is free at once should be found so.
_LEAST = 1 / 5
# As much is as good as all of it.
_NEARLY = 0.9


class _Thread(threading.local):
    insists = False
    # When the request came that this thread answers (seconds, monotonic); infinite for one that answers none.
    came = math.inf


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
    """What this thread does meanwhile is one request, which has been waiting for so long already."""
    before = _thread.came
    _thread.came = time.monotonic() - seconds
    try:
        yield
    finally:
        _thread.came = before


def left_of(deadline: float) -> float:
    """What is left of the time that this thread may wait for something (seconds)."""
    came = _thread.came
    return deadline if came == math.inf else max(deadline * _LEAST, came + deadline - time.monotonic())


def is_whole(waited: float, deadline: float) -> bool:
    """Whether that was a deadline, from which something follows for others, and not what was left of one."""
    return waited >= deadline * _NEARLY
