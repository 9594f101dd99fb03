"""How far a running conversation may be shown while somebody appends to it: never into half a record.

A write(2) lets a file grow page by page, and whoever looks meanwhile sees the beginning of what is written. It is
written by who holds the user's lock. So where a conversation does not end in a record's end and the lock is taken, the
end that counts is that of the last whole record; where the lock is free, what is there was left so, by a writer that
died or by a program that takes no lock, and is shown as it is.
"""

import fcntl
import os

from potofs.backends.base import RECORD_END, Stat
from potofs.backends.filesystem.files import FileReader, NumberOf, stat_of

# Bytes looked at in one go for the end of the last whole record.
_PIECE = 1 << 16


class SettledReader(FileReader):
    """A conversation's file, opened; `running` is the path of the user's running one, which it may be or become."""

    def __init__(self, path: str, running: str, lock: str, number_of: NumberOf) -> None:
        super().__init__(path, number_of)
        self._running, self._lock = running, lock
        # How much was shown to be there (bytes): it stays there.
        self._shown = 0

    def stat(self) -> Stat:
        end = self._end()
        return stat_of(os.fstat(self._descriptor), self._number_of)._replace(size=end)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, min(size, max(0, self._end() - offset)), offset)

    def _end(self) -> int:
        size = self._size()
        if size != self._shown:
            tail = os.pread(self._descriptor, len(RECORD_END), max(0, size - len(RECORD_END)))
            size = size if tail == RECORD_END else self._settled()
            self._shown = max(self._shown, size)
        return size

    def _settled(self) -> int:
        """Where it ends, but for what is being written."""
        try:
            lock = os.open(self._lock, os.O_RDONLY)
        except FileNotFoundError:
            # Nobody who takes it has ever written here.
            return self._size()
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._last_end() if self._is_running() else self._size()
        else:
            try:
                return self._size()
            finally:
                # Closing would not do: a child forked meanwhile would go on holding it.
                fcntl.flock(lock, fcntl.LOCK_UN)
        finally:
            os.close(lock)

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _is_running(self) -> bool:
        """Whether it is the running one: what was archived grows no more."""
        try:
            return os.path.samestat(os.stat(self._running), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _last_end(self) -> int:
        """Where the last whole record ends."""
        end = self._size()
        shown = min(self._shown, end)
        while end > shown:
            start = max(shown, end - _PIECE)
            # A record's end may lie on both sides of where a piece begins.
            before = max(0, start - len(RECORD_END))
            found = os.pread(self._descriptor, end - before, before).rfind(RECORD_END)
            if found >= 0:
                return before + found + len(RECORD_END)
            end = start
        return shown
