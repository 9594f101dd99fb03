"""Which daemons of this user run: one small file each, locked for as long as its daemon lives.

The lock, not the file, says that a daemon is there: it goes with the process, however that ends.
"""

import fcntl
import os
import select
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

import platformdirs

# The longest name of a file that a mountpoint's path is written as.
_NAME = 200


def runtime_directory() -> str:
    """Where daemons of this user leave word, made if it is missing."""
    if os.geteuid() == 0:
        path = "/run/potofs"
    else:
        with warnings.catch_warnings():
            # Without XDG_RUNTIME_DIR there is a folder that serves as well.
            warnings.simplefilter("ignore")
            path = str(platformdirs.user_runtime_path("potofs"))
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def log_file(mountpoint: str) -> str:
    """The log of the mount at a place, unless it was given another one."""
    directory = "/var/log/potofs" if os.geteuid() == 0 else str(platformdirs.user_log_path("potofs"))
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return os.path.join(directory, f"{_file_name(mountpoint)}.log")


@contextmanager
def announced(mountpoint: str) -> Iterator[None]:
    """Says for as long as it lasts that this process serves a mountpoint."""
    path = _path(mountpoint)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.close(descriptor)


@contextmanager
def watched(mountpoint: str) -> Iterator[Callable[[float], bool]]:
    """Keeps an eye on the daemon that serves a mountpoint; to be entered before it is told to end.

    Gives a function: whether it has ended within so many seconds. That is also so if this user can see none.
    """
    process = _process_of(mountpoint)
    if process is None:
        yield lambda _: True
        return
    try:
        # A descriptor of a process can be read from once the process has ended.
        yield lambda timeout: bool(select.select([process], [], [], timeout)[0])
    finally:
        os.close(process)


def _process_of(mountpoint: str) -> int | None:
    """A descriptor of the process, not its number, which may be another's a moment later."""
    try:
        with open(_path(mountpoint), "rb") as file:
            process = os.pidfd_open(int(file.read()))
            try:
                # Only while the lock is held is this its number: what a killed daemon wrote means nothing.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return process
            os.close(process)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pass
    return None


def _path(mountpoint: str) -> str:
    return os.path.join(runtime_directory(), _file_name(mountpoint))


def _file_name(mountpoint: str) -> str:
    # The end of a path tells more than its beginning.
    return quote(mountpoint.strip("/"), safe="")[-_NAME:] or "root"
