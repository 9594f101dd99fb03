"""Which conversation a number means that the kernel has looked up: it may have been archived, or begun, since.

Synchronous: where it runs is for `workers` to decide. The numbers and handles that it looks at belong to trio's thread,
and each look is a single one.
"""

import os

from potofs.backends.base import Reader
from potofs.errors import NotFound, Stale
from potofs.fuse.handles import Handles
from potofs.fuse.inodes import Inodes
from potofs.tree.attributes import Attributes
from potofs.tree.nodes import Kind, Node
from potofs.tree.tree import Tree

# What has a number of its own once it is stored.
_NUMBERED = frozenset({Kind.CURRENT, Kind.ARCHIVE, Kind.REJECTED_FILE, Kind.SCRATCH})


class Finder:
    """Follows conversations of one mount to where they are."""

    def __init__(self, tree: Tree, inodes: Inodes, handles: Handles) -> None:
        self._tree, self._inodes, self._handles = tree, inodes, handles

    def attributes(self, inode: int, node: Node) -> Attributes:
        """What is shown of a number, wherever its conversation is by now; raises Stale if it is nowhere."""
        present = self._present(node)
        is_unwritten = self._is_unwritten(inode, node)
        if present is not None:
            if present.inode == inode or node.kind not in _NUMBERED:
                return present
            if is_unwritten:
                # Begun by now, and this handle was there before the conversation had its own number.
                return present._replace(inode=inode)
        opened = self._handles.attributes(inode)
        if opened is not None:
            return opened
        if is_unwritten:
            return self._tree.unwritten(node)
        moved = self._tree.relocated(node, inode)
        self._inodes.moved(inode, moved.node)
        return moved.attributes

    def reader(self, inode: int, node: Node) -> Reader | None:
        """Its contents, opened; None for a conversation that is to be begun; raises Stale if it is another by now."""
        try:
            reader = self._tree.open(node)
        except NotFound:
            if self._is_unwritten(inode, node):
                return None
            raise Stale(f"{node} has moved") from None
        if node.kind is Kind.CURRENT and not self._is_unwritten(inode, node) and reader.stat().id != inode:
            reader.close()
            raise Stale(f"{node} is another one now")
        return reader

    def to_append_to(self, inode: int, node: Node, flags: int) -> Node:
        """What an append to a looked-up file goes to, whatever was archived since; raises Stale."""
        if node.kind is Kind.ARCHIVE and self._inodes.may_mean_current(inode):
            if self._inodes.may_mean_archive(inode):
                raise Stale(f"{node} was the running conversation until now")
            node = Node(Kind.CURRENT, node.user)
        # Appends go to the user's running conversation, whichever that is by then. Not ESTALE: the kernel looks again
        # only once, and where many write, that one may be archived by then, too.
        if node.kind is Kind.CURRENT and flags & os.O_ACCMODE == os.O_RDWR:
            self.refuse_stale(inode, node)
        return node

    def refuse_stale(self, inode: int, node: Node) -> None:
        """Raises Stale unless a number is still that of the entry that it was looked up as."""
        present = self._present(node)
        if not self._is_unwritten(inode, node) and (present is None or present.inode != inode):
            raise Stale(f"{node} is another one now")

    def _present(self, node: Node) -> Attributes | None:
        try:
            return self._tree.attributes(node)
        except NotFound:
            return None

    def _is_unwritten(self, inode: int, node: Node) -> bool:
        """Whether a number is that of a file before it is begun."""
        return node.kind in _NUMBERED and self._tree.unwritten(node).inode == inode
