"""The filesystem backend: what it does to a user's files, and under which lock.

Reads take no lock: files only grow, and a name changes by rename(2). Every change holds the user's lock, and opens its
files after it has the lock. What is appended goes out in one write(2).
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from potofs import names, times
from potofs.backends.base import Appended, Archived, Backend, Fingerprint, Reader, Record, Scan, Stat, Usage, seam
from potofs.backends.filesystem import files
from potofs.backends.filesystem.index import Contents, Index
from potofs.backends.filesystem.layout import DIRECTORY_MODE, FILE_MODE, Layout
from potofs.backends.filesystem.lock import UserLocks
from potofs.backends.filesystem.sync import GroupSync, sync_directory
from potofs.config import FilesystemSettings, Where
from potofs.errors import AlreadyExists, InvalidName, NameTooLong, NotFound


class FilesystemBackend(Backend):
    """Conversations as files under the root `where.place`."""

    def __init__(self, where: Where, scan: Scan) -> None:
        self._settings = where.settings(FilesystemSettings)
        self._layout = Layout(where.place)
        self._locks = UserLocks(self._layout.lock, self._settings.lock_timeout_ms)
        self._index = Index(scan, self._open_newest_archive)
        self._syncs = GroupSync()
        self.append_blocks = self._settings.fsync == "always"
        self.sync_on_close = self._settings.fsync == "close"

    def prepare(self, *, create: bool) -> None:
        if create:
            files.make_directories(self._layout.users)
        if not os.path.isdir(self._layout.root):
            raise NotFound(f"there is no journal at {self._layout.root}: check the path")
        if not os.access(self._layout.root, os.R_OK | os.X_OK):
            raise PermissionError(13, "this user may not read the journal", self._layout.root)

    # Users

    def users(self) -> Iterator[str]:
        return self._named(self._layout.users, names.decode, directories=True)

    def users_changed(self) -> int:
        return files.changed(self._layout.users)

    def has_user(self, user: str) -> bool:
        return os.path.isdir(self._layout.user(user))

    def create_user(self, user: str, profile: bytes) -> None:
        files.make_directories(self._layout.users)
        try:
            os.mkdir(self._layout.user(user), DIRECTORY_MODE)
        except FileExistsError:
            raise AlreadyExists(f"user {user!r} exists already") from None
        self._make_folders(user)
        # Another writer that found the folder without it was as quick.
        with suppress(FileExistsError):
            files.create_whole(self._layout.profile(user), profile, durable=self._durable)
        if self._durable:
            sync_directory(self._layout.user(user))
            sync_directory(self._layout.users)

    def user_changed(self, user: str) -> int:
        folders = (self._layout.dialogs(user), self._layout.archived(user), self._layout.rejected(user))
        return max(map(files.changed, folders))

    def read_profile(self, user: str) -> bytes:
        try:
            with files.FileReader(self._layout.profile(user)) as profile:
                return profile.read_all()
        except FileNotFoundError:
            return b""

    # Conversations

    def stat(self, user: str, archive: str | None = None) -> Stat:
        with self._must_exist(user, archive):
            stat = files.stat_of(os.stat(self._layout.conversation(user, archive)))
        if not stat.size and archive is None:
            raise self._not_found(user, archive)
        return stat

    def open(self, user: str, archive: str | None = None) -> files.FileReader:
        with self._must_exist(user, archive):
            return files.FileReader(self._layout.conversation(user, archive))

    def archives(self, user: str) -> list[Archived]:
        folder = self._layout.archived(user)
        return self._listed(folder)

    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        self._make_folders(user)
        with self._locks.held(user, wait=wait):
            descriptor = self._open_current(user)
            try:
                contents = self._index.current(user, descriptor)
                fresh = self._not_given_before(user, contents, records)
                if fresh:
                    size = os.fstat(descriptor).st_size
                    tail = os.pread(descriptor, 5, max(0, size - 5))
                    data = seam(tail) + b"".join([record.data for record in fresh])
                    files.append_whole(descriptor, data, size)
                    contents.add(fresh, size + len(data))
                archived_as = None
                if 0 < self._settings.archive_at <= contents.count:
                    archived_as = self._archive(user, descriptor, None)
            except BaseException:
                os.close(descriptor)
                raise
        try:
            # Without the lock, so that the appends of others go on; and also for a second try, whose first
            # may not have come this far.
            if self._settings.fsync == "always":
                self._syncs.sync(descriptor)
        finally:
            os.close(descriptor)
        return Appended(len(fresh), archived_as)

    def sync(self, user: str) -> None:
        with suppress(NotFound), self.open(user) as current:
            current.sync()
        newest = self._open_newest_archive(user)
        if newest is not None:
            with newest:
                newest.sync()

    def archive(self, user: str, name: str | None = None, *, wait: bool = True) -> str:
        self.stat(user)
        with self._locks.held(user, wait=wait):
            self.stat(user)
            descriptor = self._open_current(user)
            try:
                return self._archive(user, descriptor, name)
            finally:
                os.close(descriptor)

    def set_times(self, user: str, archive: str | None, mtime_ns: int) -> None:
        with self._must_exist(user, archive):
            os.utime(self._layout.conversation(user, archive), ns=(mtime_ns, mtime_ns))

    # Copying

    def put_archive(self, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        self._put(user, name, data, mtime_ns)

    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        self._put(user, None, data, mtime_ns)

    # What could not become a message

    def set_aside(self, user: str, data: bytes) -> str:
        files.make_directories(self._layout.rejected(user))
        base = times.compact(time.time_ns())
        while True:
            name = names.first_free(base, lambda name: os.path.lexists(self._layout.set_aside(user, name)))
            with suppress(FileExistsError):
                files.create_whole(self._layout.set_aside(user, name), data, durable=self._durable)
                return name

    def set_asides(self, user: str) -> list[Archived]:
        return self._listed(self._layout.rejected(user))

    def open_set_aside(self, user: str, name: str) -> Reader:
        with self._must_exist(user, name):
            return files.FileReader(self._layout.set_aside(user, name))

    def remove_set_aside(self, user: str, name: str) -> None:
        with self._must_exist(user, name):
            os.unlink(self._layout.set_aside(user, name))

    # The place

    def usage(self) -> Usage:
        found = os.statvfs(self._layout.root)
        return Usage(found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail)

    # Inside

    @property
    def _durable(self) -> bool:
        return self._settings.fsync != "never"

    def _make_folders(self, user: str) -> None:
        archived = self._layout.archived(user)
        if not os.path.isdir(archived):
            files.make_directories(archived)

    def _not_given_before(self, user: str, contents: Contents, records: Sequence[Record]) -> list[Record]:
        """The records that are no second try of what the conversation or the newest archive holds."""
        fresh: list[Record] = []
        batch: set[Fingerprint] = set()
        for record in records:
            if record.retry and (
                record.fingerprint in batch
                or contents.has(record.fingerprint)
                or self._index.was_archived(user, record.fingerprint)
            ):
                continue
            batch.add(record.fingerprint)
            fresh.append(record)
        return fresh

    def _open_current(self, user: str) -> int:
        """The running conversation, opened to append; the caller holds the lock."""
        path = self._layout.conversation(user, None)
        try:
            return os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, FILE_MODE)
            if self._durable:
                sync_directory(self._layout.dialogs(user))
            return descriptor

    def _archive(self, user: str, descriptor: int, name: str | None) -> str:
        """Renames the running conversation, opened as `descriptor`, into an archive; the caller holds the lock."""

        def is_taken(name: str) -> bool:
            return os.path.lexists(self._layout.conversation(user, name))

        if name is None:
            name = names.first_free(times.compact(time.time_ns()), is_taken)
        elif is_taken(name):
            raise AlreadyExists(
                f"user {user!r} has an archive {name!r} already; nothing is replaced, take another name"
            )
        if self._durable:
            self._syncs.sync(descriptor)
        os.rename(self._layout.conversation(user, None), self._layout.conversation(user, name))
        if self._durable:
            # First where it arrives: after a power failure it may have two names, but never none.
            sync_directory(self._layout.archived(user))
            sync_directory(self._layout.dialogs(user))
        self._index.archived(user)
        return name

    def _open_newest_archive(self, user: str) -> files.FileReader | None:
        """The archive that was appended to last."""
        archives = self.archives(user)
        if not archives:
            return None
        newest = max(archives, key=lambda archive: (archive.stat.mtime_ns, archive.name))
        return files.FileReader(self._layout.conversation(user, newest.name))

    def _put(self, user: str, archive: str | None, data: bytes, mtime_ns: int) -> None:
        self._make_folders(user)
        path = self._layout.conversation(user, archive)
        with self._locks.held(user, wait=True):
            if archive is None and os.path.exists(path) and not os.path.getsize(path):
                os.unlink(path)  # An empty conversation is none: a writer made the file and never wrote.
            try:
                files.create_whole(path, data, mtime_ns=mtime_ns, durable=self._durable)
            except FileExistsError:
                what = "a running conversation" if archive is None else f"an archive {archive!r}"
                raise AlreadyExists(f"user {user!r} has {what} already; nothing is replaced") from None
            self._index.forget(user)

    def _listed(self, folder: str) -> list[Archived]:
        found = []
        for name in self._named(folder, names.archive_name, directories=False):
            # Gone since: renamed, or (what was set aside) removed.
            with suppress(FileNotFoundError):
                stat = files.stat_of(os.stat(f"{folder}/{names.archive_file(name)}"))
                found.append(Archived(name, stat))
        return found

    @staticmethod
    def _named(folder: str, spelled: Callable[[str], str], *, directories: bool) -> Iterator[str]:
        """What the entries of a folder stand for; whatever else lies there is left alone."""
        try:
            entries = os.scandir(folder)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                with suppress(InvalidName, NameTooLong):
                    if entry.is_dir() == directories:
                        yield spelled(entry.name)

    @contextmanager
    def _must_exist(self, user: str, archive: str | None) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self._not_found(user, archive) from None

    @staticmethod
    def _not_found(user: str, archive: str | None) -> NotFound:
        what = "running conversation" if archive is None else f"archive {archive!r}"
        return NotFound(f"user {user!r} has no {what}")
