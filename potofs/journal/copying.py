"""Copies that come back: bytes from a backup become a conversation again, exactly as they are.

Nothing is added to them, left out, put in another order, or archived by itself. What is stored already is never
replaced: a copy may begin a conversation, or go on where one ends that is its beginning. A copy that has damage in it
is kept, for fsck to tell of; one without a single message is none.
"""

import time

from potofs.backends.base import RECORD_END, Backend, Reader, Stat, conversation_file, whole_records
from potofs.errors import AlreadyExists, InvalidMessage, NotFound, NotPermitted
from potofs.journal import reading
from potofs.journal.message import ChatMessage

# Bytes that are compared at once.
_PIECE = 1 << 20


def restore(backend: Backend, user: str, archive: str | None, copy: bytes, mtime_ns: int | None = None) -> None:
    """Makes bytes a conversation: an archive, or with None the running one.

    What there is of it already has to be their beginning, and the rest is added. Its time of last append is `mtime_ns`
    then, or the present. Raises NotPermitted if what is there is something else, InvalidMessage if there is no message
    in the copy, and what the backend raises.
    """
    _must_hold_a_message(user, archive, copy)
    try:
        with backend.open(user, archive) as reader:
            there = reader.stat()
            begins = _begins_with(copy, reader)
    except NotFound:
        _add(backend, user, archive, None, copy, mtime_ns)
        return
    if not begins:
        raise NotPermitted(
            f"{_named(user, archive)} holds something else than the beginning of this copy, and nothing is replaced"
        )
    if len(copy) > there.size:
        _add(backend, user, archive, there, copy[there.size :], mtime_ns)
    elif mtime_ns is not None:
        backend.set_times(user, archive, mtime_ns)


def extend(
    backend: Backend, user: str, archive: str | None, seen: Stat | None, data: bytes, mtime_ns: int | None = None
) -> None:
    """Adds bytes behind a conversation that is still as it was `seen`, or (None) still not there; or none of them.

    Whoever adds them (`rsync --append`) may not have looked at what they go on from. So the first record has to be a
    whole message, together with the torn end that it may complete: NotPermitted. Else raises as `restore`.
    """
    if seen is None:
        _must_hold_a_message(user, archive, data)
    else:
        try:
            with backend.open(user, archive) as reader:
                whole = _torn_end(reader, seen.size) + data
        except NotFound:
            raise _changed(user, archive) from None
        if not isinstance(next(reading.read(whole), None), ChatMessage):
            raise NotPermitted(f"these {len(data)} bytes do not go on where {_named(user, archive)} ends")
    _add(backend, user, archive, seen, data, mtime_ns)


def _add(
    backend: Backend, user: str, archive: str | None, seen: Stat | None, data: bytes, mtime_ns: int | None
) -> None:
    mtime_ns = time.time_ns() if mtime_ns is None else mtime_ns
    try:
        if seen is None:
            if archive is None:
                backend.put_current(user, data, mtime_ns)
            else:
                backend.put_archive(user, archive, data, mtime_ns)
            return
        if archive is None:
            is_done = backend.extend(user, seen, data, mtime_ns)
        else:
            with backend.open(user, archive) as reader:
                was = reader.read(0, seen.size)
            # As another one: whoever reads it goes on with what it was.
            is_done = backend.rewrite(user, archive, seen, was + data, was=was, mtime_ns=mtime_ns)
    except (AlreadyExists, NotFound):
        raise _changed(user, archive) from None
    if not is_done:
        raise _changed(user, archive)


def _changed(user: str, archive: str | None) -> NotPermitted:
    return NotPermitted(f"{_named(user, archive)} has changed since it was compared: copy it once more")


def _must_hold_a_message(user: str, archive: str | None, data: bytes) -> None:
    """Raises InvalidMessage if there is none."""
    for piece in whole_records(lambda offset, size: data[offset : offset + size], 0, len(data)):
        if next(reading.messages(piece), None) is not None:
            return
    raise InvalidMessage(
        f"there is no message in the {len(data)} bytes of this copy of {_named(user, archive)}: "
        "a record is YAML with role, content and timestamp, and a line --- behind it"
    )


def _torn_end(reader: Reader, size: int) -> bytes:
    """What stands behind the last record's end."""
    looked_at = _PIECE
    while True:
        start = max(0, size - looked_at)
        end = reader.read(start, size - start)
        at = end.rfind(RECORD_END)
        if at >= 0:
            return end[at + len(RECORD_END) :]
        if not start:
            return end
        # Twice as much each time, so that what has no end at all is read through no more than twice.
        looked_at *= 2


def _begins_with(copy: bytes, reader: Reader) -> bool:
    """Whether an opened conversation is the beginning of a copy."""
    size = reader.stat().size
    return size <= len(copy) and all(
        reader.read(offset, min(_PIECE, size - offset)) == copy[offset : min(offset + _PIECE, size)]
        for offset in range(0, size, _PIECE)
    )


def _named(user: str, archive: str | None) -> str:
    return f"{conversation_file(archive)} of user {user!r}"
