"""Where bytes wait that are written and not stored yet: as much of them as a file, and a mount, may have."""

import errno
import os
import threading
from contextlib import suppress

from potofs import temporary

# Bytes of one file that are kept in memory.
_IN_MEMORY = 1 << 20
#: Bytes that one file may have. It is looked at as a whole before it is stored.
LARGEST = 1 << 30
#: Bytes that all files of a mount may have together.
ROOM = 4 << 30


class Space:
    """The room that is left for all spools of one mount."""

    def __init__(self, size: int = ROOM) -> None:
        self._left = size
        self._guard = threading.Lock()

    def take(self, size: int) -> None:
        """Raises OSError (ENOSPC) if there is not so much left (bytes)."""
        with self._guard:
            if size > self._left:
                raise OSError(errno.ENOSPC, "too much is being copied at once: close or remove scratch files")
            self._left -= size

    def give(self, size: int) -> None:
        """Takes back what is needed no more."""
        with self._guard:
            self._left += size


class Spool:
    """Bytes of one file, at any offset. Thread-safe."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._guard = threading.Lock()
        self._file = temporary.Spooled(_IN_MEMORY)
        #: Bytes that it has.
        self.size = 0

    def write(self, offset: int, data: bytes) -> None:
        """Raises OSError: EFBIG past what one file may have, ENOSPC. What it has is as it was then."""
        end = offset + len(data)
        with self._guard:
            self._take(end)
            try:
                if end > _IN_MEMORY:
                    # Before a hole is filled with zeros, which a file on disk has for nothing.
                    self._file.rollover()
                self._put(offset, data)
            except BaseException:
                self._undo(end)
                raise
            self.size = max(self.size, end)

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        with self._guard:
            self._file.seek(offset)
            return self._file.read(size)

    def read_all(self) -> bytes:
        """All of it, read without keeping others from it. It needs its size in memory, not twice that."""
        with self._guard:
            if self.size <= _IN_MEMORY:
                self._file.seek(0)
                return self._file.read(self.size)
            # One of its own: should it be closed meanwhile, its number may become that of another file.
            size, descriptor = self.size, os.dup(self._file.fileno())
        try:
            data = os.pread(descriptor, size, 0)
        finally:
            os.close(descriptor)
        if len(data) < size:
            raise OSError(errno.EIO, f"of {size} bytes that were written only {len(data)} can be read again")
        return data

    def resize(self, size: int) -> None:
        """Cuts it off, or fills it with zeros; raises OSError as `write`."""
        with self._guard:
            self._take(size)
            try:
                self._set_size(size)
            except BaseException:
                self._undo(size)
                raise
            self._space.give(max(0, self.size - size))
            self.size = size

    def _set_size(self, size: int) -> None:
        if size == 0:
            # A file that it had is needed no more.
            self._file.close()
            self._file = temporary.Spooled(_IN_MEMORY)
        elif size > self.size and size <= _IN_MEMORY:
            # Not truncate(), which makes nothing longer in memory.
            self._put(self.size, bytes(size - self.size))
        else:
            if size > _IN_MEMORY:
                self._file.rollover()
            self._file.truncate(size)

    def close(self) -> None:
        """Forgets the bytes."""
        with self._guard:
            self._space.give(self.size)
            self.size = 0
            self._file.close()

    def _put(self, offset: int, data: bytes) -> None:
        self._file.seek(offset)
        self._file.write(data)

    def _undo(self, size: int) -> None:
        """Makes it as long as it was before it should have become so long."""
        self._space.give(max(0, size - self.size))
        with suppress(OSError):
            self._file.truncate(self.size)

    def _take(self, size: int) -> None:
        if size > LARGEST:
            raise OSError(errno.EFBIG, f"a file that is copied here may have {LARGEST >> 20} MiB")
        if size > self.size:
            self._space.take(size - self.size)
