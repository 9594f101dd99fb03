"""Which daemons of this user run: one small file each, locked for as long as its daemon lives.

The lock, not the file, says that a daemon is there: it goes with the process, however that ends.
"""

import fcntl
import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

import platformdirs

from potofs.mount.mountpoints import MountError

# The longest end of a mountpoint's path that a file is called by.
_NAME = 200
# The most that is read of what a daemon says of itself (bytes): a number, and a URL.
_WORD = 4096
# How long a daemon may need to end after its mount was taken away (seconds), and how often it is looked after.
_LINGERING = 2.0
_PAUSE = 0.01


def runtime_directory() -> str:
    """Where daemons of this user leave word; it need not be there."""
    if os.geteuid() == 0:
        return "/run/potofs"
    if os.environ.get("XDG_RUNTIME_DIR"):
        return str(platformdirs.user_runtime_path("potofs"))
    # Not below /tmp, where anybody could be there first.
    return str(platformdirs.user_cache_path("potofs") / "run")


def log_file(mountpoint: str) -> str:
    """The log of the mount at a place, unless it was given another one; raises MountError if it cannot be there."""
    directory = "/var/log/potofs" if os.geteuid() == 0 else str(platformdirs.user_log_path("potofs"))
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError as error:
        raise MountError(f"no log can be kept in {directory}: {error.strerror}; name a place with --log FILE") from None
    return os.path.join(directory, f"{_file_name(mountpoint)}.log")


@contextmanager
def announced(mountpoint: str, backend: str) -> Iterator[None]:
    """Says for as long as it lasts that this process serves a mountpoint, and from which backend.

    Raises MountError where no word can be left.
    """
    path = word_of(mountpoint)
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        raise MountError(
            f"no word of the daemon can be left in {directory}: {error.strerror}; set XDG_RUNTIME_DIR to a folder of "
            "your own"
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n{backend}\n".encode())
        yield
    finally:
        if _is_at(path, descriptor):
            os.unlink(path)
        os.close(descriptor)


def forget_the_dead(mountpoint: str) -> None:
    """Takes away what a daemon that was killed has said of a mountpoint; nothing that a living one says."""
    path = word_of(mountpoint)
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                os.unlink(path)
        finally:
            os.close(descriptor)


def _locked(path: str) -> int:
    """The file at a path, made if it is missing, under our lock."""
    deadline = time.monotonic() + _LINGERING
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > deadline:
                # Its mount was taken away while programs had files open there, and it serves those. It is not the
                # one that serves this place any more, and its word goes.
                with suppress(FileNotFoundError):
                    os.unlink(path)
            else:
                time.sleep(_PAUSE)
        else:
            if _is_at(path, descriptor):
                return descriptor
            os.close(descriptor)


def _is_at(path: str, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


class Watched:
    """A daemon that somebody keeps an eye on."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid, self._descriptor = pid, descriptor

    def has_ended(self, timeout: float) -> bool:
        """Whether it has ended within so many seconds."""
        # A descriptor of a process can be read from once the process has ended.
        return bool(select.select([self._descriptor], [], [], timeout)[0])

    def is_stopped(self) -> bool:
        """Whether it was stopped, by SIGSTOP or a debugger, and so ends only once it is let go on."""
        with suppress(OSError), open(f"/proc/{self.pid}/stat", "rb") as file:
            # proc_pid_stat(5): the state follows the name, in which anything may be.
            return file.read().rpartition(b") ")[2][:1] in b"Tt" and not self.has_ended(0)
        return False


@contextmanager
def watched(mountpoint: str) -> Iterator[Watched | None]:
    """Keeps an eye on the daemon that serves a mountpoint; to be entered before it is told to end.

    None if this user can see none.
    """
    found = _process_of(mountpoint)
    if found is None:
        yield None
        return
    pid, process = found
    try:
        yield Watched(pid, process)
    finally:
        os.close(process)


class Daemon(NamedTuple):
    """A daemon that runs."""

    pid: int
    #: The backend's URL without a password.
    backend: str
    #: When it began (seconds since 1970).
    since: float


def daemon_of(mountpoint: str, uid: int) -> Daemon | None:
    """The daemon of a system user that serves a mountpoint; None if there is none that this user may know of."""
    directory = runtime_directory() if uid == os.geteuid() else f"/run/user/{uid}/potofs"
    with suppress(OSError), open(os.path.join(directory, _file_name(mountpoint)), "rb", opener=_careful) as file:
        found = os.fstat(file.fileno())
        # Another user may have put anything there: a link to what is not theirs, a pipe, something without an end.
        if stat.S_ISREG(found.st_mode) and found.st_uid == uid and _is_locked(file):
            pid, _, backend = file.read(_WORD).decode(errors="replace").partition("\n")
            with suppress(ValueError):
                return Daemon(int(pid), backend.strip(), found.st_mtime)
    return None


def _careful(path: str, flags: int) -> int:
    """Opens what may be anything: it follows no link, and waits for nobody at the other end."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _process_of(mountpoint: str) -> tuple[int, int] | None:
    """The number of the process, which may be another's a moment later, and a descriptor of it, which may not."""
    # Also where this user has no place for such words: the mount may be another's, and the system says so.
    with suppress(OSError, ValueError), open(word_of(mountpoint), "rb") as file:
        pid = int(file.readline())
        process = os.pidfd_open(pid)
        # Only while the lock is held is this its number: what a killed daemon wrote means nothing.
        if _is_locked(file):
            return pid, process
        os.close(process)
    return None


def _is_locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def word_of(mountpoint: str) -> str:
    """The file in which the daemon of a mountpoint says which process it is."""
    return os.path.join(runtime_directory(), _file_name(mountpoint))


def _file_name(mountpoint: str) -> str:
    name = quote(mountpoint.strip("/"), safe="", errors="surrogateescape") or "root"
    if len(name) <= _NAME:
        return name
    # The end of a path tells more than its beginning, but not everything.
    return f"{blake2b(name.encode(), digest_size=8).hexdigest()}-{name[-_NAME:]}"
