"""What programs have open, by the numbers that the kernel uses for it.

Changed on trio's thread only. What may be asked for in any thread takes each look in one step, which that cannot come
between.
"""

from potofs.backends.base import Reader
from potofs.errors import Stale
from potofs.fuse.directories import DirectoryHandle
from potofs.fuse.files import ConversationFile, DraftFile, OpenFile
from potofs.tree.attributes import Attributes


class Handles:
    """Open files and directories of one mount."""

    def __init__(self) -> None:
        self._files: dict[int, OpenFile] = {}
        self._directories: dict[int, DirectoryHandle] = {}
        # The same files by the inode that each was opened by.
        self._of_inodes: dict[int, dict[int, OpenFile]] = {}
        self._last = 0

    def add(self, handle: OpenFile | DirectoryHandle) -> int:
        self._last += 1
        if isinstance(handle, OpenFile):
            self._files[self._last] = handle
            self._of_inodes.setdefault(handle.inode, {})[self._last] = handle
        else:
            self._directories[self._last] = handle
        return self._last

    def file(self, number: int) -> OpenFile:
        """Raises Stale if no file is open under this number."""
        try:
            return self._files[number]
        except KeyError:
            raise Stale(f"file {number} is not open") from None

    def directory(self, number: int) -> DirectoryHandle:
        """Raises Stale if no directory is open under this number."""
        try:
            return self._directories[number]
        except KeyError:
            raise Stale(f"directory {number} is not open") from None

    def remove(self, number: int) -> None:
        """Raises Stale if nothing is open under this number."""
        file = self._files.pop(number, None)
        if file is not None:
            del self._of_inodes[file.inode][number]
            if not self._of_inodes[file.inode]:
                del self._of_inodes[file.inode]
        elif self._directories.pop(number, None) is None:
            raise Stale(f"handle {number} is not open")

    def is_open(self, inode: int) -> bool:
        """Whether anybody has a file open by this number."""
        return inode in self._of_inodes

    def attributes(self, inode: int) -> Attributes | None:
        """What is known of a number by somebody who has it open; may be asked for in any thread."""
        for file in self._opened_by(inode):
            attributes = file.attributes()
            if attributes is not None:
                return attributes
        return None

    def drafts(self, inode: int, number: int | None) -> list[DraftFile]:
        """Where something is being written to a file: under a handle's number, or (None) by all who have it open."""
        files = self._opened_by(inode) if number is None else [self.file(number)]
        return [file for file in files if isinstance(file, DraftFile) and file.inode == inode]

    def show(self, inode: int, reader: Reader) -> None:
        """Has those read this who opened a number and have not begun to read; may be asked for in any thread."""
        for file in self._opened_by(inode):
            if isinstance(file, ConversationFile):
                file.show(reader)

    def files(self) -> list[OpenFile]:
        """All that are open; may be asked for in any thread."""
        return list(self._files.values())

    def directories(self) -> int:
        """How many directories are open; may be asked for in any thread."""
        return len(self._directories)

    def _opened_by(self, inode: int) -> list[OpenFile]:
        return list(self._of_inodes.get(inode, {}).values())
