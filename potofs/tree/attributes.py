"""What is shown of an entry, and the numbers of entries that are no conversation."""

from hashlib import blake2b
from typing import NamedTuple

from potofs.backends.base import Stat
from potofs.tree.nodes import Kind, Node

#: The number that a kernel gives to the root of every mount.
ROOT_INODE = 1
# Numbers of entries that are no conversation have the highest bit set; conversations have their own below it.
_VIRTUAL = 1 << 63


class Attributes(NamedTuple):
    """What is shown of an entry."""

    inode: int
    mode: int
    #: Bytes.
    size: int
    #: Nanoseconds since 1970.
    mtime_ns: int
    ctime_ns: int
    #: The system user and group that a scratch file was given to; None: as everything else here.
    owner: tuple[int, int] | None = None


class Entry(NamedTuple):
    """An entry that is there."""

    node: Node
    attributes: Attributes


def virtual_inode(node: Node) -> int:
    """The number of an entry that is no conversation: the same in every mount, of any backend."""
    if node.kind is Kind.ROOT:
        return ROOT_INODE
    digest = blake2b(f"{node.kind.name}\0{node.user}\0{node.name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) | _VIRTUAL


def sizeless(node: Node, changed_ns: int) -> Attributes:
    """What is shown of a directory, or in a listing of a file whose size takes time to find out: it has none.

    `changed_ns`: when something in it came, went or changed (nanoseconds since 1970).
    """
    return Attributes(virtual_inode(node), node.kind.mode, 0, changed_ns, changed_ns)


def stored(node: Node, stat: Stat) -> Attributes:
    """What is shown of what a backend has."""
    return Attributes(stat.id, node.kind.mode, stat.size, stat.mtime_ns, stat.ctime_ns)
