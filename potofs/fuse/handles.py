"""What programs have open, by the numbers that the kernel uses for it."""

from potofs.backends.base import Reader
from potofs.errors import Stale
from potofs.fuse.directories import DirectoryHandle
from potofs.fuse.files import ConversationFile, DraftFile, OpenFile
from potofs.tree.attributes import Attributes

Handle = OpenFile | DirectoryHandle


class Handles:
    """Open files and directories of one mount."""

    def __init__(self) -> None:
        self._handles: dict[int, Handle] = {}
        self._last = 0

    def add(self, handle: Handle) -> int:
        self._last += 1
        self._handles[self._last] = handle
        return self._last

    def file(self, number: int) -> OpenFile:
        """Raises Stale if no file is open under this number."""
        handle = self._handles.get(number)
        if not isinstance(handle, OpenFile):
            raise Stale(f"file {number} is not open")
        return handle

    def directory(self, number: int) -> DirectoryHandle:
        """Raises Stale if no directory is open under this number."""
        handle = self._handles.get(number)
        if not isinstance(handle, DirectoryHandle):
            raise Stale(f"directory {number} is not open")
        return handle

    def directories(self) -> int:
        """How many directories are open."""
        return len(self) - len(self.files())

    def remove(self, number: int) -> None:
        """Raises Stale if nothing is open under this number."""
        if self._handles.pop(number, None) is None:
            raise Stale(f"handle {number} is not open")

    def attributes(self, inode: int) -> Attributes | None:
        """What is known of a number by somebody who has it open; may be asked for in any thread."""
        for handle in list(self._handles.values()):
            if isinstance(handle, OpenFile) and handle.inode == inode:
                attributes = handle.attributes()
                if attributes is not None:
                    return attributes
        return None

    def drafts(self, inode: int, number: int | None) -> list[DraftFile]:
        """Where something is being written to a file: under a handle's number, or (None) by all who have it open."""
        files = self.files() if number is None else [self.file(number)]
        return [file for file in files if isinstance(file, DraftFile) and file.inode == inode]

    def show(self, inode: int, reader: Reader) -> None:
        """Has those read this who opened a number and have not begun to read; may be asked for in any thread."""
        for handle in list(self._handles.values()):
            if isinstance(handle, ConversationFile) and handle.inode == inode:
                handle.show(reader)

    def files(self) -> list[OpenFile]:
        return [handle for handle in self._handles.values() if isinstance(handle, OpenFile)]

    def __len__(self) -> int:
        return len(self._handles)
