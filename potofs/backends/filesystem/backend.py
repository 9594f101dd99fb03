"""The filesystem backend: what it does to a user's files, and under which lock.

Reads take no lock: files only grow, and a name changes by rename(2). Every change holds the user's lock, and opens its
files after it has the lock. What is appended goes out in one write(2).
"""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

import msgspec

from potofs import names, times
from potofs.backends.base import (
    RECORD_END,
    Appended,
    Archived,
    Backend,
    Fence,
    Mark,
    Reader,
    Record,
    Scan,
    Stat,
    Totals,
    Usage,
    new_ones,
    seam,
)
from potofs.backends.filesystem import files
from potofs.backends.filesystem.index import Contents, Index
from potofs.backends.filesystem.layout import DIRECTORY_MODE, FILE_MODE, Layout
from potofs.backends.filesystem.lock import UserLocks
from potofs.backends.filesystem.sync import GroupSync, sync_directory
from potofs.config import FilesystemSettings, Where
from potofs.errors import AlreadyExists, InvalidName, NameTooLong, NotFound, WouldBlock

log = logging.getLogger(__name__)


class FilesystemBackend(Backend):
    """Conversations as files under the root `where.place`."""

    def __init__(self, where: Where, scan: Scan) -> None:
        self._settings = where.settings(FilesystemSettings)
        self._layout = Layout(where.place)
        self._scan = scan
        self._locks = UserLocks(self._layout.lock, self._settings.lock_timeout_ms)
        self._index = Index(scan, self._open_newest_archive, lambda user: files.changed(self._layout.archived(user)))
        self._syncs = GroupSync()
        self._root: int | None = None
        self.append_blocks = self._settings.fsync == "always"
        self.sync_on_close = self._settings.fsync == "close"

    def prepare(self, *, create: bool) -> None:
        if create:
            files.make_directories(self._layout.users, durable=self._durable)
        try:
            os.scandir(self._layout.root).close()
            os.stat(f"{self._layout.users}/.")
            # Held open for as long as it is in use: what it lies on cannot be unmounted meanwhile.
            self._root = os.open(self._layout.root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise NotFound(f"there is no journal at {self._layout.root}: check the path") from None

    # Users

    def users(self) -> Iterator[str]:
        with self._must_be_there():
            entries = os.scandir(self._layout.users)
        yield from self._named(entries, names.decode, directories=True)

    def users_changed(self) -> int:
        return files.changed(self._layout.users)

    def has_user(self, user: str) -> bool:
        return os.path.isdir(self._layout.user(user))

    def create_user(self, user: str, profile: bytes) -> None:
        try:
            with self._must_be_there():
                os.mkdir(self._layout.user(user), DIRECTORY_MODE)
        except FileExistsError:
            raise AlreadyExists(f"user {user!r} exists already") from None
        try:
            self._make_folders(user)
            # Another writer that found the folder without it was as quick.
            with suppress(FileExistsError):
                files.create_whole(self._layout.profile(user), profile, durable=self._durable)
        except OSError:
            # Half a user would be in the way of the next try. Whatever is in use by now is not empty, and stays.
            for folder in (self._layout.archived(user), self._layout.dialogs(user), self._layout.user(user)):
                with suppress(OSError):
                    os.rmdir(folder)
            raise
        if self._durable:
            self._sync_folders(user)

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
            reader = files.FileReader(self._layout.conversation(user, archive))
        if archive is None and not reader.stat().size:
            reader.close()
            raise self._not_found(user, archive)
        return reader

    def archives(self, user: str) -> list[Archived]:
        return self._listed(self._layout.archived(user))

    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        self._make_folders(user)
        with self._changing(user, wait=wait):
            descriptor = self._open_current(user)
            try:
                contents = self._index.current(user, descriptor, wait=wait)
                fresh = new_ones(records, lambda record: self._was_given(user, contents, record, wait=wait))
                if not wait and self.sync_on_close and self._reaches_threshold(contents, len(fresh)):
                    raise WouldBlock(f"user {user!r}: archiving waits for the disk")
                if fresh:
                    contents = self._write(user, descriptor, contents, fresh)
                archived_as = None
                if self._reaches_threshold(contents):
                    archived_as = self._archive_by_itself(user, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        try:
            # Without the lock, so that the appends of others go on; and also for a second try, whose first
            # may not have come this far.
            if self._settings.fsync == "always":
                self._syncs.sync(descriptor)
                if not contents.is_named:
                    # Whoever made the file may have been killed before its name was durable.
                    self._sync_folders(user)
                    contents.is_named = True
        finally:
            os.close(descriptor)
        return Appended(len(fresh), archived_as)

    def sync(self, user: str) -> None:
        archives = sorted(self.archives(user), key=_last_appended)
        # Nothing is archived that is not on disk, unless fsync says never. The newest all the same: it may have been
        # the running one until now, and another server, told never, has archived it.
        for archive in [None, *(archive.name for archive in (archives[-1:] if self._durable else archives))]:
            with suppress(NotFound), self.open(user, archive) as reader:
                if self._syncs.is_doubtful(reader.fileno()):
                    with self._locks.held(user, wait=True):
                        self._write_again(user, reader.fileno())
                self._syncs.sync(reader.fileno())
        with suppress(FileNotFoundError):
            sync_directory(self._layout.archived(user))
            self._sync_folders(user)

    def archive(self, user: str, name: str | None = None, *, wait: bool = True) -> str:
        self.stat(user)
        # Another program may have made the user's folders, and not this one.
        self._make_folders(user)
        with self._changing(user, wait=wait):
            self.stat(user)
            descriptor = self._open_current(user)
            try:
                if self._durable:
                    self._syncs.sync(descriptor)
                return self._archive(user, name)
            finally:
                os.close(descriptor)

    def set_times(self, user: str, archive: str | None, mtime_ns: int) -> None:
        with self._must_exist(user, archive):
            os.utime(self._layout.conversation(user, archive), ns=(mtime_ns, mtime_ns))
        if archive is not None:
            self._index.forget(user)  # Another may be the newest now.

    # Copying

    def put_archive(self, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        self._put(user, name, data, mtime_ns)

    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        self._put(user, None, data, mtime_ns)

    # What could not become a message

    def set_aside(self, user: str, data: bytes) -> str:
        with self._must_be_there():
            files.make_directories(self._layout.rejected(user), below=self._layout.users, durable=self._durable)
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

    def totals(self) -> Totals:
        users = conversations = archives = size = 0
        marks: list[Mark] = []
        for user in self.users():
            users += 1
            kept = [archive.name for archive in self.archives(user)]
            archives += len(kept)
            for archive in [None, *kept]:
                with suppress(NotFound), self.open(user, archive) as reader:
                    data = reader.read_all()
                    conversations += archive is None
                    size += len(data)
                    marks += self._scan(data)
        said = [mark.time_ns for mark in marks if mark.time_ns is not None]
        return Totals(
            users, conversations, archives, len(marks), size, min(said, default=None), max(said, default=None)
        )

    def fence(self) -> Fence:
        try:
            with files.FileReader(self._layout.fence) as file:
                return msgspec.json.decode(file.read_all(), type=Fence)
        except FileNotFoundError:
            return Fence()

    def set_fence(self, fence: Fence) -> None:
        files.make_directories(os.path.dirname(self._layout.fence), durable=self._durable)
        with suppress(FileNotFoundError):
            os.unlink(self._layout.fence)
        files.create_whole(self._layout.fence, msgspec.json.encode(fence), durable=self._durable)
        for user in self.users():
            # Whoever saw the old one holds a lock.
            with self._locks.held(user, wait=True):
                pass

    def close(self) -> None:
        if self._root is not None:
            os.close(self._root)
            self._root = None

    # Inside

    @contextmanager
    def _changing(self, user: str, *, wait: bool) -> Iterator[None]:
        """Holds the lock of a user to change something, if that may be."""
        with self._locks.held(user, wait=wait):
            self.fence().check()
            yield

    @contextmanager
    def _must_be_there(self) -> Iterator[None]:
        """Never makes the journal's own folder anew: what is missing may lie on a disk that is to come back."""
        try:
            yield
        except FileNotFoundError:
            raise OSError(errno.ENODEV, "the journal's folder is gone", self._layout.users) from None

    @property
    def _durable(self) -> bool:
        return self._settings.fsync != "never"

    def _make_folders(self, user: str) -> None:
        archived = self._layout.archived(user)
        if not os.path.isdir(archived):
            with self._must_be_there():
                # Whoever needs it durable calls `_sync_folders` in the end: here it may be somebody else who made them.
                files.make_directories(archived, below=self._layout.users, durable=False)

    def _sync_folders(self, user: str) -> None:
        """Makes durable where a user's conversations are, up to the folder of all users."""
        for folder in (self._layout.dialogs(user), self._layout.user(user), self._layout.users):
            sync_directory(folder)

    def _was_given(self, user: str, contents: Contents, record: Record, *, wait: bool) -> bool:
        """Whether the conversation or the newest archive holds a record, and not just the beginning of it."""
        fingerprint = record.mark.fingerprint
        return (contents.has(fingerprint) and not contents.is_cut_off(record)) or self._index.was_archived(
            user, fingerprint, wait=wait
        )

    def _open_current(self, user: str) -> int:
        """The running conversation, opened to append; the caller holds the lock."""
        path = self._layout.conversation(user, None)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, FILE_MODE)
        try:
            if self._syncs.is_doubtful(descriptor):
                self._write_again(user, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _write_again(self, user: str, descriptor: int) -> None:
        """Brings a file back from a failed sync; the caller holds the lock.

        A second sync alone would succeed and mean nothing, and a message given once more would be taken for stored.
        """
        # Reopened by number, for it may have another name by now.
        files.write_again(f"/proc/self/fd/{descriptor}")
        # What the disk refused may be gone: only what is there now was given before.
        self._index.forget(user)
        self._syncs.trust(descriptor)

    def _write(self, user: str, descriptor: int, contents: Contents, fresh: list[Record]) -> Contents:
        """Appends records, and returns what the conversation holds then; the caller holds the lock."""
        data = b"".join([record.data for record in fresh])
        if contents.is_cut_off(fresh[0]):
            # A writer was killed in its metadata. Whole but for those, it would stay beside its second try for ever.
            data = data[len(contents.tail) :]
        else:
            size = os.fstat(descriptor).st_size
            data = seam(os.pread(descriptor, len(RECORD_END), max(0, size - len(RECORD_END)))) + data
        with files.naming(self._layout.conversation(user, None)):
            end = files.append_whole(descriptor, data)
        if contents.covered + len(data) == end:
            contents.add(fresh, data)
            return contents
        # Torn bytes before it have an end now, and what that makes of them only the bytes can say; or another
        # program appended meanwhile.
        return self._index.current(user, descriptor)

    def _reaches_threshold(self, contents: Contents, more: int = 0) -> bool:
        return 0 < self._settings.archive_at <= contents.count + more

    def _archive_by_itself(self, user: str, descriptor: int) -> str | None:
        """Archives a conversation that is long enough, if that can be; the caller holds the lock.

        The append that brought it there is stored either way, and must not be reported as failed: given once more, it
        would be there twice. The next one tries again.
        """
        if self._durable:
            self._syncs.sync(descriptor)
        try:
            return self._archive(user, None)
        except (AlreadyExists, OSError) as error:
            log.warning("user %r: the conversation is long enough to be archived, but cannot be: %s", user, error)
            return None

    def _archive(self, user: str, name: str | None) -> str:
        """Renames the running conversation into an archive; the caller holds the lock, and has made it durable."""

        def is_taken(name: str) -> bool:
            return os.path.lexists(self._layout.conversation(user, name))

        if name is None:
            name = names.first_free(times.compact(time.time_ns()), is_taken)
        elif is_taken(name):
            raise AlreadyExists(
                f"user {user!r} has an archive {name!r} already; nothing is replaced, take another name"
            )
        os.rename(self._layout.conversation(user, None), self._layout.conversation(user, name))
        if self._durable:
            # First where it arrives: after a power failure it may have two names, but never none.
            sync_directory(self._layout.archived(user))
            sync_directory(self._layout.dialogs(user))
        self._index.forget(user)
        return name

    def _open_newest_archive(self, user: str) -> files.FileReader | None:
        """The archive that was appended to last."""
        archives = self.archives(user)
        if not archives:
            return None
        newest = max(archives, key=_last_appended)
        return files.FileReader(self._layout.conversation(user, newest.name))

    def _put(self, user: str, archive: str | None, data: bytes, mtime_ns: int) -> None:
        self._make_folders(user)
        path = self._layout.conversation(user, archive)
        with self._changing(user, wait=True):
            if archive is None and os.path.exists(path) and not os.path.getsize(path):
                os.unlink(path)  # An empty conversation is none: a writer made the file and never wrote.
            try:
                files.create_whole(path, data, mtime_ns=mtime_ns, durable=self._durable)
            except FileExistsError:
                what = "a running conversation" if archive is None else f"an archive {archive!r}"
                raise AlreadyExists(f"user {user!r} has {what} already; nothing is replaced") from None
            if archive is not None:
                # By a finer clock than files have on older kernels: every server has to see that there is another one.
                os.utime(self._layout.archived(user), ns=(time.time_ns(), time.time_ns()))
            self._index.forget(user)
        if self._durable:
            self._sync_folders(user)

    def _listed(self, folder: str) -> list[Archived]:
        try:
            entries = os.scandir(folder)
        except FileNotFoundError:
            return []
        found = []
        for name in self._named(entries, names.archive_name, directories=False):
            # Gone since: renamed, or (what was set aside) removed.
            with suppress(FileNotFoundError):
                stat = files.stat_of(os.stat(f"{folder}/{names.archive_file(name)}"))
                found.append(Archived(name, stat, stat.size))
        return found

    @staticmethod
    def _named(
        entries: AbstractContextManager[Iterator[os.DirEntry[str]]], spelled: Callable[[str], str], *, directories: bool
    ) -> Iterator[str]:
        """What the entries of a folder stand for; whatever else lies there is left alone."""
        with entries as opened:
            for entry in opened:
                # A link that leads nowhere, or in a circle, is no entry either.
                with suppress(InvalidName, NameTooLong, OSError):
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


def _last_appended(archive: Archived) -> tuple[int, str]:
    return archive.stat.mtime_ns, archive.name
