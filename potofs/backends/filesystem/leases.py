"""Whether anybody has a file open, and emptying one that nobody has.

A write lease (fcntl(2)) is given for a file that nobody else on this machine has open, and holds up whoever opens it
meanwhile: so nobody reads in a file that is emptied.
"""

import fcntl
import os
import signal


def could_be_emptied(plain: int, scratch: int) -> bool:
    """Whether this file system has leases, and we may take one on the archive."""
    if os.geteuid() not in (0, os.fstat(plain).st_uid) or not _lease(scratch):
        return False
    _release(scratch)
    return True


def empty(path: str) -> None:
    """Frees the bytes of a file if nobody has it open, nor under another name (a backup's, by hard links)."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if os.fstat(descriptor).st_nlink == 1 and _lease(descriptor):
            try:
                os.ftruncate(descriptor, 0)
            finally:
                _release(descriptor)
    finally:
        os.close(descriptor)


def is_in_use(path: str) -> bool:
    """Whether a program has a file open, or nobody can tell; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not _lease(descriptor):
            return True
        _release(descriptor)
        return False
    finally:
        os.close(descriptor)


def _lease(descriptor: int) -> bool:
    # Whoever opens it has us told by a signal; by default that is one that ends the process.
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    return True


def _release(descriptor: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
