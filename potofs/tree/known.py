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
        self._ask, self._blocks, self._patience = ask, blocks, patience
        #: Until somebody has asked, when this was made.
        self.known = time.time_ns()
        self._guard = threading.Lock()
        # The answer that is waited for, by all who want one meanwhile, and whether somebody has in vain.
        self._answer: Future[int] | None = None
        self._is_late = False
        # When it was asked in vain last (seconds, monotonic).
        self._failed = -_OUTAGE

    def __call__(self) -> int:
        """Asks for it; of one who `blocks` only so long. Raises what is no sign of an outage."""
        with self._guard:
            answer = self._answer
            if answer is None:
                if time.monotonic() < self._failed + _OUTAGE:
                    return self.known
                answer, self._is_late = self._begun(), False
            elif self._is_late:
                return self.known
        if wait([answer], self._patience * _GLANCE).done:
            return answer.result()
        self._is_late = True
        return self.known

    def _begun(self) -> Future[int]:
        answer: Future[int] = Future()
        if self._blocks:
            self._answer = answer
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
            self._answer = None
            answer.set_exception(error)
            return
        self._answer = None
        answer.set_result(self.known)
