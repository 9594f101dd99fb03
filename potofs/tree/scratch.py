"""Scratch files: what tools write beside a file to rename it in its place, under names that begin with a dot.

They are of one mount and gone with it. Any mode and owner, any bytes; nothing of them is in the journal.
"""

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from stat import S_IFREG

from potofs.errors import NotFound, NotPermitted
from potofs.tree.attributes import Attributes, virtual_inode
from potofs.tree.drafts import Draft
from potofs.tree.nodes import SCRATCH, Kind, Node
from potofs.tree.spool import Space, Spool

# As many as a mount may have, and those of one user in it.
_FILES = 2000
_FILES_OF_USER = 200


class Scratch(Draft):
    """One scratch file, for all who have it open."""

    is_free = True

    def __init__(self, node: Node, inode: int, mode: int, owner: tuple[int, int], space: Space) -> None:
        super().__init__(node)
        self._inode = inode
        self._mode, self._owner = mode, owner
        self._spool = Spool(space)
        self._mtime_ns = self._ctime_ns = time.time_ns()
        self._users = 1  # The folder that it is in.
        self._is_stored = False
        self._guard = threading.Lock()

    def attributes(self) -> Attributes:
        mode = S_IFREG | self._mode
        return Attributes(self._inode, mode, self._spool.size, self._mtime_ns, self._ctime_ns, self._owner)

    def read(self, offset: int, size: int) -> bytes:
        return self._spool.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        with self._guard:
            self._refuse_stored()
            self._spool.write(offset, data)
            self._mtime_ns = self._ctime_ns = time.time_ns()

    def resize(self, size: int) -> None:
        with self._guard:
            self._refuse_stored()
            self._spool.resize(size)
            self._mtime_ns = self._ctime_ns = time.time_ns()

    def set_times(self, mtime_ns: int) -> None:
        with self._guard:
            self._refuse_stored()
            self._mtime_ns, self._ctime_ns = mtime_ns, time.time_ns()

    def set_mode(self, mode: int) -> None:
        """Sets the permissions."""
        self._mode, self._ctime_ns = mode, time.time_ns()

    def set_owner(self, uid: int, gid: int) -> None:
        """Gives it to a system user and group."""
        self._owner, self._ctime_ns = (uid, gid), time.time_ns()

    @contextmanager
    def storing(self) -> Iterator[tuple[bytes, int]]:
        """All that was written, and its time, to be stored under another name; from then on nothing is written to it.

        Whoever has it open and goes on would be told that it is stored, and it would be nowhere.
        """
        with self._guard:
            self._refuse_stored()
            self._is_stored = True
        try:
            yield self._spool.read_all(), self._mtime_ns
        except BaseException:
            self._is_stored = False
            raise

    def _refuse_stored(self) -> None:
        if self._is_stored:
            raise NotPermitted(f"{self.node} was renamed, and what it held is stored: open it under its new name")

    def commit(self) -> None:
        """Is stored nowhere."""

    def hold(self) -> "Scratch":
        """Says that somebody else has it, who will `close` it."""
        with self._guard:
            self._users += 1
        return self

    def close(self) -> None:
        """One has it no more; the last one takes the bytes away."""
        with self._guard:
            self._users -= 1
            is_last = not self._users
        if is_last:
            self._spool.close()


class ScratchFiles:
    """The scratch files of one mount by their nodes."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._files: dict[Node, Scratch] = {}
        self._guard = threading.Lock()
        self._made = 0

    def make(self, node: Node, mode: int, owner: tuple[int, int]) -> Scratch:
        """A new one, or the one that is there, for somebody who will `close` it."""
        with self._guard:
            if node not in self._files:
                if len(self._files) >= _FILES or sum(one.user == node.user for one in self._files) >= _FILES_OF_USER:
                    raise OSError(errno.ENOSPC, "too many scratch files: remove some")
                self._made += 1
                # Not by its name, which it may give to another while somebody has it open.
                inode = virtual_inode(Node(Kind.SCRATCH, node.user, f"{self._made}/{node.name}"))
                self._files[node] = Scratch(node, inode, mode, owner, self._space)
            return self._files[node].hold()

    def open(self, node: Node) -> Scratch:
        """One that is there, for somebody who will `close` it; raises NotFound."""
        with self._guard:
            return self.get(node).hold()

    def get(self, node: Node) -> Scratch:
        """Raises NotFound."""
        try:
            return self._files[node]
        except KeyError:
            raise NotFound(f"there is no {node}") from None

    def names(self, parent: Node) -> Iterator[str]:
        """Those in a directory."""
        if parent.kind not in SCRATCH:
            return
        folder = SCRATCH[parent.kind]
        for node in list(self._files):
            if node.user == parent.user and node.name.startswith(folder) and "/" not in node.name[len(folder) :]:
                yield node.name[len(folder) :]

    def rename(self, node: Node, to: Node) -> None:
        """Gives it another name, whatever is there; raises NotFound."""
        if node == to:
            return
        with self._guard:
            file = self.get(node)
            replaced = self._files.get(to)
            self._files[to] = self._files.pop(node)
            file.node = to
        if replaced is not None:
            replaced.close()

    def remove(self, node: Node) -> None:
        """Takes its name away; raises NotFound."""
        with self._guard:
            file = self.get(node)
            del self._files[node]
        file.close()

    def close(self) -> None:
        """Takes all away."""
        for node in list(self._files):
            self.remove(node)
