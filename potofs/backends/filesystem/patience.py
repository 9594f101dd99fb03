"""How long a lock is waited for that others may have waited for in vain a moment ago."""

import threading
import time
from typing import NamedTuple

from potofs.backends.waiting import insists, is_whole, left_of

# What a lock gets that somebody has just waited for in vain (seconds): half as much each time, and after so many times
# nothing but a look.
_MOMENT = 0.02
_MOMENTS = 6


class _InVain(NamedTuple):
    """A lock that was waited for in vain."""

    #: When somebody waited for a deadline (seconds, monotonic), and how often it was tried since.
    at: float
    times: int


class Patience:
    """How long locks are waited for, each known by a name; thread-safe."""

    def __init__(self, timeout_ms: int) -> None:
        #: The deadline (seconds).
        self.timeout = min(timeout_ms / 1000, threading.TIMEOUT_MAX)
        #: Whether those who come after one that has waited in vain wait for a moment only.
        self.hurries = False
        # Of locks that nobody has had since.
        self._in_vain: dict[str, _InVain] = {}

    def left(self, name: str, *, waits: bool) -> float:
        """How long this thread may wait for a lock (seconds), if it `waits`."""
        found = self._in_vain.get(name)
        if found is None or not self.hurries or insists():
            return left_of(self.timeout)
        if time.monotonic() > found.at + self.timeout:
            # One of all who come waits for as long as the first: it may be let go now and then.
            if waits:
                self._in_vain[name] = _InVain(time.monotonic(), 0)
            return left_of(self.timeout)
        return _MOMENT / 2**found.times if found.times < _MOMENTS else 0.0

    def had(self, name: str) -> None:
        """Somebody has it."""
        self._in_vain.pop(name, None)

    def given_up(self, name: str, waited: float) -> None:
        """It was waited for in vain (seconds)."""
        found = self._in_vain.get(name)
        if is_whole(waited, self.timeout):
            self._in_vain[name] = _InVain(time.monotonic(), 0)
        elif found is not None:
            self._in_vain[name] = _InVain(found.at, found.times + 1)
