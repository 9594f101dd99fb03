"""Which conversation a number means that the kernel has looked up: it may have been archived, or begun, since.

Synchronous: where it runs is for `workers` to decide. What has moved is looked for among all archives of its user:
whoever may not `wait` is told WouldBlock before that, with nothing done. The numbers and handles that it looks at are
those of trio's thread, and each look is a single one.
"""

import os
from contextlib import suppress

from potofs.backends.base import Reader
from potofs.errors import NotFound, Stale, WouldBlock
from potofs.fuse.handles import Handles
from potofs.fuse.inodes import Inodes
from potofs.tree.attributes import Attributes
from potofs.tree.nodes import Kind, Node
from potofs.tree.tree import Tree

# What has a number of its own once it is stored.
_NUMBERED = frozenset({Kind.CURRENT, Kind.ARCHIVE, Kind.REJECTED_FILE, Kind.SCRATCH})
# How often a conversation is looked for that is being moved about meanwhile.
_TRIES = 5


class Finder:
    """Follows conversations of one mount to where they are."""

    def __init__(self, tree: Tree, inodes: Inodes, handles: Handles) -> None:
        self._tree, self._inodes, self._handles = tree, inodes, handles

    def attributes(self, inode: int, node: Node, *, wait: bool = True) -> Attributes:
        """What is shown of a number, wherever its conversation is by now; raises Stale if it is nowhere.

        Raises WouldBlock instead of going over all archives if it may not `wait`.
        """
        for _ in range(_TRIES - 1):
            # It may be on its way from one name to another; and by an open descriptor nobody asks twice.
            with suppress(Stale):
                return self._attributes(inode, node, wait=wait)
        return self._attributes(inode, node, wait=wait)

    def _attributes(self, inode: int, node: Node, *, wait: bool) -> Attributes:
        present = self._made(inode, node) if node.kind is Kind.METADATA else self._present(node)
        is_unwritten = self._is_unwritten(inode, node)
        if present is not None:
            if present.inode == inode or node.kind not in _NUMBERED:
                return present
            if is_unwritten:
                # Begun by now, and this handle was there before the conversation had its own number.
                return present._replace(inode=inode)
        if not (wait or is_unwritten):
            raise WouldBlock(f"{node} has moved")
        opened = self._handles.attributes(inode)
        if opened is not None:
            return opened
        if is_unwritten:
            return self._tree.unwritten(node)
        moved = self._tree.relocated(node, inode)
        self._inodes.moved(inode, moved.node)
        return moved.attributes

    def reader(self, inode: int, node: Node, *, appends: bool = False, wait: bool = True) -> Reader | None:
        """Its contents, opened; None for a conversation that is to be begun; raises Stale if it is nowhere.

        One that was archived, restored or renamed since it was looked up is opened as if that had been a moment later.
        Not to be appended to as well (`appends`): what is read and what is gone on with are the same conversation.
        Raises WouldBlock instead of going over all archives if it may not `wait`.
        """
        is_unwritten = self._is_unwritten(inode, node)
        try:
            reader = self._tree.open(node)
        except NotFound:
            if is_unwritten:
                return None
        else:
            if is_unwritten or self._is(reader, inode, node):
                return reader
            reader.close()
        if appends:
            raise Stale(f"{node} is another one now")
        if not wait:
            raise WouldBlock(f"{node} has moved")
        return self._wherever_it_is(inode, node)

    def to_append_to(self, inode: int, node: Node, flags: int, sought_as: Kind | None) -> Node:
        """What an append to a looked-up file goes to, whatever was archived since; raises Stale.

        `sought_as`: as what whoever opens it has looked it up just now; None if that is not known.
        """
        if node.kind is Kind.ARCHIVE and sought_as is not Kind.ARCHIVE and self._inodes.may_mean_current(inode):
            if sought_as is None and self._inodes.may_mean_archive(inode):
                # The kernel looks the name up again, and then it is known.
                raise Stale(f"{node} was the running conversation until now")
            node = Node(Kind.CURRENT, node.user)
        # Appends go to the user's running conversation, whichever that is by then. Not ESTALE: the kernel looks again
        # only once, and where many write, that one may be archived by then, too.
        if node.kind is Kind.CURRENT and flags & os.O_ACCMODE == os.O_RDWR:
            self.refuse_stale(inode, node)
        return node

    def _wherever_it_is(self, inode: int, node: Node) -> Reader:
        for attempt in range(_TRIES):
            # It may go from one name to another between any two looks.
            with suppress(NotFound, *([Stale] if attempt < _TRIES - 1 else [])):
                moved = self._tree.relocated(node, inode).node
                reader = self._tree.open(moved)
                if self._is(reader, inode, moved):
                    return reader
                reader.close()
        raise Stale(f"{node} moves about")

    @staticmethod
    def _is(reader: Reader, inode: int, node: Node) -> bool:
        """Whether this is what was looked up; of what is no conversation, the name says it."""
        return node.kind not in {Kind.CURRENT, Kind.ARCHIVE} or reader.stat().id == inode

    def refuse_stale(self, inode: int, node: Node) -> None:
        """Raises Stale unless a number is still that of the entry that it was looked up as."""
        present = self._present(node)
        if not self._is_unwritten(inode, node) and (present is None or present.inode != inode):
            raise Stale(f"{node} is another one now")

    def _made(self, inode: int, node: Node) -> Attributes | None:
        """What is shown of a file that is made anew whenever somebody asks for it; None if it is not there.

        Whoever has it open and has not read yet will read what is shown now: a program that has asked for its size
        reads as much.
        """
        try:
            reader = self._tree.open(node)
        except NotFound:
            return None
        self._handles.show(inode, reader)
        return self._tree.attributes_of(node, reader.stat())

    def _present(self, node: Node) -> Attributes | None:
        try:
            return self._tree.attributes(node)
        except NotFound:
            return None

    def _is_unwritten(self, inode: int, node: Node) -> bool:
        """Whether a number is that of a file before it is begun."""
        return node.kind in _NUMBERED and self._tree.unwritten(node).inode == inode
