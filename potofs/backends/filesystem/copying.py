"""Storing what is a copy of something else: bytes as they are, with the times that they had there.

A copy may be long, and its user goes on appending meanwhile. So what takes time with its length is done without the
user's lock: it is written under another name, and what is in it is found out. Under the lock it only gets its name.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from potofs.backends.base import Stat
from potofs.backends.filesystem import files
from potofs.backends.filesystem.accounts import Accounts
from potofs.backends.filesystem.archives import Archives
from potofs.backends.filesystem.archiving import Archiving, Change, is_there
from potofs.backends.filesystem.conversations import must_exist
from potofs.backends.filesystem.folders import Folders
from potofs.backends.filesystem.index import Contents, Index
from potofs.backends.filesystem.layout import Layout
from potofs.backends.filesystem.running import Running
from potofs.backends.filesystem.sync import GroupSync, sync_directory
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
        accounts: Accounts,
        syncs: GroupSync,
        changing: Callable[[str], AbstractContextManager[Change]],
        *,
        durable: bool,
    ) -> None:
        self._layout, self._folders, self._running, self._index = layout, folders, running, index
        self._archives, self._archiving, self._accounts, self._syncs = archives, archiving, accounts, syncs
        self._changing, self._durable = changing, durable

    def put(self, user: str, archive: str | None, data: bytes, mtime_ns: int) -> None:
        """Stores a whole conversation; raises AlreadyExists."""
        self._folders.make(user)
        path = self._layout.conversation(user, archive)
        # Looked at once more under the lock: this is only not to write and read it all for nothing.
        if archive is not None:
            self._archives.refuse_taken(user, archive)
        elif files.size(path) > 0:
            raise is_there(user, None)
        # Beside the user's lock, for a folder of conversations is changed by what is made in it.
        with files.scratch(self._layout.user(user)) as (descriptor, unfinished):
            with files.naming(path):
                files.append_whole(descriptor, data)
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
                if self._durable:
                    os.fsync(descriptor)
            contents = self._index.of_copy(user, descriptor)
            with self._changing(user) as change:
                try:
                    if archive is None:
                        self._put_current(user, unfinished, contents, change)
                    else:
                        self._put_archive(user, archive, descriptor, unfinished, contents, change)
                except FileExistsError:
                    raise is_there(user, archive) from None
        if self._durable:
            if archive is not None:
                sync_directory(self._layout.archived(user))
            self._folders.sync(user)
            contents.is_named = archive is None

    def _put_current(self, user: str, unfinished: str, contents: Contents, change: Change) -> None:
        self._archiving.make_way(user, swap=False)
        files.rename_new(unfinished, self._layout.conversation(user, None))
        if contents.size:
            self._index.adopt(user, contents)
            change.contents = contents
        else:
            self._index.forget(user)

    def _put_archive(
        self, user: str, archive: str, descriptor: int, unfinished: str, contents: Contents, change: Change
    ) -> None:
        self._archives.refuse_taken(user, archive)
        state_before = files.state(self._layout.archived(user))
        files.rename_new(unfinished, self._layout.conversation(user, archive))
        self._archives.touch(user)
        stat = files.stat_of(os.fstat(descriptor), self._layout.number_of)
        figures = contents.figures()._replace(conversations=0, archives=1)
        self._accounts.note(user, stat, figures)
        self._index.copied(user, state_before, (stat.mtime_ns, archive), contents)
        change.archived = state_before, figures

    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        """Adds to the running conversation if it is as it was seen, and returns whether it was; raises NotFound."""
        ahead = self._running.ahead(user, seen.size, data)
        descriptor = None
        try:
            with self._changing(user) as change:
                with must_exist(self._layout, user, None):
                    descriptor = self._running.open(user, create=False)
                if files.stat_of(os.fstat(descriptor), self._layout.number_of)[:2] != seen[:2]:
                    return False
                change.contents = self._running.extend(user, descriptor, data, mtime_ns, ahead)
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
