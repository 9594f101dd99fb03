"""Which servers answer nobody, each watched by a thread of its own after somebody has waited for all of a deadline.

A kernel sends one of many requests after the other. Were each to wait for a silent server, the last would be told after
minutes; so as long as it lasts all are told at once, but for a moment in which an answer may come.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from potofs.errors import PotofsError

# How long the first look waits for an answer (part of a deadline), and how soon the next one comes (seconds): twice as
# late each time, up to that part of a deadline.
_LOOK = 1 / 20
# The same if several were waited for: it may have been any of them, and the others may be busy for a moment.
_LOOK_OF_SEVERAL = 1 / 5
_PAUSE = 0.02
# What whoever asks meanwhile is given (seconds at most; part of a deadline): half as much after so many times, and not
# more often halved than that.
_MOMENT = 0.1
_MOMENT_PART = 1 / 20
_TIMES = 4
_SHORTEST = 20


class _Silence:
    """That of one server."""

    def __init__(self, why: PotofsError | OSError, first_look: float) -> None:
        #: What whoever waited for all of a deadline was told, and how often somebody has been told so since.
        self.why = why
        self.times = 0
        #: How long the first look waits for an answer (seconds).
        self.first_look = first_look
        #: Whether it was looked at: until then it may have been a connection that hung, or another server.
        self.is_sure = threading.Event()
        self.is_over = threading.Event()

    def end(self) -> None:
        self.is_over.set()
        self.is_sure.set()


class Silences:
    """Those of one journal's servers, each known by a name; there are none while all answer.

    `is_silent` says whether a server does not answer in so long (seconds), asked for a key that it has, if any; and
    `look_around` whether another one has taken its place.
    """

    def __init__(
        self,
        is_silent: Callable[[str, str | None, float], bool],
        timeout: float,
        look_around: Callable[[], None] = lambda: None,
    ) -> None:
        self._is_silent, self._timeout, self._look_around = is_silent, timeout, look_around
        self._guard = threading.Lock()
        self._is_closed = threading.Event()
        self._of: dict[str, _Silence] = {}

    def __len__(self) -> int:
        return len(self._of)

    def begin(self, servers: Mapping[str, str | None], why: PotofsError | OSError) -> None:
        """Somebody has waited for one of these servers for all of a deadline, and this is what they are told."""
        for server, key in servers.items():
            with self._guard:
                if self._is_closed.is_set():
                    return
                known = self._of.get(server)
                if known is not None:
                    if len(servers) == 1:
                        known.is_sure.set()
                    continue
                silence = _Silence(why, self._timeout * (_LOOK if len(servers) == 1 else _LOOK_OF_SEVERAL))
                watch = threading.Thread(target=self._watch, args=(server, key, silence), name="potofs-silence")
                watch.daemon = True
                # If there are too many threads, everybody waits for themselves.
                with suppress(RuntimeError):
                    watch.start()
                    self._of[server] = silence

    def end(self, servers: Iterable[str]) -> None:
        """Somebody was answered by these servers."""
        for server in servers:
            silence = self._of.pop(server, None)
            if silence is not None:
                silence.end()

    def why(self, servers: Iterable[str]) -> PotofsError | OSError | None:
        """What is the matter, after a moment, with one of these servers that is silent; None if none is."""
        for server in servers:
            silence = self._of.get(server)
            if silence is not None and silence.is_sure.wait(2 * silence.first_look):
                moment = min(_MOMENT, self._timeout * _MOMENT_PART) / 2 ** min(silence.times // _TIMES, _SHORTEST)
                silence.times += 1
                if not silence.is_over.wait(moment):
                    return silence.why
        return None

    def close(self) -> None:
        """Nobody is asked any more."""
        self._is_closed.set()

    def _watch(self, server: str, key: str | None, silence: _Silence) -> None:
        longest = self._timeout * _LOOK
        look, pause = silence.first_look, _PAUSE
        try:
            while self._is_silent(server, key, look):
                silence.is_sure.set()
                self._look_around()
                if self._is_closed.wait(pause) or silence.is_over.is_set():
                    break
                # An answer may be on its way for as long as anybody waits for one; what was lost never comes.
                look = 2 * look if look < self._timeout else longest
                pause = max(pause, min(2 * pause, longest))
        except Exception:
            # Whose connection is closed meanwhile meets anything.
            if not self._is_closed.is_set():
                raise
        finally:
            silence.end()
            with self._guard:
                if self._of.get(server) is silence:
                    del self._of[server]
