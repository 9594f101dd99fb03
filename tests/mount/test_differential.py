"""The mount beside the precedent that Unix has: one script of system calls on an ext4 file with `chattr +a` and on
current.yaml. Every difference is one that is named here, with its reason.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from potofs import ChatMessage, DialogueJournal
from tests.mounts import Mount, run

FIRST = b'role: user\ncontent: Where is my order?\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'
SECOND = b'role: assistant\ncontent: On its way.\ntimestamp: "2024-01-15T10:30:02.000Z"\n---\n'
THIRD = b'role: user\ncontent: Thanks!\ntimestamp: "2024-01-15T10:30:04.000Z"\n---\n'
WHEN = 1_700_000_000_123_456_789
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def call(name: str, *arguments: object) -> int:
    """A system call that Python does not have; raises OSError."""
    done = getattr(_libc, name)(*arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(done)


def with_append(action: Callable[[int], object], flags: int = os.O_WRONLY) -> Callable[[Path], object]:
    """An action on the file, opened to append."""

    def act(path: Path) -> object:
        with opened(path, flags | os.O_APPEND) as descriptor:
            return action(descriptor)

    return act


def sent(path: Path) -> object:
    """sendfile(2) from another file onto the end."""
    with opened(path, os.O_WRONLY | os.O_APPEND) as out, opened(path.with_name(".source"), os.O_RDONLY) as given:
        return os.sendfile(out, given, 0, len(SECOND))


def spliced(descriptor: int) -> object:
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, SECOND)
        return os.splice(read_end, descriptor, len(SECOND))
    finally:
        os.close(read_end)
        os.close(write_end)


def cleared(descriptor: int) -> object:
    """O_APPEND taken off, and a write to the beginning."""
    fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
    return os.pwrite(descriptor, SECOND, 0)


def mapped(descriptor: int) -> object:
    mmap.mmap(descriptor, len(FIRST), mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()
    return "mapped"


def written_at(offset: int, data: bytes) -> Callable[[Path], object]:
    def act(path: Path) -> object:
        with opened(path, os.O_WRONLY) as descriptor:
            return os.pwrite(descriptor, data, offset)

    return act


def opens(flags: int) -> Callable[[Path], object]:
    def act(path: Path) -> object:
        with opened(path, flags):
            return "opened"

    return act


def copied(path: Path) -> object:
    """copy_file_range(2) from another file onto the end."""
    with opened(path, os.O_WRONLY | os.O_APPEND) as out, opened(path.with_name(".source"), os.O_RDONLY) as given:
        return os.copy_file_range(given, out, len(SECOND))


def onto(path: Path) -> object:
    os.rename(path.with_name(".other"), path)
    return "replaced"


#: What is done with the file, in which FIRST has been said.
SCRIPT: dict[str, Callable[[Path], object]] = {
    # Opening
    "open O_RDONLY": opens(os.O_RDONLY),
    "open O_WRONLY|O_APPEND": opens(os.O_WRONLY | os.O_APPEND),
    "open O_RDWR|O_APPEND": opens(os.O_RDWR | os.O_APPEND),
    "open O_WRONLY": opens(os.O_WRONLY),
    "open O_RDWR": opens(os.O_RDWR),
    "open O_WRONLY|O_TRUNC": opens(os.O_WRONLY | os.O_TRUNC),
    "open O_WRONLY|O_APPEND|O_TRUNC": opens(os.O_WRONLY | os.O_APPEND | os.O_TRUNC),
    "open O_RDONLY|O_TRUNC": opens(os.O_RDONLY | os.O_TRUNC),
    "open O_CREAT|O_APPEND of what is there": opens(os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    "open O_CREAT|O_EXCL of what is there": opens(os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND),
    "open O_DIRECTORY": opens(os.O_RDONLY | os.O_DIRECTORY),
    "open O_NOFOLLOW": opens(os.O_RDONLY | os.O_NOFOLLOW),
    "open O_SYNC|O_APPEND": opens(os.O_WRONLY | os.O_APPEND | os.O_SYNC),
    # Appending
    "write": with_append(lambda fd: os.write(fd, SECOND)),
    "write nothing": with_append(lambda fd: os.write(fd, b"")),
    "write in two pieces": with_append(lambda fd: (os.write(fd, SECOND[:20]), os.write(fd, SECOND[20:]))),
    "writev": with_append(lambda fd: os.writev(fd, [SECOND[:10], SECOND[10:50], SECOND[50:]])),
    "pwrite to the beginning": with_append(lambda fd: os.pwrite(fd, SECOND, 0)),
    "pwrite far behind the end": with_append(lambda fd: os.pwrite(fd, SECOND, 1 << 20)),
    "lseek to the beginning and write": with_append(lambda fd: (os.lseek(fd, 0, os.SEEK_SET), os.write(fd, SECOND))),
    "where the offset is after a write": with_append(
        lambda fd: (os.write(fd, SECOND), os.lseek(fd, 0, os.SEEK_CUR)), os.O_RDWR
    ),
    "read back what was written": with_append(lambda fd: (os.write(fd, SECOND), os.pread(fd, 1 << 16, 0)), os.O_RDWR),
    "splice from a pipe": with_append(spliced),
    "sendfile onto it": sent,
    "copy_file_range onto it": copied,
    "write to one opened for reading": lambda path: _with(path, os.O_RDONLY, lambda fd: os.write(fd, SECOND)),
    "write twice by two descriptors in turn": lambda path: _with(
        path,
        os.O_WRONLY | os.O_APPEND,
        lambda one: _with(path, os.O_WRONLY | os.O_APPEND, lambda two: (os.write(one, SECOND), os.write(two, THIRD))),
    ),
    "fsync": with_append(os.fsync),
    "fdatasync": with_append(os.fdatasync),
    # Reading
    "pread": lambda path: _with(path, os.O_RDONLY, lambda fd: os.pread(fd, 30, 5)),
    "pread behind the end": lambda path: _with(path, os.O_RDONLY, lambda fd: os.pread(fd, 30, 1000)),
    "read from one opened to append": with_append(lambda fd: os.read(fd, 10)),
    "lseek to the end": lambda path: _with(path, os.O_RDONLY, lambda fd: os.lseek(fd, 0, os.SEEK_END)),
    "lseek before the beginning": lambda path: _with(path, os.O_RDONLY, lambda fd: os.lseek(fd, -1, os.SEEK_SET)),
    "a mapping to read": lambda path: _with(
        path, os.O_RDONLY, lambda fd: mmap.mmap(fd, len(FIRST), mmap.MAP_PRIVATE, mmap.PROT_READ)[:]
    ),
    "stat": lambda path: (os.stat(path).st_size, os.stat(path).st_nlink, oct(os.stat(path).st_mode)),
    # Overwriting
    "write without O_APPEND to the beginning": written_at(0, SECOND),
    "write without O_APPEND to the end": written_at(len(FIRST), SECOND),
    "take O_APPEND off and write": with_append(cleared),
    "a shared mapping to write": with_append(mapped, os.O_RDWR),
    "truncate to nothing": lambda path: os.truncate(path, 0),
    "truncate to the present size": lambda path: os.truncate(path, len(FIRST)),
    "truncate to more": lambda path: os.truncate(path, 1000),
    "ftruncate of one opened to append": with_append(lambda fd: os.ftruncate(fd, 0)),
    "fallocate": with_append(lambda fd: call("fallocate", fd, 0, ctypes.c_int64(0), ctypes.c_int64(4096))),
    "fallocate that punches a hole": with_append(
        lambda fd: call("fallocate", fd, 3, ctypes.c_int64(0), ctypes.c_int64(10))
    ),
    # Names
    "unlink": os.unlink,
    "rename": lambda path: os.rename(path, path.with_name("elsewhere")),
    "rename onto it": onto,
    "rename to itself": lambda path: os.rename(path, path),
    "link": lambda path: os.link(path, path.with_name("link")),
    "rmdir": os.rmdir,
    "readlink": os.readlink,
    # Attributes
    "chmod to something else": lambda path: os.chmod(path, 0o644),
    "chmod to the same": lambda path: os.chmod(path, 0o600),
    "chown to somebody else": lambda path: os.chown(path, 12345, 12345),
    "chown to the same": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "utimes to now": os.utime,
    "utimes to a time": lambda path: os.utime(path, ns=(WHEN, WHEN)),
    "setxattr": lambda path: os.setxattr(path, "user.a", b"b"),
    "getxattr": lambda path: os.getxattr(path, "user.a"),
    "access": lambda path: [os.access(path, mode) for mode in (os.R_OK, os.W_OK, os.X_OK)],
    # Locks
    "flock": with_append(lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
    "fcntl lock": with_append(lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
    "bind a socket to its name": lambda path: _bound(path),
}


class Difference(NamedTuple):
    """Where the mount answers otherwise, on purpose."""

    on_ext4: object
    on_the_mount: object
    reason: str


#: The same as in the README and the design: nothing else may differ.
DIFFERENCES: dict[str, Difference] = {
    "open O_WRONLY": Difference("EPERM", "opened", "a copy may go on where the conversation ends"),
    "open O_RDWR": Difference("EPERM", "opened", "the same"),
    "write without O_APPEND to the end": Difference("EPERM", len(SECOND), "the same: this is what rsync --append does"),
    "take O_APPEND off and write": Difference(
        "EPERM", len(SECOND), "the kernel asks nobody; it is appended all the same"
    ),
    "a shared mapping to write": Difference("EACCES", "ENODEV", "reads are direct, so that none is out of date"),
    "truncate to the present size": Difference("EPERM", None, "rsync --append ends in it"),
    "rmdir": Difference("EPERM", "ENOTDIR", "the kernel sees that it is no folder, and asks nobody"),
    "fallocate": Difference(0, "ENOTSUP", "it would write zeros, which are no message"),
    "fallocate that punches a hole": Difference("EPERM", "ENOTSUP", "the mount allocates nothing"),
    "chmod to the same": Difference("EPERM", None, "tools that copy set what is there already"),
    "chown to the same": Difference("EPERM", None, "the same"),
    "utimes to a time": Difference("EPERM", None, "a backup comes back with its times"),
    "setxattr": Difference("EPERM", "ENOTSUP", "there are no extended attributes"),
    "getxattr": Difference("ENODATA", "ENOTSUP", "the same"),
}


def _with(path: Path, flags: int, action: Callable[[int], object]) -> object:
    with opened(path, flags) as descriptor:
        return action(descriptor)


def _bound(path: Path) -> object:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)
        try:
            listener.bind(path.name)
        finally:
            os.chdir("/")
    return "bound"


def outcome(step: Callable[[Path], object], path: Path) -> object:
    """What a step returns, or the name of its errno."""
    try:
        return step(path)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A folder on ext4."""
    folder = tmp_path / "ext4"
    folder.mkdir()
    if run("stat", "-f", "-c", "%T", folder).stdout.strip() == "ext2/ext3":
        yield folder
        return
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    assert run("mkfs.ext4", "-q", image).returncode == 0
    assert run("mount", "-o", "loop", image, folder).returncode == 0
    try:
        yield folder
    finally:
        run("umount", folder)


@contextmanager
def append_only(path: Path) -> Iterator[Path]:
    """A file that FIRST has been said in, and that can only be appended to from then on."""
    path.parent.mkdir()
    path.touch(0o600)
    path.write_bytes(FIRST)
    subprocess.run(["chattr", "+a", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["chattr", "-a", path], check=True)


def test_one_script_on_both_differs_only_where_it_is_said(ext4: Path, mount: Mount, journal: DialogueJournal) -> None:
    differences: dict[str, tuple[object, object]] = {}
    for number, (name, step) in enumerate(SCRIPT.items()):
        current = mount.current(f"user{number}")
        journal.add_message(f"user{number}", ChatMessage("user", "Where is my order?", "2024-01-15T10:30:00.000Z"))
        assert current.read_bytes() == FIRST
        with append_only(ext4 / f"user{number}/current.yaml") as file:
            for path in (file, current):
                path.with_name(".source").write_bytes(SECOND)
                path.with_name(".other").write_bytes(THIRD)
            one, other = outcome(step, file), outcome(step, current)
            if one != other:
                differences[name] = (one, other)
            elif file.read_bytes() != current.read_bytes():
                differences[name] = (file.read_bytes(), current.read_bytes())
            assert current.read_bytes().startswith(FIRST)
    assert differences == {name: (known.on_ext4, known.on_the_mount) for name, known in DIFFERENCES.items()}
