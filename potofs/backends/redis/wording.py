"""How names are spelled in the indexes, and how what a script refuses is said to the caller."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from potofs import names
from potofs.backends.redis.changes import Refusal


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


def too_large(user: str) -> OSError:
    return OSError(errno.EFBIG, f"user {user!r}: no conversation can be larger than 512 MiB in Redis: archive it")
