"""How far a conversation may be shown while somebody appends to it: never into what is being written.

A write(2) lets a file grow page by page, and whoever looks meanwhile sees the beginning of what is written. So a writer
says where its write begins, by a lock on the bytes from there on (fcntl_locking(2), of the open file, so that it goes
with a process that is killed), and a reader asks for such a lock. What programs write that take none is shown as it is.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from potofs.backends.base import RECORD_END, Stat
from potofs.backends.filesystem.files import FileReader, stat_of

# struct flock: type, whence, start, length (0: to the end and beyond), process (0 for locks of open files).
_FLOCK = struct.Struct("@hhqqi0q")
# How often a size is looked at that changes at every look.
_LOOKS = 100


@contextmanager
def growing(descriptor: int, start: int) -> Iterator[None]:
    """Says for as long as it lasts that what stands in a file from `start` on (bytes) is being written."""
    # Not every network file system has such locks; there a reader may see the beginning of a write.
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, 0, 0))
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))


class SettledReader(FileReader):
    """A conversation's file, opened, up to where nothing is being written."""

    # How much was shown to be there (bytes): it stays there.
    _shown = 0

    def stat(self) -> Stat:
        end = self._end()
        return stat_of(os.fstat(self._descriptor), self._number_of)._replace(size=end)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, min(size, max(0, self._end() - offset)), offset)

    def _end(self) -> int:
        size = self._size()
        if size != self._shown:
            tail = os.pread(self._descriptor, len(RECORD_END), max(0, size - len(RECORD_END)))
            # What ends so is whole, whoever goes on.
            size = size if tail == RECORD_END else self._settled(size)
            self._shown = max(self._shown, size)
        return size

    def _settled(self, size: int) -> int:
        """Where it ends, but for what is being written."""
        for _ in range(_LOOKS):
            begins = self._is_written_from()
            if begins is not None:
                return max(self._shown, min(begins, self._size()))
            # Nobody was writing at that moment; if it is as it was before, that is its size then.
            before, size = size, self._size()
            if size == before:
                break
        return size

    def _is_written_from(self) -> int | None:
        try:
            answer = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        except OSError:
            return None
        kind, _, start, _, _ = _FLOCK.unpack(answer)
        return None if kind == fcntl.F_UNLCK else start

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size
