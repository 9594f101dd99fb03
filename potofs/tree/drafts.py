"""What is written somewhere else than at the end of a running conversation's records: kept as a draft, stored when it
is closed.

Three things can be written so. A copy of a conversation, an archive or rejected bytes has to be what is stored already,
and go on from there. A copy of metadata.yaml is taken for what can be told of a user. And a scratch file is stored
nowhere: tools write one and rename it.
"""

import errno
import time
from abc import ABC, abstractmethod

from potofs.backends.base import Backend, Reader, Stat
from potofs.errors import AlreadyExists, InvalidMessage, NotFound, NotPermitted
from potofs.journal import copying, metadata
from potofs.journal.journal import DialogueJournal
from potofs.tree.attributes import Attributes, virtual_inode
from potofs.tree.nodes import Kind, Node
from potofs.tree.restoring import Restoring
from potofs.tree.spool import Space, Spool

# Bytes that metadata.yaml may have, and up to which it is looked at after each write.
_LARGEST_PROFILE = 1 << 20
_LOOKED_AT = 1 << 14


class Draft(ABC):
    """Bytes on their way. Whoever changes or commits it does so one at a time; anybody may look at it."""

    #: Whether it may have any mode and owner.
    is_free = False

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    def attributes(self) -> Attributes:
        """What is shown to whoever writes it."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes: ...

    @abstractmethod
    def write(self, offset: int, data: bytes) -> None:
        """Raises NotPermitted where nothing can be written, OSError, and what the backend raises."""

    @abstractmethod
    def resize(self, size: int) -> None:
        """Raises NotPermitted for another size than it has, where that cannot be."""

    @abstractmethod
    def set_times(self, mtime_ns: int) -> None:
        """Sets the time that it is stored with (nanoseconds since 1970)."""

    @abstractmethod
    def commit(self) -> None:
        """Stores what was written; raises NotPermitted, InvalidMessage, OSError, and what the backend raises."""

    @abstractmethod
    def close(self) -> None:
        """Forgets what is not stored."""


class Copy(Draft):
    """A conversation, an archive or rejected bytes being copied in: what is written has to continue what is stored."""

    def __init__(self, backend: Backend, restoring: Restoring, node: Node, space: Space) -> None:
        super().__init__(node)
        self._backend, self._restoring = backend, restoring
        if node.kind is Kind.CURRENT:
            restoring.copied(node.user)
        self._spool = Spool(space)
        # As it was when the first byte was written that is not stored yet; None: it was not there.
        self._seen: Stat | None = None
        # Given by somebody since the last write (nanoseconds since 1970).
        self._mtime_ns: int | None = None

    def attributes(self) -> Attributes:
        seen = self._seen if self._spool.size else self._stat()
        now = time.time_ns()
        if seen is None:
            inode, mtime_ns, ctime_ns, stored = virtual_inode(self.node), now, now, 0
        else:
            stored, inode, mtime_ns, ctime_ns = seen.size, seen.id, seen.mtime_ns, seen.ctime_ns
        if self._mtime_ns is not None:
            mtime_ns = self._mtime_ns
        return Attributes(inode, self.node.kind.mode, stored + self._spool.size, mtime_ns, ctime_ns)

    def read(self, offset: int, size: int) -> bytes:
        stored = self._seen.size if self._seen is not None else 0
        if not self._spool.size or offset < stored:
            try:
                with self._open() as reader:
                    there = reader.read(offset, min(size, stored - offset) if self._spool.size else size)
            except NotFound:
                return b""
            if not self._spool.size or len(there) == size:
                return there
            return there + self._spool.read(0, size - len(there))
        return self._spool.read(offset - stored, size)

    def write(self, offset: int, data: bytes) -> None:
        if not self._spool.size:
            self._seen = self._stat()
        end = (self._seen.size if self._seen else 0) + self._spool.size
        again, data = data[: max(0, end - offset)], data[max(0, end - offset) :]
        # An interrupted `rsync --inplace` begins anew, with what is there already.
        if offset > end or (again and self.read(offset, len(again)) != again):
            raise NotPermitted(f"{self.node} ends at byte {end}: nothing else is written before that or behind it")
        if not data:
            return
        if self.node.kind is Kind.REJECTED_FILE and self._seen is not None:
            raise NotPermitted(f"{self.node} stays as it is")
        self._spool.write(self._spool.size, data)
        self._mtime_ns = None

    def resize(self, size: int) -> None:
        if size != self.attributes().size:
            raise NotPermitted(f"{self.node} is append-only and cannot be truncated")

    def set_times(self, mtime_ns: int) -> None:
        self._mtime_ns = mtime_ns
        if not self._spool.size and self.node.kind is not Kind.REJECTED_FILE and self._stat() is not None:
            self._backend.set_times(self.node.user, self._archive, mtime_ns)

    def commit(self) -> None:
        if not self._spool.size:
            return
        data = self._spool.read_all()
        try:
            if self.node.kind is Kind.REJECTED_FILE:
                self._set_aside(data)
            else:
                copying.extend(self._backend, self.node.user, self._archive, self._seen, data, self._mtime_ns)
        except NotPermitted:
            # It will never fit: what is written from here on fails, too, instead of being taken for the whole.
            self._spool.resize(0)
            raise
        self._spool.resize(0)

    def close(self) -> None:
        self._spool.close()

    @property
    def _archive(self) -> str | None:
        return self.node.name if self.node.kind is Kind.ARCHIVE else None

    def _open(self) -> Reader:
        if self.node.kind is Kind.REJECTED_FILE:
            return self._backend.open_set_aside(self.node.user, self.node.name)
        return self._backend.open(self.node.user, self._archive)

    def _stat(self) -> Stat | None:
        try:
            if self.node.kind is Kind.REJECTED_FILE:
                with self._open() as reader:
                    return reader.stat()
            return self._backend.stat(self.node.user, self._archive)
        except NotFound:
            return None

    def _set_aside(self, data: bytes) -> None:
        try:
            self._backend.set_aside(self.node.user, data, self.node.name, mtime_ns=self._mtime_ns or time.time_ns())
        except AlreadyExists:
            raise NotPermitted(f"{self.node} is there by now, and stays as it is") from None
        self._restoring.remove_rejected(self.node.user)


class Profile(Draft):
    """metadata.yaml being written: free while it is, and then taken for what can be told of a user."""

    def __init__(
        self, journal: DialogueJournal, restoring: Restoring, node: Node, space: Space, *, empty: bool
    ) -> None:
        super().__init__(node)
        self._journal, self._restoring = journal, restoring
        self._spool = Spool(space)
        self._is_changed = empty
        self._mtime_ns: int | None = None
        if not empty:
            self._spool.write(0, journal.user_metadata(node.user))
        # Where what is shown ends, while nothing was written before that. `rsync --append` takes the figures of what is
        # not restored yet for the beginning of its copy, and goes on behind them: that says nothing of the user.
        self._shown: int | None = self._spool.size

    def attributes(self) -> Attributes:
        now = time.time_ns() if self._mtime_ns is None else self._mtime_ns
        return Attributes(virtual_inode(self.node), self.node.kind.mode, self._spool.size, now, now)

    def read(self, offset: int, size: int) -> bytes:
        return self._spool.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > _LARGEST_PROFILE:
            raise OSError(errno.EFBIG, f"metadata.yaml may have {_LARGEST_PROFILE >> 20} MiB")
        is_end = offset + len(data) >= self._spool.size
        self._spool.write(offset, data)
        self._is_changed, self._mtime_ns = True, None
        if not self._shown or offset < self._shown:
            self._shown = None
        if is_end and self._shown is None and data.endswith(b"\n") and self._spool.size <= _LOOKED_AT:
            self._refuse_hopeless()

    def resize(self, size: int) -> None:
        if size > _LARGEST_PROFILE:
            raise OSError(errno.EFBIG, f"metadata.yaml may have {_LARGEST_PROFILE >> 20} MiB")
        if size != self._spool.size:
            self._spool.resize(size)
            self._is_changed = True

    def set_times(self, mtime_ns: int) -> None:
        self._mtime_ns = mtime_ns
        if not self._is_changed:
            put_profile_time(self._journal, self.node.user, mtime_ns)

    def commit(self) -> None:
        # Emptied and not written yet: a shell that redirects to it closes a second descriptor first.
        if self._is_changed and self._spool.size and self._shown is None:
            store_profile(self._journal.backend, self.node.user, self._data(), self._mtime_ns)
            self._restoring.profile_written(self.node.user)
            self._is_changed = False

    def close(self) -> None:
        self._spool.close()

    def _data(self) -> bytes:
        return self._spool.read_all()

    def _refuse_hopeless(self) -> None:
        """Raises InvalidMessage for whole lines that can be read and are no metadata: shells show no error of close."""
        try:
            metadata.restored_profile(self.node.user, self._data())
        except metadata.NoMetadata:
            # Gone on with, it has a hole in its beginning; and closed, nothing is taken over.
            self._spool.resize(0)
            self._is_changed = False
            raise
        except InvalidMessage:
            pass  # The rest may mend it.


def store_profile(backend: Backend, user: str, copy: bytes, mtime_ns: int | None) -> None:
    """Takes over from a copy of metadata.yaml what is stored of a user; raises InvalidMessage, NotFound."""
    there = backend.read_profile(user)
    profile = metadata.restored_profile(user, copy, there)
    if metadata.damage(there):
        # What nobody can read is not taken over, and is nowhere else.
        backend.set_aside(user, there)
    backend.put_profile(user, profile, time.time_ns() if mtime_ns is None else mtime_ns)


def put_profile_time(journal: DialogueJournal, user: str, mtime_ns: int) -> None:
    """Sets when metadata.yaml was last changed; raises NotFound."""
    profile = journal.backend.read_profile(user) or metadata.restored_profile(user, journal.user_metadata(user))
    journal.backend.put_profile(user, profile, mtime_ns)
