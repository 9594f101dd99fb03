"""An open directory: names that the kernel asks for in pieces, at any place that it was told of, in any order.

A place is how many names came before. Names are taken from the tree as far as somebody has come, and kept in the order
in which they came, so that every place means the same for as long as the directory is open, whatever comes and goes
meanwhile. What is shown of the entries is asked of the tree for many at once.
"""

import errno
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import trio

from potofs import temporary
from potofs.errors import NotFound, PotofsError, reason
from potofs.tree.listing import Told
from potofs.tree.nodes import Node
from potofs.tree.tree import Tree

# Entries that are asked for at once. One page, which is what the kernel takes at a time, has room for some twenty.
_AT_ONCE = 512
# How long what was told of an entry may wait for the kernel to come for it (seconds).
_WAITS = 0.25
# Bytes of names that are kept in memory, and how many names there are for each place that is noted.
_IN_MEMORY = 1 << 18
_EVERY = 64


class Listed(NamedTuple):
    """An entry on its way to the kernel."""

    #: The place behind it.
    next_place: int
    name: str
    told: Told


class DirectoryHandle:
    """An open directory."""

    def __init__(self, tree: Tree, node: Node) -> None:
        self._tree = tree
        self.node = node
        #: Requests take turns.
        self.turn = trio.Lock()
        self._names: Names | None = None
        self._ahead: list[Listed] = []
        self._ahead_since = 0.0
        #: Why one of its entries could not be shown.
        self.failure: PotofsError | OSError | None = None
        #: Why nothing more could be read where somebody was told of what comes before; whoever goes on is told.
        self.interruption: Exception | None = None

    def ahead(self, place: int) -> Sequence[Listed]:
        """Entries from a place on that were asked for a moment ago; none if there are none."""
        if place and self._ahead and time.monotonic() - self._ahead_since < _WAITS:
            first = self._ahead[0].next_place - 1
            if first <= place:
                return self._ahead[place - first :]
        return ()

    def ends_at(self, place: int) -> bool:
        """Whether it is known already that nothing comes behind a place."""
        return self._names is not None and place > 0 and self._names.end == place

    def read(self, place: int) -> Sequence[Listed]:
        """Entries from a place on; none at the end. Raises what the tree does, but for what means the end to others.

        Those who read directories by the C library are told nothing of ENOENT: it takes that for the end, and what a
        listing lacks is removed from copies.
        """
        try:
            return self._read(place)
        except (NotFound, FileNotFoundError) as error:
            raise OSError(errno.EIO, f"{self.node} cannot be listed to the end: {reason(error)}") from error

    def _read(self, place: int) -> Sequence[Listed]:
        if self._names is None or not place:
            # At its beginning a directory is read anew.
            self.close()
            self._names = Names(self._tree.names(self.node))
        names = self._names.read(place, _AT_ONCE)
        since = time.monotonic()
        told = self._tree.entries(self.node, names) if names else []
        listed = zip(range(place + 1, place + 1 + len(names)), names, told, strict=True)
        self._ahead, self._ahead_since = list(map(Listed._make, listed)), since
        return self._ahead

    def close(self) -> None:
        """Lets go of the names."""
        if self._names is not None:
            self._names.close()
        self._names, self._ahead = None, []


class Names:
    """Names in the order in which they come, few in memory and many in a file without a name."""

    def __init__(self, names: Iterator[str]) -> None:
        first = list(islice(names, _AT_ONCE))
        # Few enough to be sorted, for people.
        self._names = iter(sorted(first)) if len(first) < _AT_ONCE else chain(first, names)
        self._failure: Exception | None = None
        self._file = temporary.Spooled(_IN_MEMORY)
        # How many there are so far, and the bytes of them.
        self._count = self._size = 0
        #: How many there are; None as long as nobody has come to the end.
        self.end: int | None = None
        # Where every 64th begins.
        self._noted = array("Q")

    def read(self, place: int, count: int) -> list[str]:
        """At most so many names from a place on; fewer only at the end. Raises what the names' source does."""
        if place + count > self._count:
            self._take(place + count - self._count)
        if place >= self._count:
            return []
        first = place - place % _EVERY
        last = (place + count) // _EVERY + 1
        begins, ends = self._noted[first // _EVERY], self._noted[last] if last < len(self._noted) else self._size
        self._file.seek(begins)
        names = self._file.read(ends - begins).split(b"\0")[:-1]
        return list(map(os.fsdecode, names[place - first : place - first + count]))

    def _take(self, count: int) -> None:
        if self._failure is not None:
            # What its source had left is lost: this is not the end.
            raise self._failure
        try:
            # No name has a NUL.
            names = [os.fsencode(name) + b"\0" for name in islice(self._names, count)]
            self._file.seek(self._size)
            self._file.write(b"".join(names))
        except Exception as error:
            self._failure = error
            raise
        for name in names:
            if not self._count % _EVERY:
                self._noted.append(self._size)
            self._count += 1
            self._size += len(name)
        if len(names) < count:
            self.end = self._count

    def close(self) -> None:
        """Forgets the names."""
        self._names = iter(())
        self._file.close()
