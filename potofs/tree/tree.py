"""The mounted tree over a journal: what is there, what it holds, and what may be done to it.

Knows nothing of kernels: `fuse` translates. Everything that POSIX would allow and an append-only journal cannot is
refused with NotPermitted, and nothing is changed then.
"""

import errno
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from potofs.backends.base import Capability, Notice, Reader, Snapshot, Stat, Usage
from potofs.errors import (
    InvalidName,
    NotFound,
    NotPermitted,
    PotofsError,
    Stale,
    Unsupported,
)
from potofs.journal import metadata
from potofs.journal.appending import Appender
from potofs.journal.journal import DialogueJournal
from potofs.tree import nodes
from potofs.tree.attributes import Attributes, Entry, sizeless, stored, virtual_inode
from potofs.tree.drafts import Copy, Draft, Profile, put_profile_time
from potofs.tree.known import UsersChanged
from potofs.tree.listing import Listing
from potofs.tree.moving import BY_TIME, Moves
from potofs.tree.nodes import Kind, Node
from potofs.tree.restoring import Heard, Restoring
from potofs.tree.scratch import Scratch, ScratchFiles
from potofs.tree.spool import Space
from potofs.tree.system import SystemFiles

# What may be written in other ways than by appending.
_WRITABLE = frozenset({Kind.CURRENT, Kind.ARCHIVE, Kind.REJECTED_FILE, Kind.METADATA, Kind.SCRATCH})


class Tree:
    """One journal as a tree. Synchronous and thread-safe, as the journal is."""

    def __init__(self, journal: DialogueJournal) -> None:
        self._journal = journal
        self._backend = journal.backend
        self._space = Space()
        self._scratch = ScratchFiles(self._space)
        self._restoring = Restoring()
        self._moves = Moves(journal, self._scratch, self._restoring)
        self._users_changed = UsersChanged(
            self._backend.users_changed, blocks=self._backend.blocks, patience=self._backend.patience
        )
        #: What tells of the journal as a whole.
        self.system = SystemFiles(journal)
        self._attributes: dict[Kind, Callable[[Node], Attributes]] = {
            Kind.ROOT: self.system.attributes,
            Kind.USERS: self._of_users,
            Kind.USER: self._of_user,
            Kind.DIALOGS: self._of_user,
            Kind.ARCHIVED: self._of_archived,
            Kind.REJECTED: self._of_rejected,
            Kind.CURRENT: self._of_contents,
            Kind.ARCHIVE: self._of_contents,
            Kind.REJECTED_FILE: self._of_contents,
            Kind.METADATA: self._of_contents,
            Kind.SCRATCH: lambda node: self._scratch.get(node).attributes(),
            **{kind: self.system.attributes for kind in Kind if kind.is_of_journal},
        }
        self._listing = Listing(
            self._backend,
            self.system,
            self._scratch.names,
            self._metadata_changed,
            self.lookup,
            lambda: self._users_changed.known,
        )

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

    def names(self, parent: Node) -> Iterator[str]:
        """The names in a directory: `Listing.names`."""
        return self._listing.names(parent)

    def entries(self, parent: Node, names: Sequence[str]) -> list[Entry | PotofsError | OSError]:
        """What these names are, for a listing: `Listing.entries`."""
        return self._listing.entries(parent, names)

    def lists_slowly(self, node: Node) -> bool:
        """Whether it takes long to list a directory, however quick the backend is."""
        # Only the directories whose names are given have few entries for sure. And without a profile, metadata.yaml is
        # there if there is any conversation.
        return node.kind not in nodes.FIXED or (node.kind is Kind.USER and not self._backend.profile_changed(node.user))

    def attributes(self, node: Node) -> Attributes:
        """What is shown of an entry; raises NotFound if it is not there."""
        return self._attributes[node.kind](node)

    def attributes_of(self, node: Node, stat: Stat) -> Attributes:
        """What is shown of contents that are open."""
        return stored(node, stat)

    def unwritten(self, node: Node) -> Attributes:
        """What is shown of a file that somebody has opened to begin it, and nobody else can see yet."""
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

    def watch(self, on_notice: Callable[[Notice | None], object]) -> Callable[[], None]:
        """Has a function told what is changed, where the backend hears of it (`Backend.watch`)."""
        return self._backend.watch(on_notice)

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
            case kind if kind.is_of_journal and not kind.is_directory:
                return self.system.open(node)
            case _:
                raise IsADirectoryError(errno.EISDIR, "this is a directory", str(node))

    # What may be done

    @property
    def blocks(self) -> bool:
        """Whether everything waits for a network."""
        return self._backend.blocks

    def blocks_at(self, node: Node) -> bool:
        """Whether it takes long to look at an entry, where that is in the journal; a quick question."""
        return node.kind.is_reckoned or (node.kind is Kind.ARCHIVE and self._backend.blocks_at(node.user, node.name))

    @property
    def patience(self) -> float:
        """How long a change waits for a server or for other writers (seconds)."""
        return self._backend.patience

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
        tally = self.system.tally
        if self._restoring.is_just_made(node.user):
            # Whoever copies does not append.
            tally = Heard(tally, functools.partial(self._restoring.said, node.user))
        return self._journal.appender(node.user, tally)

    def to_create(self, parent: Node, name: str) -> Node:
        """The file that can be made in a directory by writing to it; raises NotPermitted for any other."""
        try:
            node = nodes.child(parent, name)
        except InvalidName:
            node = None
        if node is None or node.kind not in _WRITABLE:
            raise NotPermitted(f"{name!r} cannot be made in {parent}: that is no name of a conversation or archive")
        return node

    def draft(self, node: Node, *, empty: bool) -> Draft:
        """Takes what is written to a file in any other way than by appending; `empty`: what it has is to go.

        Raises NotPermitted where nothing can be written, or where it would be lost, and NotFound.
        """
        if node.kind is Kind.SCRATCH:
            scratch = self._scratch.open(node)
            if empty:
                scratch.resize(0)
            return scratch
        if node.kind is Kind.METADATA:
            return Profile(self._journal, self._restoring, node, self._space, empty=empty)
        if node.kind not in _WRITABLE:
            raise NotPermitted(f"{node} is read-only")
        if node.kind is Kind.ARCHIVE and Capability.ARCHIVAL not in self._backend.capabilities:
            raise Unsupported("this backend has no archival: it cannot store archives")
        with suppress(NotFound):
            if empty and self.attributes(node).size:
                raise NotPermitted(f"{node} is never emptied: only append to it")
        return Copy(self._backend, self._restoring, node, self._space)

    def make_scratch(self, node: Node, mode: int, owner: tuple[int, int]) -> Scratch:
        """A scratch file under a name that has none, opened."""
        return self._scratch.make(node, mode, owner)

    def scratch(self, node: Node) -> Scratch:
        """A scratch file, to change its mode, owner, size or times; raises NotFound."""
        return self._scratch.get(node)

    def make_directory(self, parent: Node, name: str) -> Entry:
        """Makes a user; raises NotPermitted for any other directory, InvalidName, NameTooLong, AlreadyExists.

        But those of a user who has just been made may be made again, and rejected/ is made for what is about to be
        copied into it.
        """
        node = nodes.child(parent, name)
        match node.kind if node is not None else None:
            case Kind.USER:
                assert node is not None
                # Nothing is told of it here: a copy of the user may, in a moment.
                self._backend.create_user(node.user, b"")
                self._restoring.made_user(node.user)
            case Kind.REJECTED:
                assert node is not None
                self._restoring.make_rejected(node.user)
            case Kind.ARCHIVED if Capability.ARCHIVAL not in self._backend.capabilities:
                raise Unsupported("this backend has no archival: there are no archives")
            case Kind.DIALOGS | Kind.ARCHIVED if node is not None and self.may_be_made_anew(node):
                pass  # It is there.
            case _:
                raise NotPermitted(f"no directory can be made in {parent}: mkdir makes users, in users/")
        return Entry(node, self.attributes(node))

    def is_just_made(self, node: Node) -> bool:
        """Whether it is of a user who was made in this mount, maybe to be restored: nothing was said there yet."""
        return bool(node.user) and self._restoring.is_just_made(node.user)

    def may_be_made_anew(self, node: Node) -> bool:
        """Whether a copy may make what is there by itself: a user's folders, and metadata.yaml if nothing is stored."""
        if node.kind is Kind.METADATA:
            return self.is_just_made(node) and not self.is_begun(node)
        return node.kind in {Kind.DIALOGS, Kind.ARCHIVED} and self.is_just_made(node)

    def is_begun(self, node: Node) -> bool:
        """Whether nobody can begin a file any more."""
        if node.kind is Kind.METADATA:
            # What is shown of a user of whom nothing is stored may be written as if it were not there.
            return self._backend.profile_changed(node.user) > 0
        with suppress(NotFound):
            self.attributes(node)
            return True
        return False

    def rename(self, parent: Node, name: str, new_parent: Node, new_name: str, *, replace: bool = True) -> Node:
        """Renames an entry, as `moving` has it, and returns what it is then.

        The running conversation moved into archived/ under its own name is called by the time. Raises NotFound,
        AlreadyExists, and NotPermitted (InvalidName) for what cannot be.
        """
        source = self.lookup(parent, name).node
        if new_parent.kind is Kind.ARCHIVED and new_name == "current.yaml":
            target: Node | None = Node(Kind.ARCHIVE, new_parent.user, BY_TIME)
        else:
            target = nodes.child(new_parent, new_name)
        if target is None:
            raise NotPermitted(f"{source} cannot be called {new_name!r} in {new_parent}")
        return self._moves.move(source, target, replace=replace)

    def remove(self, parent: Node, name: str) -> None:
        """Removes a rejected or a scratch file; raises NotPermitted for everything else that is there, NotFound."""
        node = self.lookup(parent, name).node
        match node.kind:
            case Kind.REJECTED_FILE:
                self._backend.remove_set_aside(node.user, node.name)
            case Kind.SCRATCH:
                self._scratch.remove(node)
            case Kind.METADATA if self.is_just_made(node) and not self._backend.profile_changed(node.user):
                # All of it is reckoned, and will be again, unless it is written before: tar makes way for its copy so.
                self._restoring.take_profile_away(node.user)
            case Kind.REJECTED if not self._backend.has_set_asides(node.user):
                self._restoring.remove_rejected(node.user)
            case _:
                raise NotPermitted(f"{node} is never removed")

    def set_times(self, node: Node, mtime_ns: int) -> None:
        """Sets when something was last changed; raises NotPermitted for what has no time of its own, NotFound."""
        match node.kind:
            case Kind.CURRENT:
                self._backend.set_times(node.user, None, mtime_ns)
            case Kind.ARCHIVE:
                self._backend.set_times(node.user, node.name, mtime_ns)
            case Kind.METADATA:
                put_profile_time(self._journal, node.user, mtime_ns)
            case Kind.USER | Kind.DIALOGS | Kind.ARCHIVED | Kind.REJECTED:
                self._backend.set_changed(node.user, mtime_ns)
            case Kind.ROOT | Kind.USERS:
                self._backend.set_changed(None, mtime_ns)
            case Kind.REJECTED_FILE:
                with self.open(node) as there:
                    self._backend.set_aside(node.user, there.read_all(), node.name, mtime_ns=mtime_ns)
            case _ if self.attributes(node).mtime_ns != mtime_ns:
                raise NotPermitted(f"the times of {node} follow what is in it")

    def sync(self, node: Node) -> None:
        """Makes everything durable that was appended to a conversation."""
        self._backend.sync(node.user)

    def close(self) -> None:
        """Takes away what is of this mount only."""
        self._scratch.close()

    # Where attributes come from

    def _of_users(self, node: Node) -> Attributes:
        return sizeless(node, self._users_changed())

    def _of_user(self, node: Node) -> Attributes:
        (changed,) = self._backend.changes_of([node.user])
        if changed is None:
            raise NotFound(f"there is no user {node.user!r}")
        return sizeless(node, changed)

    def _of_archived(self, node: Node) -> Attributes:
        if Capability.ARCHIVAL not in self._backend.capabilities:
            raise NotFound(f"there are no archives of user {node.user!r}: the backend has no archival")
        return self._of_user(node)

    def _of_rejected(self, node: Node) -> Attributes:
        if not (self._restoring.has_rejected(node.user) or self._backend.has_set_asides(node.user)):
            raise NotFound(f"nothing of user {node.user!r} was rejected")
        return self._of_user(node)

    def _of_contents(self, node: Node) -> Attributes:
        if node.kind is Kind.CURRENT or node.kind is Kind.ARCHIVE:
            # Without opening it: this is what most requests are.
            archive = node.name if node.kind is Kind.ARCHIVE else None
            stat = self._backend.stat(node.user, archive)
            if archive is None:
                self._restoring.found(node.user)
            return self.attributes_of(node, stat)
        with self.open(node) as contents:
            return self.attributes_of(node, contents.stat())

    def _metadata_changed(self, user: str, *, exactly: bool = False) -> int:
        """When metadata.yaml changed last (nanoseconds since 1970); 0 if there is none. At least that, or `exactly`."""
        if self._restoring.is_profile_away(user):
            return 0
        profile = 0 if exactly else self._backend.profile_changed(user)
        return profile or metadata.changed(self._backend, user)

    def _metadata(self, node: Node) -> Reader:
        self._of_user(node)
        # Before it is made: what changes meanwhile has a later time.
        changed = self._metadata_changed(node.user, exactly=True)
        if not changed:
            raise NotFound(f"nothing is known of user {node.user!r} yet")
        data = self._journal.user_metadata(node.user)
        return Snapshot(data, Stat(virtual_inode(node), len(data), changed, changed))
