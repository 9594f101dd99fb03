"""The mounted tree over a journal: what is there, what it holds, and what may be done to it.

Knows nothing of kernels: `fuse` translates. Everything that POSIX would allow and an append-only journal cannot is
refused with NotPermitted, and nothing is changed then.
"""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from potofs.backends.base import Capability, Reader, Snapshot, Stat, Usage
from potofs.errors import InvalidName, NotFound, NotPermitted, Stale
from potofs.journal import metadata
from potofs.journal.appending import Appender
from potofs.journal.journal import DialogueJournal
from potofs.tree import nodes
from potofs.tree.attributes import Attributes, Entry, virtual_inode
from potofs.tree.nodes import Kind, Node


class Tree:
    """One journal as a tree. Synchronous and thread-safe, as the journal is."""

    def __init__(self, journal: DialogueJournal) -> None:
        self._journal = journal
        self._backend = journal.backend
        self._attributes: dict[Kind, Callable[[Node], Attributes]] = {
            Kind.ROOT: self._of_users,
            Kind.USERS: self._of_users,
            Kind.USER: self._of_user,
            Kind.DIALOGS: self._of_user,
            Kind.ARCHIVED: self._of_archived,
            Kind.REJECTED: self._of_rejected,
            Kind.CURRENT: self._of_contents,
            Kind.ARCHIVE: self._of_contents,
            Kind.REJECTED_FILE: self._of_contents,
            Kind.METADATA: self._of_contents,
        }
        self._members: dict[Kind, Callable[[str], Iterator[str]]] = {
            Kind.USERS: lambda _: self._journal.users(),
            Kind.ARCHIVED: lambda user: (archive.name for archive in self._backend.archives(user)),
            Kind.REJECTED: lambda user: (rejected.name for rejected in self._backend.set_asides(user)),
        }

    # What is there

    def lookup(self, parent: Node, name: str) -> Entry:
        """The entry of that name; raises NotFound, NameTooLong."""
        try:
            node = nodes.child(parent, name)
        except InvalidName:
            node = None
        if node is None:
            raise NotFound(f"{parent} has no entry {name!r}")
        return Entry(node, self.attributes(node))

    def names(self, parent: Node) -> list[str]:
        """The names in a directory, sorted; what comes or goes meanwhile may be in it or not."""
        if parent.kind in self._members:
            encode = nodes.FAMILIES[parent.kind].encode
            return sorted(map(encode, self._members[parent.kind](parent.user)))
        return sorted(nodes.FIXED[parent.kind])

    def attributes(self, node: Node) -> Attributes:
        """What is shown of an entry; raises NotFound if it is not there."""
        return self._attributes[node.kind](node)

    def attributes_of(self, node: Node, stat: Stat) -> Attributes:
        """What is shown of contents that are open."""
        return Attributes(stat.id, node.kind.mode, stat.size, stat.mtime_ns, stat.ctime_ns)

    def unwritten(self, node: Node) -> Attributes:
        """What is shown of a running conversation that somebody has opened to begin it."""
        now = time.time_ns()
        return Attributes(virtual_inode(node), node.kind.mode, 0, now, now)

    def relocated(self, node: Node, inode: int) -> Entry:
        """Where a conversation is now that used to be `node`; raises Stale if it is nowhere."""
        for archive in self._backend.archives(node.user):
            if archive.stat.id == inode:
                moved = Node(Kind.ARCHIVE, node.user, archive.name)
                return Entry(moved, self.attributes_of(moved, archive.stat))
        with suppress(NotFound):
            current = Node(Kind.CURRENT, node.user)
            attributes = self.attributes(current)
            if attributes.inode == inode:
                return Entry(current, attributes)
        raise Stale(f"{node} has moved")

    def usage(self) -> Usage:
        """How full the backend is."""
        return self._backend.usage()

    # What it holds

    def open(self, node: Node) -> Reader:
        """The contents of a file; raises NotFound."""
        match node.kind:
            case Kind.CURRENT:
                return self._backend.open(node.user)
            case Kind.ARCHIVE:
                return self._backend.open(node.user, node.name)
            case Kind.REJECTED_FILE:
                return self._backend.open_set_aside(node.user, node.name)
            case Kind.METADATA:
                return self._metadata(node)
            case _:
                raise IsADirectoryError(errno.EISDIR, "this is a directory", str(node))

    # What may be done

    @property
    def blocks(self) -> bool:
        """Whether everything waits for a network."""
        return self._backend.blocks

    @property
    def append_blocks(self) -> bool:
        """Whether appending waits for a disk or a network even when no other writer is there."""
        return self._backend.append_blocks

    @property
    def sync_on_close(self) -> bool:
        """Whether what was appended has to be made durable when its handle is closed."""
        return self._backend.sync_on_close

    def appender(self, node: Node) -> Appender:
        """Takes what is appended to a running conversation, whether there is one yet or not."""
        if node.kind is not Kind.CURRENT:
            raise NotPermitted(f"{node} cannot be written to: only current.yaml takes appends")
        return self._journal.appender(node.user)

    def to_create(self, parent: Node, name: str) -> Node:
        """The file that can be made in a directory by writing to it; raises NotPermitted for any other."""
        try:
            node = nodes.child(parent, name)
        except InvalidName:
            node = None
        if node is None or node.kind is not Kind.CURRENT:
            raise NotPermitted(f"{name!r} cannot be made in {parent}: only dialogs/current.yaml takes what is written")
        return node

    def make_directory(self, parent: Node, name: str) -> Entry:
        """Makes a user; raises NotPermitted for any other directory, InvalidName, NameTooLong, AlreadyExists."""
        if parent.kind is not Kind.USERS:
            raise NotPermitted(f"no directory can be made in {parent}: mkdir makes users, in users/")
        node = nodes.child(parent, name)
        assert node is not None  # every name in users/ is a user's, or raises
        self._journal.create_user(node.user)
        return Entry(node, self.attributes(node))

    def rename(self, parent: Node, name: str, new_parent: Node, new_name: str) -> Node:
        """Archives the running conversation, for that is what moving it into archived/ means; returns the archive.

        Moved there under its own name, it is called by the time. Raises AlreadyExists, NotFound, and NotPermitted
        (InvalidName) for any other renaming.
        """
        source = self.lookup(parent, name).node
        if source.kind is not Kind.CURRENT or new_parent.kind is not Kind.ARCHIVED:
            raise NotPermitted(f"{source} cannot be moved there: only current.yaml can be, into archived/")
        if source.user != new_parent.user:
            raise NotPermitted(f"a conversation of user {source.user!r} cannot become one of {new_parent.user!r}")
        archive = None
        if new_name != name:
            target = nodes.child(new_parent, new_name)
            assert target is not None  # every name in archived/ is an archive's, or raises
            archive = target.name
        return Node(Kind.ARCHIVE, source.user, self._journal.archive_conversation(source.user, archive))

    def remove(self, parent: Node, name: str) -> None:
        """Removes a rejected file; raises NotPermitted for everything else that is there, NotFound."""
        node = self.lookup(parent, name).node
        if node.kind is not Kind.REJECTED_FILE:
            raise NotPermitted(f"{node} is never removed")
        self._backend.remove_set_aside(node.user, node.name)

    def set_times(self, node: Node, mtime_ns: int) -> None:
        """Sets when a conversation was last appended to; raises NotPermitted for what has no time of its own."""
        if node.kind not in {Kind.CURRENT, Kind.ARCHIVE}:
            raise NotPermitted(f"the times of {node} follow what is in it")
        self._backend.set_times(node.user, node.name if node.kind is Kind.ARCHIVE else None, mtime_ns)

    def sync(self, node: Node) -> None:
        """Makes everything durable that was appended to a conversation."""
        self._backend.sync(node.user)

    # Where attributes come from

    def _of_users(self, node: Node) -> Attributes:
        changed = self._backend.users_changed()
        return Attributes(virtual_inode(node), node.kind.mode, 0, changed, changed)

    def _of_user(self, node: Node) -> Attributes:
        if not self._backend.has_user(node.user):
            raise NotFound(f"there is no user {node.user!r}")
        changed = self._backend.user_changed(node.user)
        return Attributes(virtual_inode(node), node.kind.mode, 0, changed, changed)

    def _of_archived(self, node: Node) -> Attributes:
        if Capability.ARCHIVAL not in self._backend.capabilities:
            raise NotFound(f"there are no archives of user {node.user!r}: the backend has no archival")
        return self._of_user(node)

    def _of_rejected(self, node: Node) -> Attributes:
        if not self._backend.set_asides(node.user):
            raise NotFound(f"nothing of user {node.user!r} was rejected")
        return self._of_user(node)

    def _of_contents(self, node: Node) -> Attributes:
        if node.kind is Kind.CURRENT or node.kind is Kind.ARCHIVE:
            # Without opening it: this is what most requests are.
            archive = node.name if node.kind is Kind.ARCHIVE else None
            return self.attributes_of(node, self._backend.stat(node.user, archive))
        with self.open(node) as contents:
            return self.attributes_of(node, contents.stat())

    def _metadata(self, node: Node) -> Reader:
        self._of_user(node)
        # Before it is made: what changes meanwhile has a later time.
        changed = metadata.changed(self._backend, node.user)
        data = self._journal.user_metadata(node.user)
        return Snapshot(data, Stat(virtual_inode(node), len(data), changed, changed))
