"""What servers tell of changes as they are made, for mounts: a kernel remembers what it was shown.

The scripts publish it (`done` in `begin.lua`), each with its change: the user's name, a line that is `new` if the user
is, and one for each entry that is no more or means another conversation, `archive NAME` or `aside NAME`. Appending to a
conversation that is there is not told.

Nothing depends on it: what is missed, because a connection was cut or a server forbids to listen, is seen when the
kernel asks again, a second later. So in a cluster all of it goes through one channel that every server tells, and not
through one for each shard, which would have to be followed from server to server.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import TimeoutError as NoAnswer

from potofs import names
from potofs.backends.base import Notice
from potofs.backends.redis.connection import Link
from potofs.backends.redis.wording import named
from potofs.errors import PotofsError

log = logging.getLogger(__name__)

# How often it is looked whether it is over (seconds).
_LOOK_UP = 0.2
# Before it is tried again (seconds): where the connection was good for a while, and where it was not.
_PAUSE = 0.05
_LONG_PAUSE = 1.0


class Watch:
    """Listens in a thread of its own until it is closed; a connection that is lost is made again."""

    def __init__(self, link: Link, channel: str, on_notice: Callable[[Notice | None], object]) -> None:
        self._link, self._channel, self._on_notice = link, channel, on_notice
        self._is_over = threading.Event()
        # Whether the present connection is listened to, and whether it was said that there is none.
        self._has_heard = self._has_warned = False
        self._thread = threading.Thread(target=self._run, name="potofs-notices", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nothing is told any more when this returns, unless a server keeps it waiting for longer than the deadline."""
        self._is_over.set()
        self._thread.join(self._link.timeout)

    def _run(self) -> None:
        while not self._is_over.is_set():
            begun, self._has_heard = time.monotonic(), False
            try:
                with self._link.subscription(self._channel) as subscription:
                    self._listen(subscription)
            except (PotofsError, OSError) as error:
                # One that was cut is made again before anybody has to know.
                if not self._has_heard and not self._has_warned and not self._is_over.is_set():
                    log.warning("what others change is seen a second later, for nothing is heard of it: %s", error)
                    self._has_warned = True
                was_good = self._has_heard and time.monotonic() - begun > _LONG_PAUSE
                self._is_over.wait(_PAUSE if was_good else _LONG_PAUSE)

    def _listen(self, subscription: Any) -> None:
        heard, is_asked = time.monotonic(), False
        while not self._is_over.is_set():
            message = subscription.get_message(timeout=_LOOK_UP)
            silent = time.monotonic() - heard
            if message is not None:
                heard, is_asked = time.monotonic(), False
                self._tell(message)
            elif silent > 2 * self._link.timeout:
                raise NoAnswer
            elif silent > self._link.timeout and not is_asked:
                # A server that hangs or has gone without a word is like one that has nothing to tell.
                subscription.ping()
                is_asked = True

    def _tell(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            # For the first time or again: nobody knows what was told before.
            self._has_heard = True
            if self._has_warned:
                log.info("what others change is heard of again")
                self._has_warned = False
            self._on_notice(None)
        elif message["type"] == "message":
            self._on_notice(_notice(message["data"]))


def _notice(data: bytes) -> Notice | None:
    try:
        user, *lines = data.decode().split("\n")
        gone = [line.partition(" ") for line in lines[1:]]
        return Notice(
            names.decode(user),
            is_new=lines[:1] == ["new"],
            archives_gone=tuple(named(name) for kind, _, name in gone if kind == "archive"),
            set_asides_gone=tuple(named(name) for kind, _, name in gone if kind == "aside"),
        )
    except (ValueError, PotofsError):
        # No word of ours; but it may mean something to another version.
        return None
