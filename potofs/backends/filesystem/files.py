"""Files of the backend: reading them, and writing so that a file is there whole or not at all."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from stat import S_ISLNK, S_ISREG

from potofs.backends.base import Reader, Stat
from potofs.backends.filesystem.layout import DIRECTORY_MODE, FILE_MODE
from potofs.backends.filesystem.sync import sync_directory

# Bytes read at once where all of a file is.
_PIECE = 1 << 24

# renameat2(2), which Python does not have: the present directory, and the flag that says never to replace.
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


#: What opening something else than a plain file is refused with.
NO_PLAIN_FILE = (errno.ELOOP, errno.EINVAL)

#: The number that a conversation has by its file.
NumberOf = Callable[[os.stat_result], int]


def inode(found: os.stat_result) -> int:
    """That of the inode."""
    return found.st_ino


def stat_of(found: os.stat_result, number_of: NumberOf) -> Stat:
    """What a conversation's file says of it."""
    return Stat(number_of(found), found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def open_plain(path: str, flags: int) -> int:
    """Opens what is a file: no folder, pipe or device, and no link, which may lead anywhere; raises OSError."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _link(path) from None
        raise
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_plain_file(path)
    return descriptor


def stat_plain(path: str) -> os.stat_result:
    """What is known of a file that `open_plain` would open; raises OSError as that does."""
    found = os.lstat(path)
    if S_ISLNK(found.st_mode):
        raise _link(path)
    if not S_ISREG(found.st_mode):
        raise _no_plain_file(path)
    return found


def _no_plain_file(path: str) -> OSError:
    return OSError(errno.EINVAL, "this is no plain file: move it away, or put a file in its place", path)


def _link(path: str) -> OSError:
    what = "this is a symbolic link, and none is followed: put the file itself in its place"
    return OSError(errno.ELOOP, what, path)


class FileReader(Reader):
    """A plain file, opened."""

    def __init__(self, path: str, number_of: NumberOf = inode) -> None:
        self._descriptor = open_plain(path, os.O_RDONLY)
        self._number_of = number_of

    def stat(self) -> Stat:
        return stat_of(os.fstat(self._descriptor), self._number_of)

    def stored_size(self) -> int:
        """Bytes that it takes up."""
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def read_all(self) -> bytes:
        pieces = []
        offset = 0
        while piece := self.read(offset, _PIECE):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def fileno(self) -> int:
        """The descriptor that it reads from."""
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)


def append_whole(descriptor: int, data: bytes, *, cut_back: bool = True) -> int:
    """Appends to a file that nobody has moved about in, all or nothing; returns where it ends then; raises OSError.

    Where programs that take no lock append too, it may not be `cut_back` after a failure: a part may stay.
    """
    start = done = 0
    try:
        done = os.write(descriptor, data)
        # Where the file ended may have changed since anybody looked: not every program takes the lock.
        start = os.lseek(descriptor, 0, os.SEEK_CUR) - done
        # Short only where the disk is nearly full; going on says why, or finds room after all.
        while done < len(data):
            done += os.write(descriptor, data[done:])
    except BaseException:
        # What another program has appended meanwhile is not ours to cut off.
        if cut_back and done and os.fstat(descriptor).st_size == start + done:
            os.ftruncate(descriptor, start)
        raise
    return start + done


def append_line(path: str, line: bytes, *, durable: bool) -> None:
    """Appends to a file, made if it is not there, that any number of programs append lines to; raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, FILE_MODE)
    try:
        with naming(path):
            append_whole(descriptor, line)
            if durable:
                os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Has the errors of what is done to a descriptor name its file, as those of what is done to a path do."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def write_again(path: str) -> None:
    """Writes the bytes that a file has over themselves, so that the next sync writes them all; raises OSError."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        offset = 0
        while piece := os.pread(descriptor, _PIECE, offset):
            offset += os.pwrite(descriptor, piece, offset)
    finally:
        os.close(descriptor)


def create_whole(path: str, data: bytes, *, mtime_ns: int | None = None, durable: bool = True) -> None:
    """Makes a new file that is complete as soon as it has its name; raises FileExistsError, OSError."""
    folder = os.path.dirname(path)
    with scratch(folder) as (descriptor, unfinished):
        with naming(path):
            append_whole(descriptor, data)
        if mtime_ns is not None:
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        if durable:
            os.fsync(descriptor)
        # Unlike rename(2), link(2) never replaces.
        os.link(unfinished, path)
    if durable:
        sync_directory(folder)


def replace_whole(path: str, data: bytes, *, mtime_ns: int) -> None:
    """Puts a durable file in the place of another at one stroke, or where there was none; raises OSError."""
    folder = os.path.dirname(path)
    with scratch(folder) as (descriptor, unfinished):
        with naming(path):
            append_whole(descriptor, data)
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        os.fsync(descriptor)
        os.rename(unfinished, path)
    sync_directory(folder)


@contextmanager
def scratch(folder: str) -> Iterator[tuple[int, str]]:
    """A new hidden file, opened, and its path: it is gone in the end, unless it was renamed."""
    # Told apart by thread and process; what a killed process leaves is hidden and of use to nobody.
    path = f"{folder}/.{os.getpid()}.{os.urandom(4).hex()}.new"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        yield descriptor, path
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(path)


def rename_new(old: str, new: str) -> None:
    """Renames to a name that nothing has; raises FileExistsError, OSError.

    At one stroke where the system can; else it has both names for a moment.
    """
    if _renameat2 is not None:
        if not _renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE):
            return
        code = ctypes.get_errno()
        # Network file systems mostly do not know the flag.
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), old, None, new)
    os.link(old, new)
    os.unlink(old)


def make_directories(path: str, *, below: str | None = None, durable: bool) -> None:
    """Makes a directory and those above it, for their owner alone, but none that is not `below` another.

    Raises OSError.
    """
    with suppress(FileExistsError):
        try:
            os.mkdir(path, DIRECTORY_MODE)
        except FileNotFoundError:
            if os.path.dirname(path) == below:
                raise
            make_directories(os.path.dirname(path), below=below, durable=durable)
            os.mkdir(path, DIRECTORY_MODE)
        if durable:
            sync_directory(os.path.dirname(path))


def size(path: str) -> int:
    """Bytes of a file; -1 if it is not there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1


def changed(path: str) -> int:
    """When a file was written, or names in a directory changed, last (nanoseconds since 1970); 0 if it is not there.

    That may have been set to any time; whoever has to notice every change asks for `state`.
    """
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def state(path: str) -> int:
    """What tells the names that a directory has now from all that it ever had; 0 if it is not there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0
    # The second is nobody's to set, but of a coarse clock on older kernels. Numbers have the same hash everywhere.
    return hash((found.st_mtime_ns, found.st_ctime_ns))
