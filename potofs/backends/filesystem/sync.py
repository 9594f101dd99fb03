"""Forcing appended bytes to disk, once for all who wait for the same file.

Appends that finish while another's fdatasync(2) runs share the next one. A failed fdatasync is reported to everyone
who waited for it and never tried again: the kernel has dropped the bytes by then, and a second call would say that all
is well.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Turns:
    """The calls of fdatasync for one file: how many began, how many ended, which failed."""

    def __init__(self) -> None:
        self.running = threading.Lock()
        self.begun = 0
        self.ended = 0
        self.failed: dict[int, OSError] = {}
        self.wanted_by = 0


class GroupSync:
    """fdatasync, shared among threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: dict[int, _Turns] = {}

    def sync(self, descriptor: int) -> None:
        """Returns once everything written to the file before this call is on disk; raises OSError."""
        with self._waiting(os.fstat(descriptor).st_ino) as turns:
            # One that runs already may have begun before our bytes were written: ours is the next.
            ours = turns.begun + 1
            with turns.running:
                if turns.ended < ours:
                    turns.begun = ours
                    try:
                        os.fdatasync(descriptor)
                    except OSError as error:
                        turns.failed[ours] = error
                    turns.ended = ours
                if ours in turns.failed:
                    failure = turns.failed[ours]
                    raise OSError(failure.errno, f"the disk did not take what was appended: {failure.strerror}")

    @contextmanager
    def _waiting(self, inode: int) -> Iterator[_Turns]:
        with self._guard:
            turns = self._turns.setdefault(inode, _Turns())
            turns.wanted_by += 1
        try:
            yield turns
        finally:
            with self._guard:
                turns.wanted_by -= 1
                if not turns.wanted_by:
                    del self._turns[inode]


def sync_directory(path: str) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
