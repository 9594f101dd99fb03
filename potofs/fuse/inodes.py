"""Which entry an inode number stands for, as long as the kernel remembers the number.

That is the kernel's to say: until it needs the room itself it may remember every entry that it was ever told of. So
little is kept of each, and of what comes without end, archives, it is told in time to forget all but a few.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from potofs.errors import Stale
from potofs.tree import nodes
from potofs.tree.attributes import ROOT_INODE
from potofs.tree.nodes import Kind, Node

# How long after it was told of a running conversation the kernel may still come to open it (seconds). It remembers
# its name for no time at all, so a busy machine is all that lies between.
_ON_ITS_WAY = 2.0
# Processes of which it is known what they looked up last.
_PROCESSES = 4096
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
        # When the kernel was last told of a number as a running conversation, and of those as an archive (seconds,
        # monotonic); the longest ago first, and those only that are recent.
        self._told_as_current: dict[int, float] = {}
        self._told_as_archive: dict[int, float] = {}
        # When a number was given to another user's conversation while the kernel remembered it (seconds, monotonic).
        self._changed_hands: dict[int, float] = {}
        # When the kernel was last told of what comes without end (seconds, monotonic); the longest ago first, and
        # without those that were given to be let go since.
        self._endless: OrderedDict[int, float] = OrderedDict()
        # The conversation that a process has looked up last, as long as it has looked up nothing else, and as which.
        self._sought: OrderedDict[int, tuple[int, Kind]] = OrderedDict()
        # Processes that were told to look a name up again, and have opened or missed nothing since, and when (seconds,
        # monotonic); the longest ago first, and those only that are recent.
        self._sent_back: dict[int, float] = {}

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
                _note(self._changed_hands, inode)
        self._nodes[inode] = node
        self._note_endless(inode, node)
        if node.kind is Kind.CURRENT:
            _note(self._told_as_current, inode)
        elif inode in self._told_as_current:
            _note(self._told_as_archive, inode)

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
                _note(self._told_as_current, inode)

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

    def looked_up(self, process: int, inode: int, node: Node) -> None:
        """A process (or thread) has looked an entry up: what it does next is about that, if it is a conversation."""
        self._sought.pop(process, None)
        # 0 are all those of other pid namespaces.
        if node.kind in {Kind.CURRENT, Kind.ARCHIVE} and process:
            self._sought[process] = inode, node.kind
            if len(self._sought) > _PROCESSES:
                self._sought.popitem(last=False)

    def sought_as(self, process: int, inode: int) -> Kind | None:
        """As what a process that opens a conversation has looked it up, if nothing else since; asked once."""
        sought, kind = self._sought.pop(process, (None, None))
        return kind if sought == inode else None

    def send_back(self, process: int) -> None:
        """A process that opens something is told to look its name up again."""
        _note(self._sent_back, process)

    def is_back(self, process: int) -> bool:
        """Whether it was, and this is what it does then; asked once."""
        return _is_recent(self._sent_back.pop(process, None))

    def has_changed_hands(self, inode: int) -> bool:
        """Whether whoever opens a number may have looked it up when it was another user's.

        A file's number is given again once it is gone, and the kernel remembers the names of archives for a while.
        """
        return _is_recent(self._changed_hands.get(inode))

    def may_mean_current(self, inode: int) -> bool:
        """Whether whoever opens an archive may have looked it up when it was the running conversation."""
        return _is_recent(self._told_as_current.get(inode))

    def may_mean_archive(self, inode: int) -> bool:
        """Whether whoever opens it may have looked it up as the archive that it is."""
        return not self.may_mean_current(inode) or _is_recent(self._told_as_archive.get(inode))

    def forget(self, inode: int, times: int) -> None:
        """The kernel forgets so many of the times that it was told."""
        again = self._told_again.pop(inode, 0) - times
        if again > 0:
            self._told_again[inode] = again
        elif again < 0 and inode != ROOT_INODE:
            self._nodes.pop(inode, None)
            self._endless.pop(inode, None)
            self._told_as_current.pop(inode, None)
            self._told_as_archive.pop(inode, None)
            self._changed_hands.pop(inode, None)

    def _note_endless(self, inode: int, node: Node) -> None:
        if node.kind in _ENDLESS:
            self._endless[inode] = time.monotonic()
            self._endless.move_to_end(inode)

    def __len__(self) -> int:
        """How many numbers the kernel remembers, the root among them."""
        return len(self._nodes)


def _note(moments: dict[int, float], number: int) -> None:
    """Notes the present moment for a number, and forgets moments that are not recent any more."""
    moments.pop(number, None)
    while moments:
        oldest = next(iter(moments))
        if _is_recent(moments[oldest]):
            break
        del moments[oldest]
    moments[number] = time.monotonic()


def _is_recent(moment: float | None) -> bool:
    return moment is not None and time.monotonic() - moment < _ON_ITS_WAY
