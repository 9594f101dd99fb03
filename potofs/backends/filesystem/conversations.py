"""Finding and reading conversations: plain or compressed, without a lock.

An archive is `<name>.yaml` or `<name>.yaml.gz`. It is compressed by making the second and then taking the first away,
and restored the other way round. So whoever looks for the plain one first always finds one of them, and where both are
seen they are the same: the plain one counts.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice

from potofs import names
from potofs.backends.base import Archived, Stat, conversation_file
from potofs.backends.filesystem import files
from potofs.backends.filesystem.gzipped import GzipReader, NotGzip
from potofs.backends.filesystem.layout import COMPRESSED, Layout
from potofs.backends.filesystem.settled import SettledReader
from potofs.backends.wording import not_found
from potofs.errors import InvalidName, NameTooLong, NotFound

# Running conversations of which is remembered how far they are whole.
_REMEMBERED = 4096

# Files in a folder that can be looked at while others wait; it takes a millisecond or so.
_FEW = 32

#: An opened conversation, in one form or the other.
Opened = files.FileReader | GzipReader


class Conversations:
    """What lies in the folders of one root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        # How far a user's running conversation was whole when it was looked at last: its id, and bytes.
        self._whole: dict[str, tuple[int, int]] = {}

    def users(self) -> Iterator[str]:
        """The ids of all users; raises OSError, also if the journal's folder is gone."""
        check_there(self._layout)
        for name in _names(self._layout, self._layout.users, directories=True):
            with suppress(InvalidName, NameTooLong):
                yield names.decode(name)
        # Taken away meanwhile, it would end early, as if these were all.
        check_there(self._layout)

    def stat(self, user: str, archive: str | None) -> Stat:
        """What is known of a conversation; raises NotFound, OSError."""
        try:
            found = files.stat_plain(self._layout.conversation(user, archive))
        except FileNotFoundError:
            if archive is None:
                raise missing(self._layout, user, archive) from None
            with self._open_compressed(user, archive) as reader:
                return reader.stat()
        if not found.st_size and archive is None:
            raise missing(self._layout, user, archive)
        return files.stat_of(found, self._layout.number_of)

    def stat_running(self, user: str) -> Stat:
        """What is known of the running one as far as it is whole; raises NotFound, OSError."""
        # A conversation is whole up to there for ever, so that mostly it need not be opened.
        with must_exist(self._layout, user, None):
            stat = files.stat_of(os.stat(self._layout.conversation(user, None)), self._layout.number_of)
        if self._whole.get(user) != stat[:2]:
            with self.shown(user, None) as reader:
                stat = reader.stat()
            if len(self._whole) >= _REMEMBERED:
                self._whole.clear()
            self._whole[user] = stat[:2]
        return stat

    def shown(self, user: str, archive: str | None) -> Opened:
        """Opens one as far as it is whole, also while somebody appends; raises NotFound, OSError."""
        # An archive too, for it may be restored while it is open.
        return self._opened(SettledReader, user, archive)

    def open(self, user: str, archive: str | None) -> Opened:
        """Opens one to read, and all that is there: the caller holds the lock, or looks at an archive.

        Raises NotFound, OSError.
        """
        return self._opened(files.FileReader, user, archive)

    def _opened(self, kind: type[files.FileReader], user: str, archive: str | None) -> Opened:
        try:
            reader = kind(self._layout.conversation(user, archive), self._layout.number_of)
        except FileNotFoundError:
            if archive is None:
                raise missing(self._layout, user, archive) from None
            return self._open_compressed(user, archive)
        if archive is None and not reader.stat().size:
            reader.close()
            raise missing(self._layout, user, archive)
        return reader

    def is_taken(self, user: str, archive: str) -> bool:
        """Whether anything has the name of an archive, in one form or the other."""
        return os.path.lexists(self._layout.conversation(user, archive)) or os.path.lexists(
            self._layout.compressed(user, archive)
        )

    def is_compressed(self, user: str, archive: str) -> bool:
        """Whether there is only the compressed form of an archive."""
        plain, compressed = self._layout.conversation(user, archive), self._layout.compressed(user, archive)
        return not os.path.lexists(plain) and os.path.lexists(compressed)

    def archives(self, user: str) -> list[Archived]:
        """All archives of a user, in no order; raises OSError, also if the journal's folder is gone."""
        found: dict[str, Archived] = {}
        for name in _names(self._layout, self._layout.archived(user), directories=False):
            with suppress(InvalidName, NameTooLong, NotFound):
                archive = names.archive_name(name.removesuffix(COMPRESSED))
                if archive not in found:
                    found[archive] = self._archived(user, archive)
        # Taken away meanwhile, it would end early, as if these were all.
        check_there(self._layout)
        return list(found.values())

    def stats_of(self, user: str, archives: Sequence[str]) -> list[Stat | None]:
        """What `archives` says of each of many."""
        found: list[Stat | None] = []
        for archive in archives:
            try:
                found.append(self._archived(user, archive).stat)
            except NotFound:
                found.append(None)
        return found

    def newest_archive(self, user: str) -> tuple[tuple[int, str], Opened] | None:
        """The archive that was appended to last: when, and its name, and it, opened; None if there is none.

        The caller holds the lock.
        """
        newest = max(self.archives(user), key=last_appended, default=None)
        return (last_appended(newest), self.open(user, newest.name)) if newest else None

    def has_many_archives(self, user: str) -> bool:
        """Whether it takes long to look at all archives of a user; looks at no more than it has to."""
        with suppress(FileNotFoundError), os.scandir(self._layout.archived(user)) as entries:
            return any(True for _ in islice(entries, _FEW, None))
        return False

    def set_asides(self, user: str) -> list[Archived]:
        """What was set aside; raises OSError, also if the journal's folder is gone."""
        found = []
        for aside in self._asides(user):
            with suppress(FileNotFoundError):
                found.append(self._plain(self._layout.set_aside(user, aside), aside))
        check_there(self._layout)
        return found

    def has_set_asides(self, user: str) -> bool:
        """Whether anything was; looks at no more than it has to."""
        return any(True for _ in self._asides(user))

    def stats_of_set_asides(self, user: str, asides: Sequence[str]) -> list[Stat | None]:
        """What `set_asides` says of each of many."""
        found: list[Stat | None] = []
        for aside in asides:
            try:
                found.append(self._plain(self._layout.set_aside(user, aside), aside).stat)
            except FileNotFoundError:
                check_there(self._layout)
                found.append(None)
        return found

    def _asides(self, user: str) -> Iterator[str]:
        for name in _names(self._layout, self._layout.rejected(user), directories=False):
            with suppress(InvalidName, NameTooLong):
                yield names.archive_name(name)

    def _archived(self, user: str, archive: str) -> Archived:
        """One archive, in whichever form it is by now; raises NotFound, also if it is no gzip, which is not ours."""
        with suppress(FileNotFoundError):
            return self._plain(self._layout.conversation(user, archive), archive)
        with self._open_compressed(user, archive) as reader:
            return Archived(archive, reader.stat(), reader.stored_size())

    def _plain(self, path: str, name: str) -> Archived:
        stat = files.stat_of(os.stat(path), self._layout.number_of)
        return Archived(name, stat, stat.size)

    def _open_compressed(self, user: str, archive: str) -> GzipReader:
        with must_exist(self._layout, user, archive):
            try:
                return GzipReader(
                    self._layout.compressed(user, archive),
                    self._number_by_token(user),
                    self._layout.number_of,
                    called=called(user, archive),
                )
            except NotGzip:
                raise missing(self._layout, user, archive) from None

    def _number_by_token(self, user: str) -> Callable[[bytes], int | None]:
        def number(token: bytes) -> int | None:
            try:
                return self._layout.number_of(os.stat(self._layout.number(user, token)))
            except FileNotFoundError:
                return None

        return number


def called(user: str, archive: str) -> str:
    """What an error calls an archive."""
    return f"{conversation_file(archive)} of user {user!r}"


@contextmanager
def must_be_there(layout: Layout) -> Iterator[None]:
    """Turns a missing folder of users into an error of the disk: what is missing may lie on one that is to come back.

    So the journal's own folder is never made anew while it is in use.
    """
    try:
        yield
    except FileNotFoundError:
        raise OSError(errno.ENODEV, "the journal's folder is gone", layout.users) from None


def check_there(layout: Layout) -> None:
    """Raises OSError (ENODEV) if the folder of users is gone."""
    with must_be_there(layout):
        os.stat(layout.users)


def missing(layout: Layout, user: str, archive: str | None) -> NotFound:
    """What is to be raised where a conversation's file is not; raises OSError (ENODEV) if all are gone."""
    check_there(layout)
    return not_found(user, archive)


@contextmanager
def must_exist(layout: Layout, user: str, archive: str | None) -> Iterator[None]:
    """Turns a file that is not there into NotFound, or into OSError (ENODEV) if the journal's own folder is gone."""
    try:
        yield
    except FileNotFoundError:
        raise missing(layout, user, archive) from None


def last_appended(archive: Archived) -> tuple[int, str]:
    """Orders archives by their last append."""
    return archive.stat.mtime_ns, archive.name


def _names(layout: Layout, folder: str, *, directories: bool) -> Iterator[str]:
    """The entries of a folder that are folders themselves, or files; none if it is not there.

    Raises OSError (ENODEV) if the journal's own folder is gone: what copies it may not take it for empty.
    """
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        check_there(layout)
        return
    with entries:
        for entry in entries:
            # A link that leads nowhere, or in a circle, is no entry either.
            with suppress(OSError):
                if entry.is_dir() == directories:
                    yield entry.name
