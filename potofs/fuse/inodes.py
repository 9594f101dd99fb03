"""Which entry an inode number stands for, as long as the kernel remembers the number."""

from potofs.errors import Stale
from potofs.tree import nodes
from potofs.tree.nodes import Node
from potofs.tree.tree import ROOT_INODE


class Inodes:
    """Entries by inode number, each with its lookup count: how often the kernel was told of it."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {ROOT_INODE: nodes.ROOT}
        self._lookup_counts: dict[int, int] = {ROOT_INODE: 1}

    def node(self, inode: int) -> Node:
        """The entry; raises Stale for a number that the kernel was never told or has forgotten."""
        try:
            return self._nodes[inode]
        except KeyError:
            raise Stale(f"inode {inode} is unknown") from None

    def remember(self, inode: int, node: Node) -> None:
        """The kernel is told of an entry once more; it may have moved since the last time."""
        self._nodes[inode] = node
        self._lookup_counts[inode] = self._lookup_counts.get(inode, 0) + 1

    def moved(self, inode: int, node: Node) -> None:
        """A conversation has another name now."""
        if inode in self._nodes:
            self._nodes[inode] = node

    def forget(self, inode: int, times: int) -> None:
        """The kernel forgets so many of the times that it was told."""
        left = self._lookup_counts.get(inode, 0) - times
        if left > 0 or inode == ROOT_INODE:
            self._lookup_counts[inode] = left
        else:
            self._lookup_counts.pop(inode, None)
            self._nodes.pop(inode, None)

    def __len__(self) -> int:
        return len(self._nodes)
