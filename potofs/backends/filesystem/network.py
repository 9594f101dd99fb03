"""Whether a folder lies on a network file system, or one that another program serves.

There every call may take long, or hang; and what another machine writes may be seen later than it was stored. Source:
proc_pid_mountinfo(5), proc_pid_fdinfo(5).
"""

import logging
import os
from contextlib import suppress
from typing import Final

log = logging.getLogger(__name__)

#: The types that wait for a network, as /proc/self/mountinfo has them; but for `fuse.…`, which wait for a program.
TYPES: Final = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smb2", "smbfs", "ncpfs", "afs", "coda", "9p"),
        *("ceph", "glusterfs", "lustre", "beegfs", "gpfs", "gfs2", "ocfs2", "orangefs", "pvfs2", "panfs", "acfs"),
        *("vboxsf", "prl_fs", "vmhgfs"),
    )
)


def is_said(*folders: str) -> bool:
    """Whether one of a journal's folders lies on one, which the log is told then. Raises OSError."""
    for folder in folders:
        kind = type_at(folder)
        if is_network(kind):
            log.warning(
                "%s is on a file system of type %s, which waits for a network or another program: while that hangs, "
                "so does whoever asks; what another machine appends may be seen some seconds later; and each writer "
                "has to see the locks of the others. A folder on a local disk, or Redis, has none of this",
                folder.removesuffix("/."),
                kind,
            )
            return True
    return False


def is_network(kind: str) -> bool:
    """Whether a file system of this type is one."""
    return kind in TYPES or kind == "fuse" or kind.startswith("fuse.")


def type_at(path: str) -> str:
    """The type of the file system that a folder lies on; empty if the system does not say. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Not by the device, which on several file systems is another than the mount's.
        with suppress(OSError):
            with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
                mount = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
                return type_of(mount, lines.read())
        return ""
    finally:
        os.close(descriptor)


def type_of(mount: str, mountinfo: str) -> str:
    """The type of a mount, by its number in the text of /proc/self/mountinfo; empty if it is not there."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ", 1)[0] == mount:
            return after.split(" ", 1)[0]
    return ""
