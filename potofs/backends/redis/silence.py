"""Whether the servers answer anybody, watched by a thread of its own after somebody has waited for all of a deadline.

A kernel sends one of many requests after the other. Were each to wait for a silent server, the last would be told after
minutes; so as long as it lasts all are told at once, but for a moment in which an answer may come.
"""

import threading
from collections.abc import Callable

from potofs.errors import PotofsError

# How long between two looks (seconds), and how long the first of them waits for an answer (part of a deadline).
_PAUSE = 0.02
_FIRST_LOOK = 1 / 20
# What whoever asks meanwhile is given (seconds at most; part of a deadline): half as much after so many times, and not
# more often halved than that.
_MOMENT = 0.1
_MOMENT_PART = 1 / 20
_TIMES = 4
_SHORTEST = 20


class Silence:
    """That of one journal's servers, in which `is_silent` asks them for so long (seconds)."""

    def __init__(self, is_silent: Callable[[float], bool], timeout: float) -> None:
        self._is_silent, self._timeout = is_silent, timeout
        self._guard = threading.Lock()
        self._is_closed = threading.Event()
        self._heard = threading.Event()
        # What whoever waited for all of a deadline was told; None while servers answer.
        self._why: PotofsError | OSError | None = None
        # How often somebody has been told so since.
        self._times = 0

    def begin(self, why: PotofsError | OSError) -> None:
        """Somebody has waited for all of a deadline, and this is what they are told."""
        with self._guard:
            if self._why is not None or self._is_closed.is_set():
                return
            self._why, self._times = why, 0
            self._heard.clear()
            try:
                threading.Thread(target=self._watch, name="potofs-silence", daemon=True).start()
            except RuntimeError:
                # There are too many threads: everybody waits for themselves.
                self._why = None

    def end(self) -> None:
        """Somebody was answered."""
        if self._why is not None:
            self._why = None
            self._heard.set()

    def why(self) -> PotofsError | OSError | None:
        """What is the matter still, after a moment; None if servers answer."""
        why = self._why
        if why is None:
            return None
        moment = min(_MOMENT, self._timeout * _MOMENT_PART) / 2 ** min(self._times // _TIMES, _SHORTEST)
        self._times += 1
        return None if self._heard.wait(moment) else why

    def close(self) -> None:
        """Nobody is asked any more."""
        self._is_closed.set()

    def _watch(self) -> None:
        # An answer may be on its way for as long as anybody waits for one; and what was lost on its way never comes.
        look = self._timeout * _FIRST_LOOK
        try:
            while self._why is not None and not self._is_closed.wait(_PAUSE) and self._is_silent(look):
                look = 2 * look if look < self._timeout else self._timeout * _FIRST_LOOK
        except Exception:
            # Whose connection is closed meanwhile meets anything.
            if not self._is_closed.is_set():
                raise
        finally:
            self.end()
