"""Forcing appended bytes to disk, once for all who wait for the same file.

Appends that finish while another's fdatasync(2) runs share the next one. A failed fdatasync is reported to everyone
who waited for it and never tried again: the kernel has dropped the bytes by then, and a second call would say that all
is well. The file is in doubt from then on, until somebody has written its bytes once more.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What tells files apart: device and inode.
_File = tuple[int, int]


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
        # By device and inode: users may be spread over file systems.
        self._turns: dict[_File, _Turns] = {}
        self._doubtful: set[_File] = set()

    def sync(self, descriptor: int) -> None:
        """Returns once everything written to the file before this call is on disk; raises OSError."""
        file = _file(descriptor)
        with self._waiting(file) as turns:
            # One that runs already may have begun before our bytes were written: ours is the next.
            ours = turns.begun + 1
            with turns.running:
                if turns.ended < ours:
                    turns.begun = ours
                    try:
                        os.fdatasync(descriptor)
                    except OSError as error:
                        turns.failed[ours] = error
                        self._doubtful.add(file)
                    turns.ended = ours
                if ours in turns.failed:
                    failure = turns.failed[ours]
                    raise OSError(failure.errno, f"the disk did not take what was appended: {failure.strerror}")

    @property
    def has_doubts(self) -> bool:
        """Whether there is any file that `is_doubtful`."""
        return bool(self._doubtful)

    def is_doubtful(self, descriptor: int) -> bool:
        """Whether a sync of the file failed, and its bytes were not written again since."""
        return bool(self._doubtful) and _file(descriptor) in self._doubtful

    def trust(self, descriptor: int) -> None:
        """Notes that all bytes of the file were just written again, so that a sync means something once more."""
        self._doubtful.discard(_file(descriptor))

    @contextmanager
    def _waiting(self, file: _File) -> Iterator[_Turns]:
        with self._guard:
            turns = self._turns.setdefault(file, _Turns())
            turns.wanted_by += 1
        try:
            yield turns
        finally:
            with self._guard:
                turns.wanted_by -= 1
                if not turns.wanted_by:
                    del self._turns[file]


def _file(descriptor: int) -> _File:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def sync_directory(path: str) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
