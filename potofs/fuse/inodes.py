"""Which entry an inode number stands for, as long as the kernel remembers the number.

That is the kernel's to say: until it needs the room itself it may remember every entry that it was ever told of. So
little is kept of each, and of what comes without end, archives, it is told in time to forget all but a few.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from potofs.errors import Stale
from potofs.fuse.recent import Recent, is_recent
from potofs.tree import nodes
from potofs.tree.attributes import ROOT_INODE
from potofs.tree.nodes import Kind, Node

#: Archives, and files in rejected/, that the kernel may remember however long ago it was told of them.
MANY = 1024
_ENDLESS = frozenset({Kind.ARCHIVE, Kind.REJECTED_FILE})
# It is told to forget none that it was told of so lately (seconds). Later than `freshness.REMEMBERED` it asks anyway
# whoever it is that a name stands for, so it costs nobody anything that it has forgotten.
_LATELY = 3.0
# So many are looked at each time: on trio's thread, everybody waits.
_FEW = 64


class Inodes:
    """Entries by inode number, each with its lookup count: how often the kernel was told of it."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {ROOT_INODE: nodes.ROOT}
        # How often beyond the first time; of most it was told once.
        self._told_again: dict[int, int] = {}
        # Of which numbers the kernel was just told as a running conversation, and of those as an archive.
        self._told_as_current = Recent()
        self._told_as_archive = Recent()
        # Which were just given to another user's conversation while the kernel remembered them.
        self._changed_hands = Recent()
        # When the kernel was last told of what comes without end (seconds, monotonic); the longest ago first, and
        # without those that were given to be let go since.
        self._endless: OrderedDict[int, float] = OrderedDict()

    def node(self, inode: int) -> Node:
        """The entry; raises Stale for a number that the kernel was never told or has forgotten."""
        try:
            return self._nodes[inode]
        except KeyError:
            raise Stale(f"inode {inode} is unknown") from None

    def nodes(self) -> list[Node]:
        """All entries that the kernel was told of and has not forgotten; in any thread."""
        # A copy in one step, which trio's thread cannot come between.
        return list(self._nodes.copy().values())

    def remember(self, inode: int, node: Node) -> None:
        """The kernel is told of an entry once more; it may have moved since the last time."""
        before = self._nodes.get(inode)
        if before is not None:
            self._told_again[inode] = self._told_again.get(inode, 0) + 1
            if before.user != node.user:
                self._changed_hands.note(inode)
        self._nodes[inode] = node
        self._note_endless(inode, node)
        if node.kind is Kind.CURRENT:
            self._told_as_current.note(inode)
        elif self._told_as_current.is_noted(inode):
            self._told_as_archive.note(inode)

    def moved(self, inode: int, node: Node) -> None:
        """A conversation has another name now. In any thread."""
        if inode in self._nodes:
            self._nodes[inode] = node

    def renamed(self, inode: int, node: Node) -> None:
        """The same, through this mount, which is how the kernel learns of it."""
        self.moved(inode, node)
        if inode in self._nodes:
            self._note_endless(inode, node)
            if node.kind is Kind.CURRENT:
                self._told_as_current.note(inode)

    def to_let_go(self, is_open: Callable[[int], bool]) -> list[tuple[int, Node]]:
        """If there is too much without end: a few numbers that it was not told of lately, and that nobody has open."""
        found: list[tuple[int, Node]] = []
        lately = time.monotonic() - _LATELY
        for _ in range(min(_FEW, len(self._endless) - MANY)):
            inode, told = next(iter(self._endless.items()))
            if told > lately:
                break
            if is_open(inode):
                # It is asked about once more, later.
                self._endless[inode] = time.monotonic()
                self._endless.move_to_end(inode)
                continue
            del self._endless[inode]
            if self._nodes[inode].kind in _ENDLESS:
                found.append((inode, self._nodes[inode]))
        return found

    def is_needless(self, inode: int) -> bool:
        """Whether the kernel was not told of such a number again. In any thread."""
        return inode not in self._endless

    def has_changed_hands(self, inode: int) -> bool:
        """Whether whoever opens a number may have looked it up when it was another user's.

        A file's number is given again once it is gone, and the kernel remembers the names of archives for a while.
        """
        return inode in self._changed_hands

    def may_mean_current(self, inode: int) -> bool:
        """Whether whoever opens an archive may have looked it up when it was the running conversation."""
        return inode in self._told_as_current

    def may_mean_archive(self, inode: int) -> bool:
        """Whether whoever opens it may have looked it up as the archive that it is."""
        return not self.may_mean_current(inode) or inode in self._told_as_archive

    def may_be_found_as_archive(self, inode: int) -> bool:
        """Whether it is the running conversation, and the kernel may remember a name that it had as an archive."""
        return self._nodes[inode].kind is Kind.CURRENT and is_recent(self._endless.get(inode))

    def forget(self, inode: int, times: int) -> None:
        """The kernel forgets so many of the times that it was told."""
        again = self._told_again.pop(inode, 0) - times
        if again > 0:
            self._told_again[inode] = again
        elif again < 0 and inode != ROOT_INODE:
            self._nodes.pop(inode, None)
            self._endless.pop(inode, None)
            self._told_as_current.forget(inode)
            self._told_as_archive.forget(inode)
            self._changed_hands.forget(inode)

    def _note_endless(self, inode: int, node: Node) -> None:
        if node.kind in _ENDLESS:
            self._endless[inode] = time.monotonic()
            self._endless.move_to_end(inode)

    def __len__(self) -> int:
        """How many numbers the kernel remembers, the root among them."""
        return len(self._nodes)
