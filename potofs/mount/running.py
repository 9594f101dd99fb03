"""Which daemons of this user run: one small file each, locked for as long as its daemon lives.

The lock, not the file, says that a daemon is there: it goes with the process, however that ends.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

import platformdirs

# The longest name of a file that a mountpoint's path is written as.
_NAME = 200


def runtime_directory() -> str:
    """Where daemons of this user leave word, made if it is missing."""
    path = "/run/potofs" if os.geteuid() == 0 else str(platformdirs.user_runtime_path("potofs"))
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


def wait_until_ended(mountpoint: str, timeout: float) -> bool:
    """Whether no daemon serves a mountpoint any more, after at most so many seconds."""
    deadline = time.monotonic() + timeout
    while _is_served(mountpoint):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _is_served(mountpoint: str) -> bool:
    try:
        descriptor = os.open(_path(mountpoint), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _path(mountpoint: str) -> str:
    return os.path.join(runtime_directory(), _file_name(mountpoint))


def _file_name(mountpoint: str) -> str:
    # The end of a path tells more than its beginning.
    return quote(mountpoint.strip("/"), safe="")[-_NAME:] or "root"
