"""Which errno an error becomes: one table, the doubtful choices explained beside their row."""

import errno
import functools
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeGuard, TypeVar

import pyfuse3

from potofs import errors
from potofs.fuse import turns
from potofs.fuse.activity import Activity
from potofs.fuse.complaints import Complaints

log = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

#: Most special first: the first class that fits decides.
ERRNOS: Final[tuple[tuple[type[errors.PotofsError], int], ...]] = (
    (errors.MessageTooLarge, errno.EFBIG),
    # EINVAL, not EIO: the bytes are at fault, and the disk is well.
    (errors.InvalidMessage, errno.EINVAL),
    (errors.NotFound, errno.ENOENT),
    (errors.AlreadyExists, errno.EEXIST),
    # EPERM, as chattr +a answers, and not EACCES: rsync --inplace would try to make a file writable after EACCES.
    (errors.NotPermitted, errno.EPERM),
    (errors.NameTooLong, errno.ENAMETOOLONG),
    # The kernel looks the name up once more after ESTALE, and the caller never sees it.
    (errors.Stale, errno.ESTALE),
    (errors.Unsupported, errno.EOPNOTSUPP),
    # A journal that takes no changes is what a file system that is mounted read-only is.
    (errors.Fenced, errno.EROFS),
    (errors.WouldBlock, errno.EAGAIN),
    (errors.DeadlineExceeded, errno.ETIMEDOUT),
    # "Host is down" says where to look; EIO would send an administrator to the disks.
    (errors.Unreachable, errno.EHOSTDOWN),
    (errors.Damaged, errno.EIO),
)

# What the system says of a wrong request. All else it says of a disk, a server, or a limit of this process: there
# a number alone would send nobody to the right place.
_OF_WHOEVER_ASKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EFBIG})


def errno_of(error: Exception) -> int:
    """The errno of an error; EIO, and a traceback in the log, for one that nobody expected."""
    for kind, number in ERRNOS:
        if isinstance(error, kind):
            return number
    if isinstance(error, OSError) and error.errno:
        return error.errno
    log.error("unexpected error", exc_info=error)
    return errno.EIO


def _is_of_the_place(error: Exception) -> TypeGuard[errors.PotofsError | OSError]:
    """Whether something is wrong with where the journal is, or with this process, and not with what was asked."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _OF_WHOEVER_ASKS
    return isinstance(error, errors.DeadlineExceeded | errors.Unreachable | errors.Damaged)


class Answering(Protocol):
    """Whoever has handlers."""

    @property
    def complaints(self) -> Complaints:
        """Where the log is told why a request failed."""

    @property
    def activity(self) -> Activity:
        """Where its answers are counted."""


Handlers = TypeVar("Handlers", bound=Answering)


def answered(
    handler: Callable[Concatenate[Handlers, Arguments], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Handlers, Arguments], Coroutine[Any, Any, Result]]:
    """A handler from which nothing but FUSEError comes: anything else would end the mount for everyone.

    Its answers are counted.
    """
    operation = handler.__name__

    @functools.wraps(handler)
    async def answer(handlers: Handlers, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        begun, number = time.perf_counter(), 0
        turns.begin(begun)
        try:
            return await handler(handlers, *args, **kwargs)
        except pyfuse3.FUSEError as error:
            number = error.errno
            raise
        except Exception as error:
            number = errno_of(error)
            if _is_of_the_place(error):
                handlers.complaints.tell(operation, number, errors.reason(error))
            raise pyfuse3.FUSEError(number) from None
        finally:
            handlers.activity.answered(operation, time.perf_counter() - begun, number)

    return answer
