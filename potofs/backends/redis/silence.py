"""Which servers answer nobody, each watched by a thread of its own after somebody has waited for all of a deadline.

A kernel sends one of many requests after the other. Were each to wait for a silent server, the last would be told after
minutes; so as long as it lasts all are told at once, but for a moment in which an answer may come.
"""

import threading
from collections.abc import Callable, Iterable, Iterator

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


class _Silence:
    """That of one server."""

    def __init__(self, why: PotofsError | OSError) -> None:
        #: What whoever waited for all of a deadline was told, and how often somebody has been told so since.
        self.why = why
        self.times = 0
        self.is_over = threading.Event()


class Silences:
    """Those of one journal's servers, each known by a name; there are none while all answer.

    `is_silent` says whether a server answers, asked for a key that is on it, in so long (seconds).
    """

    def __init__(self, is_silent: Callable[[str, float], bool], timeout: float) -> None:
        self._is_silent, self._timeout = is_silent, timeout
        self._guard = threading.Lock()
        self._is_closed = threading.Event()
        self._of: dict[str, _Silence] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._of))

    def __len__(self) -> int:
        return len(self._of)

    def begin(self, server: str, key: str, why: PotofsError | OSError) -> None:
        """Somebody has waited for a server for all of a deadline, and this is what they are told."""
        with self._guard:
            if server in self._of or self._is_closed.is_set():
                return
            silence = _Silence(why)
            try:
                name = "potofs-silence"
                threading.Thread(target=self._watch, args=(server, key, silence), name=name, daemon=True).start()
            except RuntimeError:
                # There are too many threads: everybody waits for themselves.
                return
            self._of[server] = silence

    def end(self, servers: Iterable[str]) -> None:
        """Somebody was answered by these servers."""
        for server in servers:
            silence = self._of.pop(server, None)
            if silence is not None:
                silence.is_over.set()

    def why(self, servers: Iterable[str]) -> PotofsError | OSError | None:
        """What is the matter, after a moment, with the first of these that is silent; None if all answer."""
        silence = next(filter(None, map(self._of.get, servers)), None)
        if silence is None:
            return None
        moment = min(_MOMENT, self._timeout * _MOMENT_PART) / 2 ** min(silence.times // _TIMES, _SHORTEST)
        silence.times += 1
        return None if silence.is_over.wait(moment) else silence.why

    def close(self) -> None:
        """Nobody is asked any more."""
        self._is_closed.set()

    def _watch(self, server: str, key: str, silence: _Silence) -> None:
        # An answer may be on its way for as long as anybody waits for one; and what was lost on its way never comes.
        look = self._timeout * _FIRST_LOOK
        try:
            while not silence.is_over.is_set() and not self._is_closed.wait(_PAUSE) and self._is_silent(key, look):
                look = 2 * look if look < self._timeout else self._timeout * _FIRST_LOOK
        except Exception:
            # Whose connection is closed meanwhile meets anything.
            if not self._is_closed.is_set():
                raise
        finally:
            with self._guard:
                if self._of.get(server) is silence:
                    self.end([server])
