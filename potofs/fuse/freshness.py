"""Has the kernel forget what others have changed, where the backend tells of it, and what it need not remember.

The kernel may remember names and attributes of directories and archives for a second (`operations`). A notice cuts that
short. It is passed on in a thread of its own: the kernel may hold it up until a request is answered that is at work in
the same directory, which trio's thread has to go on answering. What is to be passed on meanwhile is kept once, however
often it changes, and if that becomes too much, the kernel is to forget everything.

What it need not remember are names of files that nobody has asked for lately, where there are too many (`inodes`). What
somebody has mounted over such a file goes with its name. Never those of directories: a process that is in one would
not be told any more where it is.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import pyfuse3
from pyfuse3 import FileNameT, InodeT

from potofs.backends.base import Notice
from potofs.fuse.inodes import Inodes
from potofs.tree.attributes import virtual_inode
from potofs.tree.changed import Outdated, outdated, outdated_of
from potofs.tree.nodes import Node
from potofs.tree.tree import Tree

#: How long the kernel may remember directories and archives, names and attributes (seconds).
REMEMBERED = 1.0

# More than so many outdated entries are everything.
_MANY = 1024
# So many of what the kernel need not remember are told at once, and so many wait for that.
_FEW = 64
_MANY_NEEDLESS = 1024
# How long to wait for the kernel when it is over (seconds).
_PATIENCE = 5.0


class Freshness:
    """What the kernel remembers of one mount, kept up to date from when it is opened until it is closed."""

    def __init__(self, tree: Tree, inodes: Inodes) -> None:
        self._tree, self._inodes = tree, inodes
        self._changed = threading.Condition()
        # In the order in which they came.
        self._outdated: dict[Outdated, None] = {}
        self._is_everything = False
        # The longest ago first.
        self._needless: deque[tuple[int, Node]] = deque()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._unwatch: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Begins; once it is mounted."""
        self._unwatch = self._tree.watch(self.note)

    def close(self) -> None:
        """Ends; while requests are answered still, unless the mount has gone. Done twice, it does nothing more."""
        with self._changed:
            self._over.set()
            self._changed.notify()
        self._unwatch()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def note(self, notice: Notice | None) -> None:
        """Takes what the backend tells; in any thread, and returns at once."""
        with self._changed:
            if self._over.is_set():
                return
            if notice is None:
                self._is_everything = True
            elif not self._is_everything:
                self._outdated.update(dict.fromkeys(outdated(notice)))
                self._is_everything = len(self._outdated) > _MANY
            if self._is_everything:
                self._outdated.clear()
            self._go_on()

    @property
    def takes_more(self) -> bool:
        """Whether it does not have a lot to let go of already."""
        return len(self._needless) < _MANY_NEEDLESS

    def let_go(self, files: Iterable[tuple[int, Node]]) -> None:
        """Takes files that the kernel need not remember, by their numbers, unless it is told of them again."""
        with self._changed:
            if not self._over.is_set():
                self._needless.extend(files)
                self._go_on()

    def _go_on(self) -> None:
        if self._thread is None:
            # Only where there is something to tell: mostly there never is.
            self._thread = threading.Thread(target=self._run, name="potofs-freshness", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._over.is_set() or self._is_everything or self._outdated or self._needless
                )
                if self._over.is_set():
                    return
                if self._is_everything or self._outdated:
                    what = self._everything() if self._is_everything else iter(self._outdated)
                    self._outdated, self._is_everything = {}, False
                else:
                    # Few at a time, for what has changed comes first.
                    few = [self._needless.popleft() for _ in range(min(_FEW, len(self._needless)))]
                    what = self._of_needless(few)
            for one in what:
                if self._over.is_set():
                    return
                self._forget(one)

    def _of_needless(self, files: Iterable[tuple[int, Node]]) -> Iterator[Outdated]:
        for inode, node in files:
            found = outdated_of(node)
            if found is not None and self._inodes.is_needless(inode):
                yield found

    def _everything(self) -> Iterator[Outdated]:
        """All that the kernel may remember, as long as it does so without being told."""
        deadline = time.monotonic() + REMEMBERED
        for node in self._inodes.nodes():
            if time.monotonic() > deadline:
                return
            found = outdated_of(node)
            if found is not None:
                yield found

    def _forget(self, what: Outdated) -> None:
        inode = InodeT(virtual_inode(what.directory))
        # That the kernel knows nothing of it, or that the mount has gone meanwhile.
        with suppress(OSError):
            if what.name is None:
                pyfuse3.invalidate_inode(inode, attr_only=True)
            else:
                pyfuse3.invalidate_entry(inode, FileNameT(os.fsencode(what.name)))
