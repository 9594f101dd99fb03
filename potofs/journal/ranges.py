"""A conversation read in ranges: its messages one by one, in memory that does not grow with it."""

from collections.abc import Iterator

from potofs.backends.base import Backend, Mark, Reader
from potofs.errors import NotFound
from potofs.journal import reading, stream
from potofs.journal.message import ChatMessage, mark
from potofs.journal.reading import Damage

#: Bytes read at once.
RANGE = 1 << 18


def entries(reader: Reader, size_of_range: int = RANGE) -> Iterator[ChatMessage | Damage]:
    """What `reading.read` finds in all bytes that an opened conversation has now.

    No more of them is held than a range and the record that it cuts.
    """
    base, at, waiting, size = 0, 0, b"", reader.stat().size
    while at < size:
        # A record longer than a range is looked through again and again, but for twice as many bytes each time.
        data = reader.read(at, min(size - at, max(size_of_range, len(waiting))))
        if data.endswith(b"\r"):
            data += reader.read(at + len(data), 1)  # The other half of a line's end.
        if not data:
            break
        at += len(data)
        waiting += data
        if at >= size:
            break
        taken = 0
        for document in stream.ended(waiting):
            yield reading.entry(waiting, document, base)
            taken = document.stop
        base, waiting = base + taken, waiting[taken:]
    yield from reading.read(waiting, base)


def marks_of_user(backend: Backend, user: str) -> Iterator[Mark]:
    """One mark for each message in any conversation of a user."""
    seen = set()
    # The running one first: archived meanwhile, it is known by its number; the other way round it might be missed.
    for archive in _conversations(backend, user):
        try:
            reader = backend.open(user, archive)
        except NotFound:
            continue
        with reader:
            if (conversation := reader.stat().id) not in seen:
                seen.add(conversation)
                for entry in entries(reader):
                    if isinstance(entry, ChatMessage):
                        yield mark(entry)


def _conversations(backend: Backend, user: str) -> Iterator[str | None]:
    yield None
    yield from (archive.name for archive in backend.archives(user))
