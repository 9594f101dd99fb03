"""Whether changes are taken: one small file for all users, replaced at one stroke.

Every change looks at it under its user's lock, so whoever sets it only has to hold each user's lock once to know that
nobody is at work any more who saw the old one. A user's folders, where the lock is, are made under a lock that the
fence's setter holds alone: no user comes to be behind its back.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from potofs.backends.base import Fence
from potofs.backends.filesystem import files
from potofs.backends.filesystem.conversations import must_be_there
from potofs.backends.filesystem.layout import FILE_MODE, Layout
from potofs.backends.filesystem.lock import locked
from potofs.backends.filesystem.patience import Patience
from potofs.backends.filesystem.sync import sync_directory
from potofs.errors import DeadlineExceeded, Fenced, WouldBlock

# What its lock is waited for by: no user is called so.
_NAME = ""


class FenceFile:
    """The fence of one root."""

    def __init__(self, layout: Layout, patience: Patience) -> None:
        self._layout, self._patience = layout, patience
        # What was read last, and from which file.
        self._known: tuple[tuple[int, int], Fence] | None = None

    def get(self) -> Fence:
        """The present one, at the cost of one stat(2) unless it was set since; raises Fenced if it makes no sense."""
        try:
            known, file = self._known, _file(os.stat(self._layout.fence))
            if known is None or known[0] != file:
                with files.FileReader(self._layout.fence) as reader:
                    file = _file(os.fstat(reader.fileno()))
                    known = self._known = file, msgspec.json.decode(reader.read_all(), type=Fence)
            return known[1]
        except FileNotFoundError:
            return Fence()
        except msgspec.DecodeError as error:
            # Whoever damaged it may have meant to close it.
            raise Fenced(f"nothing is changed: {self._layout.fence} cannot be read, {error}") from None

    def set(self, fence: Fence) -> None:
        """Replaces it, durably; from now on no user is made by anybody who saw the old one.

        Raises DeadlineExceeded, with nothing changed, and OSError.
        """
        with self._locked(fcntl.LOCK_EX, wait=True):
            # Files are told apart by number and time, and a number may come again within a tick of the files' clock.
            now = max(time.time_ns(), files.changed(self._layout.fence) + 1)
            files.replace_whole(self._layout.fence, msgspec.json.encode(fence), mtime_ns=now)
            sync_directory(self._layout.root)

    @contextmanager
    def open_for_users(self, *, wait: bool) -> Iterator[None]:
        """Keeps it as it is while a user's folders are made; raises Fenced, OSError.

        WouldBlock at once if it may not wait, DeadlineExceeded if it waited too long.
        """
        with self._locked(fcntl.LOCK_SH, wait=wait):
            self.get().check()
            yield

    @contextmanager
    def _locked(self, how: int, *, wait: bool) -> Iterator[None]:
        with must_be_there(self._layout):
            files.make_directories(self._layout.system, below=self._layout.root, durable=False)
        patience = self._patience.left(_NAME, waits=wait)
        timeout = patience if wait else 0.0
        deadline = time.monotonic() + timeout
        descriptor = os.open(self._layout.fence_lock, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            if not locked(descriptor, how, deadline):
                raise self._given_up(timeout, patience)
            self._patience.had(_NAME)
            try:
                yield
            finally:
                # Closing would not do where a child has the descriptor too.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _given_up(self, timeout: float, patience: float) -> WouldBlock | DeadlineExceeded:
        if timeout < patience:
            return WouldBlock("the journal is being frozen or opened")
        self._patience.given_up(_NAME, timeout)
        return DeadlineExceeded(
            f"another program has held {self._layout.fence_lock} for too long "
            f"(lockTimeoutMs is {1000 * self._patience.timeout:g}); nothing was changed, try again"
        )


def _file(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_mtime_ns
