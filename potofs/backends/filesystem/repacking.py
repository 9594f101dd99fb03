"""What takes the place of a compressed archive that is damaged, or that another program compressed.

The caller holds the user's lock. Nothing is taken away that is not on disk in its other form, whatever the setting for
fsync is, and a damaged file is in `rejected/` before anything takes its place. Killed anywhere in between, an archive
is there once, as it was or as it is then, and the next check does the rest.
"""

import os
from contextlib import suppress
from typing import NamedTuple

from potofs.backends.base import RECORD_END, Reader, Snapshot
from potofs.backends.filesystem import files, gzipped, members
from potofs.backends.filesystem.archives import Archives, are_same
from potofs.backends.filesystem.layout import Layout
from potofs.backends.filesystem.leases import is_in_use
from potofs.backends.filesystem.salvage import salvage
from potofs.backends.filesystem.sync import sync_directory

#: Why something was left as it is; None if it was done.
WhyNot = str | None


class Aside(NamedTuple):
    """What was mended, but not without loss: the name that the file as it was has in `rejected/`."""

    name: str


class Repacking:
    """Compressed archives of one root that are written anew."""

    def __init__(self, layout: Layout, archives: Archives) -> None:
        self._layout, self._archives = layout, archives

    def index(self, user: str, archive: str) -> WhyNot:
        """Writes what another program compressed as it is written here: the same bytes, time and number.

        Raises OSError, also if it is damaged.
        """
        path, token = self._layout.compressed(user, archive), os.urandom(gzipped.TOKEN_SIZE)
        with files.scratch(self._layout.archived(user)) as (descriptor, made):
            with gzipped.GzipReader(path, lambda _: None) as reader:
                seen = os.fstat(reader.fileno())
                _pack(reader, descriptor, made, token)
            # It may be about to get another member; and what somebody reads is not emptied.
            if is_in_use(path) or _changed(seen, os.stat(path)):
                return "left as it is, for a program has it open or nobody can tell: look again later"
            # The same file under another name, so that the archive's number stays its own. Killed before the next step,
            # it is found to be of no archive, and goes.
            with suppress(OSError):
                os.link(path, self._layout.number(user, token))
            self._put(user, made, path)
        self._archives.empty_numbers(user, token)
        return None

    def salvage(self, user: str, archive: str) -> WhyNot | Aside:
        """Puts what can be had of a damaged archive in its place; raises OSError.

        If that is all of it, it is compressed as before. Else it is another conversation, uncompressed, under the same
        name and with the same time.
        """
        path = self._layout.compressed(user, archive)
        descriptor = files.open_plain(path, os.O_RDONLY)
        try:
            found, was = salvage(descriptor), os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if found is None:
            return "it has become another meanwhile"
        aside = Aside(self._archives.keep_aside(user, path))
        if found.is_all:
            stat = files.stat_of(was, self._layout.number_of)._replace(size=found.head.size)
            with files.scratch(self._layout.archived(user)) as (descriptor, made):
                _pack(Snapshot(found.data, stat), descriptor, made, found.head.token)
                self._put(user, made, path)
            return aside
        self._put_plain(user, archive, found.data, was.st_mtime_ns)
        with suppress(FileNotFoundError):
            os.unlink(self._layout.number(user, found.head.token))
        self._archives.touch(user)
        return aside

    def keep_readable(self, user: str, archive: str) -> WhyNot | Aside:
        """Puts the whole records before the damage in the place of what another program compressed; raises OSError."""
        path = self._layout.compressed(user, archive)
        descriptor = files.open_plain(path, os.O_RDONLY)
        try:
            pieces, was = list(members.inflated(descriptor)), os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not pieces or pieces[-1] is not None or is_in_use(path):
            return "left as it is, for a program has it open or nobody can tell: look again later"
        data = b"".join(piece for piece in pieces if piece is not None)
        aside = Aside(self._archives.keep_aside(user, path))
        self._put_plain(
            user,
            archive,
            data[: data.rfind(RECORD_END) + len(RECORD_END)] if RECORD_END in data else b"",
            was.st_mtime_ns,
        )
        self._archives.touch(user)
        return aside

    def _put_plain(self, user: str, archive: str, data: bytes, mtime_ns: int) -> None:
        # The plain one counts from now on. Killed here, both are there, and differ: a check finds that.
        files.create_whole(self._layout.conversation(user, archive), data, mtime_ns=mtime_ns)
        self._archives.move_aside(user, self._layout.compressed(user, archive))

    def _put(self, user: str, made: str, path: str) -> None:
        os.rename(made, path)
        sync_directory(os.path.dirname(path))
        self._archives.touch(user)


def _pack(source: Reader, descriptor: int, path: str, token: bytes) -> None:
    """Compresses an archive into a new file, opened, with its time; raises OSError unless it reads back the same."""
    stat = source.stat()
    gzipped.write(source, stat.size, descriptor, token)
    os.utime(descriptor, ns=(stat.mtime_ns, stat.mtime_ns))
    os.fsync(descriptor)
    with gzipped.GzipReader(path, lambda _: None) as reader:
        reader.verify()
        if not are_same(reader, source):
            raise OSError(f"{path}: what was compressed does not read back as it was")


def _changed(seen: os.stat_result, now: os.stat_result) -> bool:
    return not os.path.samestat(seen, now) or (seen.st_size, seen.st_mtime_ns) != (now.st_size, now.st_mtime_ns)
