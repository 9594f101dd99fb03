"""How names are spelled in the indexes, and how what a script refuses is said to the caller."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from potofs import names
from potofs.backends.redis.changes import Refusal
from potofs.errors import AlreadyExists, NotFound, Stale


@contextmanager
def explained(**explanations: Callable[[], Exception]) -> Iterator[None]:
    """Turns what a script refuses into an error that says what of."""
    try:
        yield
    except Refusal as refusal:
        raise explanations[refusal.reason]() from None


def spelled(archive: str) -> str:
    """An archive's name as the indexes have it: without line breaks, whatever it is; raises as names.archive_file."""
    return names.archive_file(archive).removesuffix(names.SUFFIX)


def named(spelled: str) -> str:
    """The name of an archive that is spelled so there."""
    return names.archive_name(spelled + names.SUFFIX)


def not_found(user: str, archive: str | None) -> NotFound:
    what = "running conversation" if archive is None else f"archive {archive!r}"
    return NotFound(f"user {user!r} has no {what}")


def gone_on(user: str) -> Stale:
    return Stale(f"user {user!r} has gone on with the conversation")


def taken(user: str, name: str) -> AlreadyExists:
    return AlreadyExists(f"user {user!r} has an archive {name!r} already; nothing is replaced, take another name")


def nothing_aside(user: str, name: str) -> NotFound:
    return NotFound(f"nothing of user {user!r} was set aside as {name!r}")


def too_large(user: str) -> OSError:
    return OSError(errno.EFBIG, f"user {user!r}: no conversation can be larger than 512 MiB in Redis: archive it")
