"""What programs have open: files being read, conversations being appended to, directories being listed."""

import logging
from collections.abc import Iterable
from typing import TypeVar

import trio

from potofs.backends.base import Reader
from potofs.errors import PotofsError, Stale
from potofs.journal.appending import Appender
from potofs.tree.nodes import Node

log = logging.getLogger(__name__)


class FileHandle:
    """An open file: it can be read, appended to, or both."""

    def __init__(self, node: Node, inode: int, reader: Reader | None, appender: Appender | None) -> None:
        self.node = node
        self.inode = inode
        #: None for a conversation that nobody had begun yet, and for one opened to append only.
        self.reader = reader
        #: None for a file that is only read.
        self.appender = appender
        #: Requests that append take their turns: a record is put together from several.
        self.turn = trio.Lock()
        #: Whether something was appended that `fsync: close` has to make durable.
        self.is_dirty = False

    def keep(self, reader: Reader) -> Reader:
        """Takes a reader that was opened for it, or closes it if another request was first; returns the one it has."""
        if self.reader is None:
            self.reader = reader
        else:
            reader.close()
        return self.reader

    def close(self) -> None:
        """Lets go of the file; what was appended and is no message yet is set aside."""
        if self.appender is not None:
            try:
                self.appender.close()
            except (PotofsError, OSError) as error:
                # Whoever wrote it is gone, and was never told that it is stored.
                log.error("%s: what was not finished could not be kept in rejected/: %s", self.node, error)
        if self.reader is not None:
            self.reader.close()
            self.reader = None


class DirectoryHandle:
    """An open directory, with its names as they were when it was opened."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.names: list[str] | None = None


Kind = TypeVar("Kind", FileHandle, DirectoryHandle)


class Handles:
    """Open files and directories by the numbers that the kernel uses for them."""

    def __init__(self) -> None:
        self._handles: dict[int, FileHandle | DirectoryHandle] = {}
        self._last = 0

    def add(self, handle: FileHandle | DirectoryHandle) -> int:
        self._last += 1
        self._handles[self._last] = handle
        return self._last

    def get(self, number: int, kind: type[Kind]) -> Kind:
        handle = self._handles.get(number)
        if not isinstance(handle, kind):
            raise Stale(f"handle {number} is not open")
        return handle

    def remove(self, number: int, kind: type[Kind]) -> Kind:
        handle = self.get(number, kind)
        del self._handles[number]
        return handle

    def reading(self, inode: int) -> Reader | None:
        """Somebody's reader of a conversation; may be asked for in any thread."""
        for handle in list(self._handles.values()):
            if isinstance(handle, FileHandle) and handle.inode == inode and handle.reader is not None:
                return handle.reader
        return None

    def files(self) -> Iterable[FileHandle]:
        return [handle for handle in self._handles.values() if isinstance(handle, FileHandle)]

    def __len__(self) -> int:
        return len(self._handles)
