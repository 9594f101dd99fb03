"""The filesystem backend: what it does to a user's files, and under which lock.

Reads wait for no lock: files only grow, up to a record's end, and a name changes by rename(2). Every change holds the
user's lock, and opens its files after it has the lock. What is appended goes out in one write(2).
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from potofs import names
from potofs.backends.base import (
    Appended,
    Archived,
    Backend,
    Capability,
    Fence,
    Finding,
    Reader,
    Record,
    Scan,
    Stat,
    Totals,
    Usage,
    new_ones,
)
from potofs.backends.filesystem import files, network
from potofs.backends.filesystem.accounts import Accounts
from potofs.backends.filesystem.archives import Archives
from potofs.backends.filesystem.archiving import Archiving, Change, is_there
from potofs.backends.filesystem.checking import Checks
from potofs.backends.filesystem.conversations import (
    Conversations,
    Opened,
    check_there,
    must_be_there,
    must_exist,
)
from potofs.backends.filesystem.copying import Copies
from potofs.backends.filesystem.durability import Durability
from potofs.backends.filesystem.fence import FenceFile
from potofs.backends.filesystem.folders import Folders
from potofs.backends.filesystem.index import Contents, Index
from potofs.backends.filesystem.layout import DIRECTORY_MODE, Layout
from potofs.backends.filesystem.lock import UserLocks
from potofs.backends.filesystem.patience import Patience
from potofs.backends.filesystem.running import Running
from potofs.backends.filesystem.sync import GroupSync
from potofs.backends.wording import gone_on, no_user
from potofs.config import FilesystemSettings, Where
from potofs.errors import AlreadyExists, NotFound, Unsupported, WouldBlock

# How long an archive has to be left alone before it is compressed where programs write that take no lock (nanoseconds).
_LEFT_ALONE = 3600 * 10**9


class FilesystemBackend(Backend):
    """Conversations as files under the root `where.place`."""

    capabilities = frozenset({Capability.PERSISTENCE, Capability.ARCHIVAL, Capability.COMPRESSION})
    name = "filesystem"

    def __init__(self, where: Where, scan: Scan) -> None:
        self.configured = self._settings = where.settings(FilesystemSettings)
        self.limits = self._settings.limits
        self._layout = Layout(where.place)
        self._patience = Patience(self._settings.lock_timeout_ms)
        self._locks = UserLocks(self._layout.lock, self._patience)
        self._fence = FenceFile(self._layout, self._patience)
        self._folders = Folders(self._layout, self._fence)
        self._conversations = Conversations(self._layout)
        self._index = Index(
            scan,
            self._conversations.newest_archive,
            self._conversations.has_many_archives,
            lambda user: files.state(self._layout.archived(user)),
            self._layout.sidecar,
            self._layout.number_of,
        )
        self._syncs = GroupSync()
        self._root: int | None = None
        self._running = Running(self._layout, self._index, self._syncs, cut_back=not self._settings.foreign_writers)
        self._accounts = Accounts(self._layout, self._conversations, scan, self._locks, self._running.contents)
        self._archives = Archives(self._layout, self._conversations, self._syncs, durable=self._durable)
        self._archiving = Archiving(
            self._layout,
            self._running,
            self._index,
            self._archives,
            self._accounts,
            keeps_empty=self._settings.foreign_writers,
        )
        self._copies = Copies(
            self._layout,
            self._folders,
            self._running,
            self._index,
            self._archives,
            self._archiving,
            self._accounts,
            self._syncs,
            self._changing,
            durable=self._durable,
        )
        self._checks = Checks(
            self._layout,
            self._conversations,
            self._archives,
            self._accounts,
            self._index,
            scan,
            self._changing,
            counts_all=not self._settings.foreign_writers,
        )
        self._durability = Durability(
            self._layout,
            self._conversations,
            self._folders,
            self._running,
            self._locks,
            self._syncs,
            archives_are=self._durable,
        )
        self.append_blocks = self._settings.fsync == "always"
        self.sync_on_close = self._settings.fsync == "close"

    def prepare(self, *, create: bool) -> None:
        if create:
            try:
                files.make_directories(self._layout.users, durable=self._durable)
            except OSError as error:
                what = f"{error.strerror}: no journal can be made here, name another folder"
                raise OSError(error.errno, what, error.filename) from None
        try:
            os.scandir(self._layout.root).close()
            self._layout.device = os.stat(f"{self._layout.users}/.").st_dev
            # Held open for as long as it is in use: what it lies on cannot be unmounted meanwhile.
            self._root = os.open(self._layout.root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise NotFound(f"there is no journal at {self._layout.root}: check the path") from None
        if network.is_said(self._layout.root, f"{self._layout.users}/."):
            self.blocks = self.append_blocks = True

    def hurry(self) -> None:
        self._patience.hurries = True

    @property
    def patience(self) -> float:
        return self._patience.timeout

    # Users

    def users(self) -> Iterator[str]:
        return self._conversations.users()

    def users_changed(self) -> int:
        with must_be_there(self._layout):
            return os.stat(self._layout.users).st_mtime_ns

    def has_user(self, user: str) -> bool:
        if os.path.isdir(self._layout.user(user)):
            return True
        check_there(self._layout)
        return False

    def create_user(self, user: str, profile: bytes) -> None:
        with self._fence.open_for_users(wait=True):
            try:
                with must_be_there(self._layout):
                    os.mkdir(self._layout.user(user), DIRECTORY_MODE)
            except FileExistsError:
                raise AlreadyExists(f"user {user!r} exists already") from None
            try:
                files.make_directories(self._layout.archived(user), durable=False)
                # Another writer that found the folder without it was as quick.
                if profile:
                    with suppress(FileExistsError):
                        files.create_whole(self._layout.profile(user), profile, durable=self._durable)
            except OSError:
                # Half a user would be in the way of the next try. Whatever is in use by now is not empty, and stays.
                for folder in (self._layout.archived(user), self._layout.dialogs(user), self._layout.user(user)):
                    with suppress(OSError):
                        os.rmdir(folder)
                raise
        self._accounts.count_at_rest(user)
        if self._durable:
            self._folders.sync(user)

    def user_changed(self, user: str) -> int:
        return max(map(files.changed, self._layout.changing(user)))

    def set_changed(self, user: str | None, when_ns: int) -> None:
        if user is None:
            self._folders.set_users_changed(when_ns)
        elif not self.has_user(user):
            raise no_user(user)
        else:
            self._copies.set_changed(user, when_ns)

    def read_profile(self, user: str) -> bytes:
        try:
            with files.FileReader(self._layout.profile(user)) as profile:
                return profile.read_all()
        except FileNotFoundError:
            check_there(self._layout)
            return b""

    def profile_changed(self, user: str) -> int:
        changed = files.changed(self._layout.profile(user))
        if not changed:
            check_there(self._layout)
        return changed

    def put_profile(self, user: str, profile: bytes, mtime_ns: int) -> None:
        if not self.has_user(user):
            raise no_user(user)
        self._copies.put_profile(user, profile, mtime_ns)

    # Conversations

    def stat(self, user: str, archive: str | None = None) -> Stat:
        return self._conversations.stat_running(user) if archive is None else self._conversations.stat(user, archive)

    def open(self, user: str, archive: str | None = None) -> Opened:
        return self._conversations.shown(user, archive)

    def blocks_at(self, user: str, archive: str) -> bool:
        return self._conversations.is_compressed(user, archive)

    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        if not wait and self._accounts.is_behind(user):
            raise WouldBlock(f"user {user!r}: archives have to be counted")
        self._folders.make(user, wait=wait)
        descriptor = None
        try:
            with self._changing(user, wait=wait) as change:
                descriptor = self._running.open(user)
                contents = self._index.current(user, descriptor, wait=wait)
                fresh = new_ones(records, lambda record: self._running.was_given(user, contents, record, wait=wait))
                if not wait and self.sync_on_close and self._reaches_threshold(contents, len(fresh)):
                    raise WouldBlock(f"user {user!r}: archiving waits for the disk")
                if fresh:
                    contents = self._running.write(user, descriptor, contents, fresh)
                archived_as = None
                if self._reaches_threshold(contents):
                    if self._durable:
                        # First, so that a disk that does not take it is told of.
                        self._syncs.sync(descriptor)
                    archived_as = self._archiving.archive_by_itself(user, change)
                if archived_as is None and contents.size:
                    change.contents = contents
                    contents.keep()
            # Without the lock, so that the appends of others go on; and also for a second try, whose first
            # may not have come this far.
            if self._settings.fsync == "always":
                self._syncs.sync(descriptor)
                if not contents.is_named:
                    # Whoever made the file may have been killed before its name was durable.
                    self._folders.sync(user)
                    contents.is_named = True
        finally:
            if descriptor is not None:
                os.close(descriptor)
        return Appended(len(fresh), archived_as)

    def sync(self, user: str) -> None:
        self._durability.sync(user)

    def set_times(self, user: str, archive: str | None, mtime_ns: int) -> None:
        self._conversations.stat(user, archive)
        with self._changing(user), must_exist(self._layout, user, archive):
            path = self._layout.conversation(user, archive)
            if archive is not None and self._conversations.is_compressed(user, archive):
                path = self._layout.compressed(user, archive)
            os.utime(path, ns=(mtime_ns, mtime_ns))
            if archive is not None:
                # Another may be the newest now.
                self._archives.touch(user)
                self._index.forget(user)

    # Archives

    def archives(self, user: str) -> list[Archived]:
        return self._conversations.archives(user)

    def stats_of(self, user: str, archives: Sequence[str]) -> list[Stat | None]:
        return self._conversations.stats_of(user, archives)

    def archive(
        self, user: str, name: str | None = None, *, idle_since_ns: int | None = None, wait: bool = True
    ) -> str:
        if name is not None:
            names.archive_file(name)  # What can never be is said first, as everywhere.
        self._conversations.stat(user, None)
        # Another program may have made the user's folders, and not this one.
        self._folders.make(user, wait=wait)
        with self._changing(user, wait=wait) as change:
            now = self._conversations.stat(user, None)
            if idle_since_ns is not None and now.mtime_ns > idle_since_ns:
                raise gone_on(user)
            return self._archiving.archive(user, name, change)

    def restore(self, user: str, archive: str, *, swap: bool = True) -> str | None:
        self.stat(user, archive)
        with self._changing(user):
            self.stat(user, archive)
            # Two renames, and in between the user has no running conversation: whoever is killed there has archived,
            # and restoring once more does the rest.
            try:
                return self._archives.restore(user, archive, lambda: self._archiving.make_way(user, swap=swap))
            except FileExistsError:
                raise is_there(user, None) from None
            finally:
                self._index.forget(user)

    def rename_archive(self, user: str, archive: str, name: str) -> None:
        names.archive_file(name)
        self.stat(user, archive)
        with self._changing(user):
            self._archives.rename(user, archive, name)
            self._index.forget(user)

    def compress(self, user: str, archive: str) -> int:
        self.stat(user, archive)
        self._fence.get().check()
        saved, token = 0, None
        if not self._conversations.is_compressed(user, archive) and self._is_left_alone(user, archive):
            with self._archives.compressed(user, archive) as made:
                if made is not None:
                    with self._changing(user):
                        saved = self._archives.replace(user, archive, made)
                        token = made.token
        with self._changing(user):
            # Now that it is closed; and if not, with the next.
            self._archives.empty_numbers(user, token)
        return saved

    # Copying

    def put_archive(self, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        self._fence.get().check()
        self._copies.put(user, name, data, mtime_ns)

    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        self._fence.get().check()
        self._copies.put(user, None, data, mtime_ns)

    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        self.stat(user)
        return self._copies.extend(user, seen, data, mtime_ns)

    # What could not become a message

    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        """Without a name whatever the fence is: these bytes were taken in before, and are nowhere else."""
        if name is not None:
            self._copies.set_aside(user, name, data, mtime_ns)
            return name
        is_new = not self.has_user(user)
        with must_be_there(self._layout):
            files.make_directories(self._layout.rejected(user), below=self._layout.users, durable=self._durable)
        if is_new:
            self._accounts.count_at_rest(user)
        return self._archives.name_aside(
            user, lambda path: files.create_whole(path, data, mtime_ns=mtime_ns, durable=self._durable)
        )

    def set_asides(self, user: str) -> list[Archived]:
        return self._conversations.set_asides(user)

    def has_set_asides(self, user: str) -> bool:
        return self._conversations.has_set_asides(user)

    def stats_of_set_asides(self, user: str, names: Sequence[str]) -> list[Stat | None]:
        return self._conversations.stats_of_set_asides(user, names)

    def open_set_aside(self, user: str, name: str) -> Reader:
        with must_exist(self._layout, user, name):
            return files.FileReader(self._layout.set_aside(user, name), self._layout.number_of)

    def remove_set_aside(self, user: str, name: str) -> None:
        with must_exist(self._layout, user, name):
            os.stat(self._layout.set_aside(user, name))
        with self._changing(user), must_exist(self._layout, user, name):
            os.unlink(self._layout.set_aside(user, name))

    # The log of clean-ups

    def log_size(self) -> int:
        size = files.size(self._layout.cleanup_log)
        if size < 0:
            check_there(self._layout)
        return max(0, size)

    def read_log(self, offset: int, size: int) -> bytes:
        try:
            with files.FileReader(self._layout.cleanup_log) as reader:
                return reader.read(offset, size)
        except FileNotFoundError:
            check_there(self._layout)
            return b""

    def append_log(self, line: bytes) -> None:
        with must_be_there(self._layout):
            files.make_directories(self._layout.system, below=self._layout.root, durable=self._durable)
        files.append_line(self._layout.cleanup_log, line, durable=self._durable)

    # Checking

    def check(self, user: str | None, *, repair: bool) -> Iterator[Finding]:
        return self._checks.place(repair) if user is None else self._checks.user(user, repair)

    def rewrite(
        self,
        user: str,
        archive: str | None,
        seen: Stat,
        data: bytes,
        *,
        was: bytes | None = None,
        mtime_ns: int | None = None,
    ) -> bool:
        if self._settings.foreign_writers and (archive is None or not self._is_left_alone(user, archive)):
            raise Unsupported("programs that take no lock may be appending: stop them, and leave out foreignWriters")
        self._conversations.stat(user, archive)
        with self._changing(user):
            now = self._conversations.stat(user, archive)
            if now[:2] != seen[:2]:
                return False
            if was is not None:
                with self._conversations.open(user, archive) as reader:
                    if reader.read_all() != was:
                        return False
            self._archives.rewrite(user, archive, data, now.mtime_ns if mtime_ns is None else mtime_ns)
            self._index.forget(user)
            return True

    def rewrite_profile(self, user: str, profile: bytes, *, was: bytes) -> bool:
        if not self.has_user(user):
            return False
        with self._changing(user):
            if self.read_profile(user) != was:
                return False
            files.replace_whole(self._layout.profile(user), profile, mtime_ns=time.time_ns())
            return True

    # The place

    def usage(self) -> Usage:
        with must_be_there(self._layout):
            found = os.statvfs(self._layout.root)
        return Usage(found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail)

    def totals(self) -> Totals:
        """Walks users only where programs write that count nothing, and once after each start of the machine.

        A root that is read-only or full, or has no locks for ranges of a file, keeps no sums: there everything is read.
        """
        check_there(self._layout)
        return self._accounts.totals(self._settings.foreign_writers)

    def recount(self) -> None:
        """Makes the totals true again, whoever changed files behind their back; reads only what was not counted."""
        self._accounts.recount()

    def fence(self) -> Fence:
        return self._fence.get()

    def set_fence(self, fence: Fence) -> None:
        """Raises DeadlineExceeded if a change goes on for too long, or making a user; it can be set again.

        Only what waited for a user says so with the fence set.
        """
        self._fence.set(fence)
        for user in self.users():
            # Whoever saw the old one holds a lock.
            with self._locks.held(user, wait=True):
                pass

    def close(self) -> None:
        self._accounts.sums.close()
        if self._root is not None:
            os.close(self._root)
            self._root = None

    # Inside

    @contextmanager
    def _changing(self, user: str, *, wait: bool = True) -> Iterator[Change]:
        """Holds the lock of a user to change something, if that may be, and counts it; raises Fenced too."""
        with self._locks.held(user, wait=wait) as lock:
            self._fence.get().check()
            change = Change()
            yield change
            self._accounts.count(user, lock, change.contents, change.archived, wait=wait)

    @property
    def _durable(self) -> bool:
        return self._settings.fsync != "never"

    def _reaches_threshold(self, contents: Contents, more: int = 0) -> bool:
        return 0 < self._settings.archive_at <= contents.count + more

    def _is_left_alone(self, user: str, archive: str) -> bool:
        """Whether no program that takes no lock can be expected to write to an archive."""
        return not self._settings.foreign_writers or time.time_ns() - self.stat(user, archive).ctime_ns > _LEFT_ALONE
