"""What archives are made of, become, and are called. The caller holds the user's lock, except where it says otherwise.

A conversation's number is that of the file it was written to, for life. So that file stays when the archive is
compressed: under a hidden name that the compressed form knows (`.<token>.id`), empty, because its number would be given
to another conversation if it went. Restored, its bytes are written into it again. A copy of the tree made by another
program keeps the two together, so numbers are unique there too; without its `.id` the compressed file has its own.

Whatever the setting for fsync is: nothing is taken away that is not on disk in its other form.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from potofs import names, times
from potofs.backends.base import Reader
from potofs.backends.filesystem import files, gzipped, leases
from potofs.backends.filesystem.conversations import Conversations, Opened, called, must_exist
from potofs.backends.filesystem.layout import NUMBER, Layout
from potofs.backends.filesystem.sync import GroupSync, sync_directory
from potofs.backends.wording import taken
from potofs.errors import NotFound

# Bytes that are compared at once.
_PIECE = 1 << 20


class Compressed(NamedTuple):
    """An archive's other form, made and not yet in its place."""

    #: The plain one that it was made from, opened.
    plain: files.FileReader
    path: str
    token: bytes
    size: int


class Archives:
    """Moves of conversations within one root; `durable`: they are on disk when they are done."""

    def __init__(self, layout: Layout, conversations: Conversations, syncs: GroupSync, *, durable: bool) -> None:
        self._layout, self._conversations, self._syncs, self._durable = layout, conversations, syncs, durable

    def archive(self, user: str, descriptor: int, name: str | None) -> str:
        """Renames the running conversation, opened as `descriptor`, into an archive; raises AlreadyExists, OSError."""
        if name is None:
            base = times.compact(time.time_ns())
            name = names.first_free(base, lambda name: self._conversations.is_taken(user, name))
        else:
            self.refuse_taken(user, name)
        if self._durable:
            self._syncs.sync(descriptor)
        self._move(self._layout.conversation(user, None), self._layout.conversation(user, name), user)
        return name

    def restore(self, user: str, archive: str, make_way: Callable[[], str | None]) -> str | None:
        """Makes an archive the running conversation; raises NotFound, AlreadyExists, FileExistsError, OSError.

        `make_way` takes away the one that is there, once it is known that the archive can be read, and returns the name
        that it has then.
        """
        current, compressed = self._layout.conversation(user, None), self._layout.compressed(user, archive)
        self.keep_one_form(user, archive)
        if self.finish_restoring(user, archive):
            return None
        if not self._conversations.is_compressed(user, archive):
            swapped = make_way()
            with must_exist(self._layout, user, archive):
                self._move(self._layout.conversation(user, archive), current, user)
            return swapped
        with self._conversations.open(user, archive) as reader, self._written_back(user, reader) as path:
            swapped = make_way()
            # Killed before the second step, it is seen twice, as running and as archive; the other way round it
            # would be seen nowhere. `finish_restoring` does the rest then.
            files.rename_new(path, current)
            sync_directory(self._layout.dialogs(user))
            os.unlink(compressed)
            sync_directory(self._layout.archived(user))
        self.touch(user)
        return swapped

    def is_restored(self, user: str, archive: str) -> bool:
        """Whether a compressed archive is the running conversation already: somebody was killed; raises OSError.

        Its number's file has become that one, which has grown since or not.
        """
        if not self._conversations.is_compressed(user, archive):
            return False
        with suppress(NotFound), self._conversations.open(user, archive) as reader:
            token = reader.token if isinstance(reader, gzipped.GzipReader) else None
            if token is not None and not os.path.lexists(self._layout.number(user, token)):
                with self._conversations.open(user, None) as running:
                    return _begins_with(running, reader)
        return False

    def finish_restoring(self, user: str, archive: str) -> bool:
        """Takes an archive away that is the running conversation already, and says whether it was; raises OSError."""
        if not self.is_restored(user, archive):
            return False
        with self._conversations.open(user, None) as running:
            os.fsync(running.fileno())
        sync_directory(self._layout.dialogs(user))
        os.unlink(self._layout.compressed(user, archive))
        sync_directory(self._layout.archived(user))
        self.touch(user)
        return True

    def rename(self, user: str, archive: str, name: str) -> None:
        """Gives an archive another name, in whichever form it is; raises NotFound, AlreadyExists, OSError."""
        self.keep_one_form(user, archive)
        form = (
            self._layout.compressed if self._conversations.is_compressed(user, archive) else self._layout.conversation
        )
        with must_exist(self._layout, user, archive):
            os.stat(form(user, archive))
            self.refuse_taken(user, name)
            self._move(form(user, archive), form(user, name), user)

    def refuse_taken(self, user: str, name: str) -> None:
        """Raises AlreadyExists if there is such an archive."""
        if self._conversations.is_taken(user, name):
            raise taken(user, name)

    def move_aside(self, user: str, path: str) -> None:
        """Moves a file as it is into `rejected/`."""
        if self._is_aside(user, path):
            os.unlink(path)
        else:
            self._put_aside(user, lambda new: files.rename_new(path, new))
        sync_directory(os.path.dirname(path))

    def keep_aside(self, user: str, path: str) -> str:
        """Has a file as it is in `rejected/` too, before something else takes its place; returns its name there."""
        return self._is_aside(user, path) or self._put_aside(user, lambda new: os.link(path, new))

    def _is_aside(self, user: str, path: str) -> str | None:
        """The name that a file has in `rejected/` already: somebody was killed. None if it is not there."""
        found = os.stat(path)
        if found.st_nlink > 1:
            for aside in self._conversations.set_asides(user):
                if os.path.samestat(found, os.stat(self._layout.set_aside(user, aside.name))):
                    return aside.name
        return None

    def _put_aside(self, user: str, make: Callable[[str], None]) -> str:
        rejected = self._layout.rejected(user)
        files.make_directories(rejected, below=self._layout.users, durable=True)
        name = self.name_aside(user, make)
        sync_directory(rejected)
        return name

    def name_aside(self, user: str, make: Callable[[str], None]) -> str:
        """Has `make` put something at a path in `rejected/` that nothing has, and returns its name there: the time.

        `make` raises FileExistsError if somebody was quicker, and is asked again.
        """
        base = times.compact(time.time_ns())
        while True:
            name = names.first_free(base, lambda name: os.path.lexists(self._layout.set_aside(user, name)))
            with suppress(FileExistsError):
                make(self._layout.set_aside(user, name))
                return name

    def touch(self, user: str) -> None:
        """Shows every server that archives are others now, by a finer clock than files have on older kernels."""
        now = time.time_ns()
        os.utime(self._layout.archived(user), ns=(now, now))

    # Compressing

    @contextmanager
    def compressed(self, user: str, archive: str) -> Iterator[Compressed | None]:
        """Makes the compressed form of an archive, durable and beside it; None if that is no smaller.

        Without the lock: an archive does not change. What may happen to its name meanwhile, `replace` looks at.
        """
        try:
            plain = files.FileReader(self._layout.conversation(user, archive), self._layout.number_of)
        except FileNotFoundError:
            # Compressed by another server a moment ago; else it is not there.
            self._conversations.stat(user, archive)
            yield None
            return
        folder = self._layout.archived(user)
        with plain, files.scratch(folder) as (descriptor, path):
            stat, token = plain.stat(), os.urandom(gzipped.TOKEN_SIZE)
            size = gzipped.write(plain, stat.size, descriptor, token)
            if size >= stat.size or not leases.could_be_emptied(plain.fileno(), descriptor):
                yield None
                return
            os.fsync(descriptor)
            # Read back, for the plain one will be gone.
            with gzipped.GzipReader(path, lambda _: None) as reader:
                if not are_same(reader, plain) and plain.stat().size == stat.size:
                    raise OSError(f"{path}: what was compressed does not read back as it was")
            yield Compressed(plain, path, token, size)

    def replace(self, user: str, archive: str, made: Compressed) -> int:
        """Puts the compressed form of an archive in its place; returns the bytes saved, 0 if it has become another."""
        path, folder = self._layout.conversation(user, archive), self._layout.archived(user)
        stat = made.plain.stat()
        try:
            if files.stat_of(os.stat(path), self._layout.number_of)[:2] != stat[:2]:
                return 0
        except FileNotFoundError:
            # Restored, renamed, or compressed by another server.
            return 0
        self.forget_other_form(user, archive)
        os.utime(made.path, ns=(stat.mtime_ns, stat.mtime_ns))
        try:
            files.rename_new(made.path, self._layout.compressed(user, archive))
        except FileExistsError:
            # Something else of that name, which is not ours to take away.
            return 0
        # Killed here, it is there in both forms, and the plain one counts until it is compressed once more.
        sync_directory(folder)
        files.rename_new(path, self._layout.number(user, made.token))
        sync_directory(folder)
        self.touch(user)
        return stat.size - made.size

    def empty_numbers(self, user: str, token: bytes | None) -> None:
        """Frees what files still hold that only keep a number, unless somebody reads in one since before.

        That of `token` first, which was just put in place: mostly there is no other to look for.
        """
        if token is not None:
            with suppress(FileNotFoundError):
                leases.empty(self._layout.number(user, token))
        with suppress(FileNotFoundError), os.scandir(self._layout.archived(user)) as entries:
            kept = [entry.path for entry in entries if entry.name.startswith(".") and entry.name.endswith(NUMBER)]
            full = {path for path in kept if os.stat(path).st_size}
            # One that no archive knows may hold all there is of something: somebody took the other form away.
            for path in full and full & self.numbers(user):
                leases.empty(path)

    def numbers(self, user: str) -> set[str]:
        """The files that keep the numbers of compressed archives."""
        found = set()
        for archive in self._conversations.archives(user):
            with suppress(NotFound), self._conversations.open(user, archive.name) as reader:
                if isinstance(reader, gzipped.GzipReader) and reader.token is not None:
                    found.add(self._layout.number(user, reader.token))
        return found

    def forget_other_form(self, user: str, archive: str) -> None:
        """Takes the compressed form away where the plain one is there with the same bytes: somebody was killed.

        Raises OSError, also if no more of the compressed one can be read than the plain one has.
        """
        with suppress(FileNotFoundError, gzipped.NotGzip):
            compressed = self._layout.compressed(user, archive)
            if self.is_same_in_both(user, archive):
                os.unlink(compressed)

    def keep_one_form(self, user: str, archive: str) -> None:
        """Leaves the plain form of an archive alone with its name, if it is there: the other would stay when it moves.

        A compressed one that holds something else, or cannot be read, is moved into `rejected/`.
        """
        compressed = self._layout.compressed(user, archive)
        with suppress(FileNotFoundError, gzipped.NotGzip):
            try:
                is_same = self.is_same_in_both(user, archive)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                is_same = False
            if is_same:
                os.unlink(compressed)
            else:
                self.move_aside(user, compressed)

    def is_same_in_both(self, user: str, archive: str) -> bool:
        """Whether both forms of an archive hold the same; raises NotGzip, OSError, also if that one is damaged."""
        plain = self._layout.conversation(user, archive)
        compressed = self._layout.compressed(user, archive)
        name = called(user, archive)
        with gzipped.GzipReader(compressed, lambda _: None, called=name) as reader, files.FileReader(plain) as other:
            is_same = are_same(other, reader)
            if not is_same:
                reader.check_end()
            return is_same

    def rewrite(self, user: str, archive: str | None, data: bytes, mtime_ns: int) -> None:
        """Puts a new plain file in the place of a conversation's, at one stroke and durable; raises OSError.

        A new file, though it has another number: written over, the old one would tear whoever reads it, and hold half
        of each after a power failure.
        """
        path = self._layout.conversation(user, archive)
        if archive is None:
            # What was kept of the old one.
            with suppress(FileNotFoundError):
                os.unlink(self._layout.sidecar(user))
            if not data:
                # An empty conversation is none.
                os.unlink(path)
                sync_directory(os.path.dirname(path))
                return
        files.replace_whole(path, data, mtime_ns=mtime_ns)
        if archive is not None:
            # The plain one counts from now on. Killed here, both are there, and differ: a check finds that.
            compressed = self._layout.compressed(user, archive)
            with suppress(FileNotFoundError, gzipped.NotGzip):
                with gzipped.GzipReader(compressed, lambda _: None) as reader:
                    token = reader.token
                    is_whole = _is_whole(reader)
                if is_whole:
                    os.unlink(compressed)
                else:
                    # There may be more in it than anybody could read here.
                    self.move_aside(user, compressed)
                if token is not None:
                    os.unlink(self._layout.number(user, token))
            sync_directory(os.path.dirname(path))
            self.touch(user)

    @contextmanager
    def _written_back(self, user: str, reader: Opened) -> Iterator[str]:
        """A file with the bytes of a compressed archive and its time, durable; the one that keeps its number."""
        folder = self._layout.archived(user)
        token = reader.token if isinstance(reader, gzipped.GzipReader) else None
        if token is not None:
            path = self._layout.number(user, token)
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDWR)
                try:
                    _fill(descriptor, reader, path)
                finally:
                    os.close(descriptor)
                yield path
                return
        with files.scratch(folder) as (descriptor, path):
            _fill(descriptor, reader, path)
            yield path

    def _move(self, old: str, new: str, user: str) -> None:
        files.rename_new(old, new)
        if self._durable:
            # First where it arrives: after a power failure it may have two names, but never none.
            arrives, leaves = os.path.dirname(new), os.path.dirname(old)
            sync_directory(arrives)
            if leaves != arrives:
                sync_directory(leaves)
        self.touch(user)


def _fill(descriptor: int, reader: Opened, path: str) -> None:
    """Writes the bytes of an archive into a file, unless it has them still (somebody was reading), and its time."""
    stat = reader.stat()
    with files.FileReader(path) as there:
        complete = there.stat().size == stat.size and are_same(there, reader)
    if not complete:
        os.ftruncate(descriptor, 0)
        offset = 0
        while piece := reader.read(offset, _PIECE):
            offset += gzipped.write_at(descriptor, piece, offset)
        _check_end(reader)
    os.utime(descriptor, ns=(stat.mtime_ns, stat.mtime_ns))
    os.fsync(descriptor)


def are_same(one: Reader, other: Reader) -> bool:
    """Whether two hold the same bytes; raises OSError, also if there is more in one than can be read."""
    if one.stat().size != other.stat().size or not _begins_with(other, one):
        return False
    _check_end(other)
    return True


def _begins_with(one: Reader, other: Reader) -> bool:
    """Whether one has all bytes of the other, and perhaps more behind them; raises OSError as `are_same` does."""
    offset = 0
    while piece := other.read(offset, _PIECE):
        if one.read(offset, len(piece)) != piece:
            return False
        offset += len(piece)
    _check_end(other)
    return offset == other.stat().size


def _check_end(reader: Reader) -> None:
    if isinstance(reader, gzipped.GzipReader):
        reader.check_end()


def _is_whole(reader: gzipped.GzipReader) -> bool:
    try:
        reader.verify()
    except OSError:
        return False
    return True
