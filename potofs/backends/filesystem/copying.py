"""Storing what is a copy of something else: bytes as they are, with the times that they had there."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from potofs.backends.base import Stat
from potofs.backends.filesystem import files
from potofs.backends.filesystem.archives import Archives
from potofs.backends.filesystem.archiving import Archiving, Change, is_there
from potofs.backends.filesystem.conversations import must_exist
from potofs.backends.filesystem.folders import Folders
from potofs.backends.filesystem.index import Index
from potofs.backends.filesystem.layout import Layout
from potofs.backends.filesystem.running import Running
from potofs.backends.filesystem.sync import GroupSync
from potofs.backends.wording import taken_aside


class Copies:
    """Copies in one root; `changing` holds a user's lock to change something and counts it afterwards.

    `durable`: they are on disk when they are done. Every method raises Fenced, DeadlineExceeded, OSError.
    """

    def __init__(
        self,
        layout: Layout,
        folders: Folders,
        running: Running,
        index: Index,
        archives: Archives,
        archiving: Archiving,
        syncs: GroupSync,
        changing: Callable[[str], AbstractContextManager[Change]],
        *,
        durable: bool,
    ) -> None:
        self._layout, self._folders, self._running, self._index = layout, folders, running, index
        self._archives, self._archiving, self._syncs = archives, archiving, syncs
        self._changing, self._durable = changing, durable

    def put(self, user: str, archive: str | None, data: bytes, mtime_ns: int) -> None:
        """Stores a whole conversation; raises AlreadyExists."""
        self._folders.make(user)
        path = self._layout.conversation(user, archive)
        with self._changing(user):
            if archive is None:
                self._archiving.make_way(user, swap=False)
            else:
                self._archives.refuse_taken(user, archive)
            try:
                files.create_whole(path, data, mtime_ns=mtime_ns, durable=self._durable)
            except FileExistsError:
                raise is_there(user, archive) from None
            if archive is not None:
                self._archives.touch(user)
            self._index.forget(user)
        if self._durable:
            self._folders.sync(user)

    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        """Adds to the running conversation if it is as it was seen, and returns whether it was; raises NotFound."""
        descriptor = None
        try:
            with self._changing(user) as change:
                with must_exist(user, None):
                    descriptor = self._running.open(user, create=False)
                if files.stat_of(os.fstat(descriptor), self._layout.number_of)[:2] != seen[:2]:
                    return False
                change.contents = self._running.extend(user, descriptor, data, mtime_ns)
                change.contents.keep()
            if self._durable:
                # Without the lock, as what is appended.
                self._syncs.sync(descriptor)
                if not change.contents.is_named:
                    self._folders.sync(user)
                    change.contents.is_named = True
        finally:
            if descriptor is not None:
                os.close(descriptor)
        return True

    def put_profile(self, user: str, profile: bytes, mtime_ns: int) -> None:
        """Stores what is known of a user whose folder is there."""
        with self._changing(user):
            files.replace_whole(self._layout.profile(user), profile, mtime_ns=mtime_ns)

    def set_aside(self, user: str, name: str, data: bytes, mtime_ns: int | None) -> None:
        """Sets bytes aside under a name, or the time of these bytes if they are there; raises AlreadyExists."""
        path = self._layout.set_aside(user, name)
        self._folders.make(user)
        with self._changing(user):
            if os.path.lexists(path):
                # First, for making a file beside it would be a change of the folder.
                with files.FileReader(path) as there:
                    if there.read_all() != data:
                        raise taken_aside(user, name)
                now = time.time_ns() if mtime_ns is None else mtime_ns
                os.utime(path, ns=(now, now))
                return
            files.make_directories(os.path.dirname(path), below=self._layout.users, durable=self._durable)
            try:
                files.create_whole(path, data, mtime_ns=mtime_ns, durable=self._durable)
            except FileExistsError:
                raise taken_aside(user, name) from None
        if self._durable:
            self._folders.sync(user)

    def set_changed(self, user: str, when_ns: int) -> None:
        """Sets when something of a user came, went or was renamed."""
        with self._changing(user):
            for folder in self._layout.changing(user):
                with suppress(FileNotFoundError):
                    os.utime(folder, ns=(when_ns, when_ns))
