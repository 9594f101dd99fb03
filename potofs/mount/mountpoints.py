"""What is mounted where, and whether a folder can take a mount: asked of the system, never remembered."""

import os
import pwd
import re
import shutil
import subprocess
import time
from contextlib import suppress
from stat import S_ISVTX
from typing import NamedTuple

from potofs.errors import ConfigError, NotFound, PotofsError
from potofs.mount import asking

# As many links in a row as the kernel follows.
_LINKS = 40
# How long somebody who only looks may be in the way of taking a mount away, and how often that is tried (seconds).
_GLANCE = 1.0
_PAUSE = 0.05

#: The type that mount(8) and /proc show.
FILESYSTEM_TYPE = "fuse.potofs"


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo that is of ours."""

    mountpoint: str
    #: The backend's URL, or what fstab says instead.
    source: str
    #: The system user who mounted it.
    uid: int


class MountError(PotofsError):
    """Something cannot be mounted, or not be unmounted."""


def mounts() -> list[Mount]:
    """All potofs mounts that this process can see, dead ones included."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            # proc(5): the fields after " - " are type, source and options.
            before, _, after = line.partition(" - ")
            kind, source, *rest = after.split()
            if kind == FILESYSTEM_TYPE:
                uid = re.search(r"\buser_id=(\d+)", " ".join(rest))
                found.append(Mount(_unescaped(before.split(" ")[4]), _unescaped(source), int(uid[1]) if uid else 0))
    return found


def at(mountpoint: str) -> Mount | None:
    """Our mount at a place, dead or alive."""
    path = absolute(mountpoint)
    return next((mount for mount in mounts() if mount.mountpoint == path), None)


def absolute(mountpoint: str) -> str:
    """A mountpoint's path as the system knows it, links followed; asks nothing of a mount that may be dead."""
    path = os.path.abspath(mountpoint)
    for _ in range(_LINKS):
        parent, name = os.path.split(path)
        path = os.path.join(os.path.realpath(parent), name)
        try:
            # Unlike stat(2), this is answered without the daemon: what is mounted is a folder, and no link.
            target = os.readlink(path)
        except OSError:
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return path


def checked(mountpoint: str, *, root: str | None, nonempty: bool) -> str:
    """Makes sure that a place can take a mount, and repairs a dead one there; makes no folder.

    Returns its absolute path. `root` is the journal's own folder, if it has one. Raises MountError, ConfigError,
    OSError.
    """
    if not mountpoint:
        raise ConfigError("the mountpoint is empty: name a folder")
    path = absolute(mountpoint)
    if at(path) is not None:
        (answer,) = asking.ask([path])
        if answer is None:
            raise MountError(f"{path} has a mount that does not answer: potofs umount --lazy {path} takes it away")
        if answer.errno not in asking.GONE:
            raise MountError(f"{path} has a potofs mount already: potofs umount {path} ends it")
        unmount(path, lazy=True)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise MountError(f"{path} is not a folder: name one, or a place where one can be made")
    if root is not None:
        root = os.path.realpath(root)
        if os.path.commonpath([root, path]) in (root, path):
            raise ConfigError(f"the journal's folder {root} and the mountpoint {path} cannot be inside one another")
        for mount in mounts():
            if os.path.commonpath([root, mount.mountpoint]) == mount.mountpoint:
                raise ConfigError(f"the journal's folder {root} is itself inside the mount {mount.mountpoint}")
    _must_be_ours(path)
    if not nonempty and os.path.isdir(path) and os.listdir(path):
        raise MountError(f"{path} is not empty: its files would be hidden; take another folder, or give --nonempty")
    return path


def make(path: str) -> None:
    """Makes a mountpoint unless it is there; raises MountError, with the way out."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise MountError(
            f"{path} cannot be made: {error.strerror}; name a folder that is there, or a place where one can be made"
        ) from None


def _must_be_ours(path: str) -> None:
    """Raises MountError for a folder on which fusermount3 lets only its owner, or whoever may write to it, mount."""
    if os.geteuid() == 0 or not os.path.isdir(path):
        return
    found = os.stat(path)
    if not os.access(path, os.W_OK) or (found.st_mode & S_ISVTX and found.st_uid != os.geteuid()):
        raise MountError(
            f"{path} is a folder of {_name_of(found.st_uid)}, and only they or root can mount there: take one of yours"
        )


def _name_of(uid: int) -> str:
    """What a system user is called; the number of one that has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def check_system() -> None:
    """Raises MountError, with the way out, if this machine or user cannot mount anything."""
    if shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is missing: install the package fuse3")
    if not os.path.exists("/dev/fuse"):
        raise MountError("/dev/fuse is missing: load the module (modprobe fuse), or give the container the device")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        raise MountError(
            f"/dev/fuse cannot be opened: {error.strerror}; root can allow it: chmod 666 /dev/fuse"
        ) from None


def unmount(mountpoint: str, *, lazy: bool = False) -> None:
    """Takes a mount away; raises NotFound if there is none, MountError if it is in use."""
    path = absolute(mountpoint)
    mount = at(path)
    if mount is None:
        raise NotFound(f"nothing of potofs is mounted at {path}")
    if os.geteuid() not in (0, mount.uid):
        raise MountError(f"{path} is a mount of {_name_of(mount.uid)}: only they or root can take it away")
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", path]
    deadline = time.monotonic() + _GLANCE
    while True:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise MountError("fusermount3 is missing: install the package fuse3") from None
        if not done.returncode or at(path) is None:
            return
        reason = done.stderr.strip().removeprefix("fusermount3: ")
        if "busy" not in reason:
            raise MountError(f"{path} was not unmounted: {reason}")
        # It may be in use only because somebody looks at all mounts, as `potofs mounts` does.
        if time.monotonic() > deadline:
            raise MountError(f"{path} is in use: close what has files open there, or give --lazy")
        time.sleep(_PAUSE)


def wait_until_mounted(mountpoint: str, timeout: float) -> bool:
    """Whether the mount at a place answers within so many seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        # Its own attributes, which anybody may ask for: what is in it may be another's.
        with suppress(OSError):
            if at(mountpoint) is not None and os.stat(mountpoint):
                return True
        time.sleep(0.005)
    return False


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
