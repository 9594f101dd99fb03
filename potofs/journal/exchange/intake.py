"""Import of a conversation: what of it the user does not have yet becomes part of the running conversation.

Whether a message is there is looked up in all conversations of the user, so that the same file adds nothing a second
time, even when it was archived meanwhile, and an import that was cut short is finished by doing it again.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from potofs.backends.base import Backend, Record
from potofs.errors import AlreadyExists, NotFound
from potofs.journal import exchange, ranges
from potofs.journal.exchange import csvform, jsonform, text
from potofs.journal.exchange.spool import Spool

_READ = {"json": jsonform.read, "csv": csvform.read}
# What is stored at once (bytes). More of it comes in several appends, each whole by itself.
_AT_ONCE = 1 << 24


def take_in(
    backend: Backend, user: str, pieces: Iterable[bytes | str], form: str, ensure_user: Callable[[], None]
) -> int:
    """Imports a file that comes in pieces, and returns how many messages were new.

    All of it is read and checked first: if it is wrong anywhere, nothing of it is stored, and InvalidMessage names line
    and column. A user without a running conversation gets the new messages as one, as they are; otherwise they are
    appended to it, and then it may become an archive as after any append. 16 MiB are stored in one piece; if there is
    more, an error of the backend may come in between two of them, and importing again goes on from there. Two imports
    at once may both store what is in their files more than once; everything else is stored once.
    """
    exchange.check(form)
    with Spool() as spool:
        for record in _READ[form](text.decoded(pieces)):
            spool.add(record)
        if spool.missing:
            for mark in ranges.marks_of_user(backend, user):
                spool.note_stored(mark.fingerprint)
        if not spool.missing:
            return 0
        ensure_user()
        return sum(_store(backend, user, batch) for batch in _batches(spool.missing_ones()))


def _store(backend: Backend, user: str, batch: list[Record]) -> int:
    try:
        backend.stat(user)
    except NotFound:
        # Unless somebody begins one at this moment: then that one goes on.
        with suppress(AlreadyExists):
            backend.put_current(user, b"".join([record.data for record in batch]), time.time_ns())
            return len(batch)
    return backend.append(user, batch).stored


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        if batch and size + len(record.data) > _AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record.data)
    yield batch
