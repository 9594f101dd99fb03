"""What redis-py raises, as the errors of potofs: what may be tried again at once, and what the caller is told.

Everything that talks to a server does so in `Link.run`, which asks here; no exception of redis-py goes further.
"""

import errno

from redis import exceptions as theirs

from potofs.errors import DeadlineExceeded, PotofsError, Unreachable

#: All that redis-py raises: what goes wrong with a whole cluster is an exception of another family there.
THEIRS = (theirs.RedisError, theirs.RedisClusterException)

# A server that starts, a cluster that elects, a key that is moving: it may be over before the deadline.
_PASSING = (theirs.BusyLoadingError, theirs.TryAgainError, theirs.ClusterDownError, theirs.SlotNotCoveredError)
_REFUSED = (theirs.AuthenticationError, theirs.AuthorizationError)


def passes(error: Exception, *, fails_over: bool) -> bool:
    """Whether it is worth waiting for the server; `fails_over`: another one may take its place."""
    if isinstance(error, _PASSING):
        return True
    in_time = theirs.ConnectionError | theirs.ReadOnlyError | theirs.RedisClusterException
    return fails_over and isinstance(error, in_time) and not isinstance(error, _REFUSED)


def is_cut(error: Exception) -> bool:
    """Whether the connection was cut or refused: the command may have been done or not."""
    return isinstance(error, theirs.ConnectionError) and not isinstance(
        error, (*_REFUSED, theirs.BusyLoadingError, theirs.MaxConnectionsError)
    )


def is_of_no_master(error: Exception, *, fails_over: bool) -> bool:
    """Whether this came from a server that is not, not yet, or no longer the master to be asked."""
    # UNBLOCKED: it waited for its replicas, and became one itself.
    return passes(error, fails_over=fails_over) or isinstance(error, theirs.MovedError) or "UNBLOCKED " in str(error)


def is_of_type(error: Exception) -> bool:
    """Whether a key has another type than a command is for."""
    return "WRONGTYPE " in str(error)


def translated(error: Exception, server: str, timeout: float) -> PotofsError | OSError:
    """What the caller is told; `timeout` is the deadline in seconds."""
    # What a sentinel that names no master is followed by is a client of redis-py.
    reason = str(error).partition("\n")[0].partition(" : <")[0]
    # Where a cluster's masters are, it asks the nodes one after another, and says what the last one did.
    if isinstance(error, theirs.TimeoutError) or isinstance(error.__cause__, theirs.TimeoutError):
        return DeadlineExceeded(f"{server} did not answer within {timeout:.3g} s")
    # A long command without a password is refused as it is read, by another error.
    if isinstance(error, _REFUSED) or "unauthenticated" in reason:
        return Unreachable(f"{server} refuses the user or the password of the URL: {reason}")
    if isinstance(error, theirs.NoPermissionError):
        return PermissionError(errno.EACCES, f"{server} does not let its user do this: {reason}")
    if isinstance(error, theirs.OutOfMemoryError) or "OOM " in reason:
        return OSError(errno.ENOSPC, f"{server} has used up its maxmemory; nothing was stored")
    if isinstance(error, theirs.ReadOnlyError) or "READONLY " in reason:
        return OSError(errno.EROFS, f"{server} is a read-only replica: name the master, or let Sentinel find it")
    if isinstance(error, theirs.BusyLoadingError):
        return Unreachable(f"{server} is still loading its data")
    if isinstance(error, theirs.ConnectionError | theirs.ClusterDownError | theirs.RedisClusterException):
        return Unreachable(f"{server} cannot be reached: {reason}")
    # MISCONF (it cannot save), NOREPLICAS, a key of the journal that somebody else has made.
    return OSError(errno.EIO, f"{server} refuses: {reason}")
