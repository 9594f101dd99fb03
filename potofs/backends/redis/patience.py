"""How long an answer is waited for: one deadline for all that redis-py does for a call.

redis-py gives its time to each wait. Where it asks one server after another (sentinels, the nodes of a cluster, each
command of a batch that was not answered), these would add up, to minutes in a large cluster that hangs. So the time
belongs to the thread here, and every connection asks it what is left; nothing is sent once it is over.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

# A socket with no time at all would not wait, which is something else (seconds).
_LEAST = 0.001
# With nearly all of its time left, a socket is left as it is (part of it): mostly that is so, and setting costs.
_NEARLY = 0.98


class _Clock(threading.local):
    """What this thread has (seconds, monotonic)."""

    ends = math.inf
    kept = 0.0
    each = math.inf


_clock = _Clock()


class within:  # noqa: N801  (a context; as a function it would cost every command a microsecond more)
    """What this thread asks meanwhile is waited for so long in all; the last `kept` seconds are left for `looking`."""

    __slots__ = ("_before", "_ends", "_kept")

    def __init__(self, seconds: float, *, kept: float = 0.0) -> None:
        self._ends = time.monotonic() + seconds - kept
        self._kept = kept

    def __enter__(self) -> None:
        self._before = _clock.ends, _clock.kept
        _clock.ends, _clock.kept = min(_clock.ends, self._ends), self._kept

    def __exit__(self, *_: object) -> None:
        _clock.ends, _clock.kept = self._before


@contextmanager
def looking(each: float) -> Iterator[None]:
    """What was kept may be used up, with so many seconds for each answer, while it is asked where the masters are."""
    before = _clock.ends, _clock.kept, _clock.each
    _clock.ends, _clock.kept, _clock.each = _clock.ends + _clock.kept, 0.0, min(_clock.each, each)
    try:
        yield
    finally:
        _clock.ends, _clock.kept, _clock.each = before


def left() -> float:
    """What is left (seconds): infinite for a thread that has no deadline, negative once it is over."""
    return min(_clock.ends - time.monotonic(), _clock.each)


if TYPE_CHECKING:
    _Mixed = redis.Connection
else:
    _Mixed = object


class _Patient(_Mixed):
    """Waits as long as its thread may, and never longer than it was made for."""

    def __init__(self, *args: Any, socket_timeout: float, **kwargs: Any) -> None:
        self._longest = socket_timeout
        parent: Any = super()
        parent.__init__(*args, socket_timeout=socket_timeout, **kwargs)

    @property
    def socket_timeout(self) -> float:
        time_left = left()
        return self._longest if time_left >= self._longest * _NEARLY else max(_LEAST, time_left)

    @socket_timeout.setter
    def socket_timeout(self, value: object) -> None:
        """redis-py relaxes it while a server is being moved, and sets it back; here the deadline says."""

    @property
    def socket_connect_timeout(self) -> float:
        return self.socket_timeout

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, value: object) -> None:
        """The same."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if left() <= 0:
            raise redis.TimeoutError("nothing was sent: the time is over")
        # The socket has what was left of an earlier deadline.
        socket: Any = self._sock
        if socket is not None and socket.gettimeout() != self.socket_timeout:
            self.update_current_socket_timeout(self.socket_timeout)
        parent: Any = super()
        parent.send_packed_command(command, check_health)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        # A subscription says itself how long it waits.
        if "timeout" not in kwargs and (timeout := self.socket_timeout) < self._longest:
            kwargs["timeout"] = timeout
        return super().read_response(*args, **kwargs)


class Plain(_Patient, redis.Connection):
    """To a host."""


class Secured(_Patient, redis.SSLConnection):
    """To a host, by TLS."""


class Local(_Patient, redis.UnixDomainSocketConnection):
    """To a Unix socket."""


class Watched(_Patient, SentinelManagedConnection):
    """To the master that sentinels name."""


class WatchedSecured(_Patient, SentinelManagedSSLConnection):
    """To the master that sentinels name, by TLS."""
