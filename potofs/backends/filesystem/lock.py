"""Who may change a user's files: one at a time, among threads, processes and servers that share the root.

The lock is flock(2) on a file of the user that is never removed, so that nobody can hold the lock of a file that has
gone. Threads of this process queue on a lock in memory first: flock has no queue, and no time limit either.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from potofs.backends.filesystem.layout import FILE_MODE
from potofs.backends.filesystem.patience import Patience
from potofs.errors import DeadlineExceeded, WouldBlock

# How often a lock that another process holds is tried again: soon at first, for appends are short (seconds).
_FIRST_PAUSE = 0.0005
_LONGEST_PAUSE = 0.008


def locked(descriptor: int, how: int, deadline: float) -> bool:
    """Locks an open file, LOCK_EX or LOCK_SH of flock(2); False if others had it until a deadline (seconds, monotonic).

    It is tried once, also where the deadline has passed. Raises OSError.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() + pause > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return True


class _Queue:
    """The threads of this process that want one user's lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted_by = 0


class UserLocks:
    """The locks of all users of one root."""

    def __init__(self, path_of: Callable[[str], str], patience: Patience) -> None:
        self._path_of = path_of
        self._patience = patience
        self._guard = threading.Lock()
        self._queues: dict[str, _Queue] = {}

    @contextmanager
    def held(self, user: str, *, wait: bool) -> Iterator[int]:
        """Holds the lock of a user whose folder exists, and gives its file, opened.

        Raises WouldBlock at once if it may not wait but would, DeadlineExceeded if it waited too long.
        """
        patience = self._patience.left(user, waits=wait)
        timeout = patience if wait else 0.0
        deadline = time.monotonic() + timeout
        with self._queued(user) as lock:
            if not lock.acquire(timeout=timeout):
                raise self._given_up(user, timeout, patience)
            try:
                # Opened anew each time: a lock belongs to an open file, which child processes share.
                descriptor = os.open(self._path_of(user), os.O_RDWR | os.O_CREAT, FILE_MODE)
                try:
                    if not locked(descriptor, fcntl.LOCK_EX, deadline):
                        raise self._given_up(user, timeout, patience)
                    self._patience.had(user)
                    try:
                        yield descriptor
                    finally:
                        # Closing would not do: a child forked meanwhile has the descriptor too, and would go on
                        # holding the lock.
                        fcntl.flock(descriptor, fcntl.LOCK_UN)
                finally:
                    os.close(descriptor)
            finally:
                lock.release()

    @contextmanager
    def _queued(self, user: str) -> Iterator[threading.Lock]:
        with self._guard:
            queue = self._queues.setdefault(user, _Queue())
            queue.wanted_by += 1
        try:
            yield queue.lock
        finally:
            with self._guard:
                queue.wanted_by -= 1
                if not queue.wanted_by:
                    del self._queues[user]

    def _given_up(self, user: str, timeout: float, patience: float) -> WouldBlock | DeadlineExceeded:
        if timeout < patience:
            return WouldBlock(f"user {user!r}: another writer is at work")
        self._patience.given_up(user, timeout)
        return DeadlineExceeded(
            f"user {user!r}: another writer has held {self._path_of(user)} for too long "
            f"(lockTimeoutMs is {1000 * self._patience.timeout:g}); nothing was changed, try again"
        )
