"""When a user was last added, which everybody asks for on their way to a user.

It is no reason to refuse the way, nor to keep anybody: of a cluster each node has a part of the answer, and one that
hangs would keep those whose users are on the others.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress

from potofs.errors import DeadlineExceeded, Unreachable

# How long an answer is waited for (part of a deadline), and after one that failed how long nobody asks again (seconds).
_GLANCE = 1 / 20
_OUTAGE = 1.0


class UsersChanged:
    """That time (nanoseconds since 1970), as it is known: by whoever is asked for it, or as it was last."""

    def __init__(self, ask: Callable[[], int], *, blocks: bool, patience: float) -> None:
        self._ask, self._blocks = ask, blocks
        self._glance = min(patience * _GLANCE, threading.TIMEOUT_MAX)
        #: Until somebody has asked, when this was made.
        self.known = time.time_ns()
        # One asks behind the other: what another was answered may be from before what this one asks about.
        self._turn = threading.Lock()
        # An answer that nobody waits for any more.
        self._late: Future[int] | None = None
        # When it was asked in vain last (seconds, monotonic).
        self._failed = -_OUTAGE

    def __call__(self) -> int:
        """Asks for it; of one who `blocks` only so long. Raises what is no sign of an outage."""
        if self._is_away() or not self._turn.acquire(timeout=self._glance):
            return self.known
        try:
            if self._is_away():
                return self.known
            answer = self._begun()
            if wait([answer], self._glance).done:
                return answer.result()
            self._late = answer
            return self.known
        finally:
            self._turn.release()

    def _is_away(self) -> bool:
        return time.monotonic() < self._failed + _OUTAGE or (self._late is not None and not self._late.done())

    def _begun(self) -> Future[int]:
        answer: Future[int] = Future()
        if self._blocks:
            # If there are too many threads, whoever asks waits.
            with suppress(RuntimeError):
                threading.Thread(target=self._finish, args=(answer,), name="potofs-users", daemon=True).start()
                return answer
        self._finish(answer)
        return answer

    def _finish(self, answer: Future[int]) -> None:
        try:
            self.known = self._ask()
        except (Unreachable, DeadlineExceeded, OSError):
            self._failed = time.monotonic()
        except Exception as error:
            answer.set_exception(error)
            return
        answer.set_result(self.known)
