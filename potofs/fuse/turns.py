"""Who waits for whom inside the daemon: for a thread, or for those who were there before; and for how long in all.

A request has one deadline. What it has waited here is taken off what it has left for a lock or a server.
"""

import time
from contextvars import ContextVar

import trio

from potofs.errors import DeadlineExceeded

# When the request came that is being answered (seconds, as time.perf_counter).
_came: ContextVar[float | None] = ContextVar("came", default=None)


class NotBegun(DeadlineExceeded):
    """What was to be done was not begun: others were in the way until the deadline."""


def begin(now: float) -> None:
    """A request has come; `now` is of time.perf_counter. What was begun by no request has just begun."""
    _came.set(now)


def waited() -> float:
    """How long the request has been waiting (seconds)."""
    came = _came.get()
    return 0.0 if came is None else time.perf_counter() - came


class InTime:
    """A lock, or threads, that requests wait for, each no longer than it may take in all (`patience`, seconds)."""

    def __init__(self, taken: trio.Lock | trio.CapacityLimiter, patience: float) -> None:
        self._taken, self._patience = taken, patience

    async def __aenter__(self) -> None:
        """Raises NotBegun. Mostly it is free, and then nobody else comes in between."""
        try:
            self._taken.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(max(0.0, self._patience - waited())):
                await self._taken.acquire()
                return
            raise NotBegun(
                f"other requests were in the way until the deadline of {self._patience:g} s; nothing was changed"
            ) from None

    async def __aexit__(self, *_: object) -> None:
        self._taken.release()
