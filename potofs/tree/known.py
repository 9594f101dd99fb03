"""When a user was last added, which everybody asks for on their way to a user.

It is no reason to refuse the way, nor to keep anybody: of a cluster each node has a part of the answer, and one that
hangs would keep those whose users are on the others.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

from potofs.errors import DeadlineExceeded, Unreachable

# How long an answer is waited for (part of a deadline), and after one that failed how long nobody asks again (seconds).
_GLANCE = 1 / 20
_OUTAGE = 1.0


class UsersChanged:
    """That time (nanoseconds since 1970), as it is known: by whoever is asked for it, or as it was last."""

    def __init__(self, ask: Callable[[], int], *, blocks: bool, patience: float) -> None:
        self._ask, self._blocks, self._patience = ask, blocks, patience
        #: Until somebody has asked, when this was made.
        self.known = time.time_ns()
        # When it was asked in vain last (seconds, monotonic), and an answer that nobody waits for any more.
        self._failed = -_OUTAGE
        self._late: Future[int] | None = None

    def __call__(self) -> int:
        """Asks for it; of one who `blocks` only so long. Raises what is no sign of an outage."""
        if time.monotonic() < self._failed + _OUTAGE or (self._late is not None and not self._late.done()):
            return self.known
        answer: Future[int] = Future()
        if self._blocks:
            threading.Thread(target=self._answer, args=(answer,), name="potofs-users", daemon=True).start()
        else:
            self._answer(answer)
        if wait([answer], self._patience * _GLANCE).done:
            try:
                answer.result()
            except (Unreachable, DeadlineExceeded, OSError):
                self._failed = time.monotonic()
        else:
            self._late = answer
        return self.known

    def _answer(self, answer: Future[int]) -> None:
        try:
            self.known = self._ask()
            answer.set_result(self.known)
        except BaseException as error:
            answer.set_exception(error)
