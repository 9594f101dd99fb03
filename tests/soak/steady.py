"""A writer that goes on whatever happens to it or to what it writes to: killed, without room, without a server.

It appends messages by itself and in batches, tries again what was refused, archives, and cleans up. One writer a user:
so whatever it tries again is in the running conversation or the newest archive, and known there.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.context import SpawnProcess

from potofs import ChatMessage, CleanupOptions, open_journal
from potofs.errors import AlreadyExists, DeadlineExceeded, NotFound, Unreachable
from tests.soak import children, numbered
from tests.soak.children import Notes

# How long it waits before it tries again (seconds).
_PAUSE = 0.002
_COMPRESS_EVERYTHING = CleanupOptions(max_age_hours=1e-9, max_inactive_hours=0)


def step(first: int) -> range:
    """The numbers of the messages that are appended together with message `first`."""
    return range(first, first + (4 if first % 7 == 0 else 1))


def messages(writer: str, first: int) -> list[ChatMessage]:
    """The messages of a step; some are long, so that the kernel takes its time to write them."""
    long = 9000 if first % 35 == 0 else None
    return [numbered.message(writer, number, long) for number in step(first)]


def write(url: str, user: str, writer: str, first: int, notes: Notes, pretends: bool) -> None:
    """Appends messages from `first` on until it is told to stop."""
    children.Words()
    if pretends:
        children.pretend_a_full_disk(notes)
    journal = open_journal(url)
    notes.done = first
    while not notes.told & children.STOP:
        batch = messages(writer, first)
        notes.begun = first + len(batch)
        while True:
            try:
                journal.add_messages(user, batch)
                break
            except (OSError, DeadlineExceeded, Unreachable):
                notes.refused += 1
                time.sleep(_PAUSE)
        first += len(batch)
        notes.done = first
        notes.busy = 1
        with suppress(OSError, NotFound, AlreadyExists, DeadlineExceeded, Unreachable):
            if first % 13 == 0:
                journal.archive_conversation(user)
            if first % 17 == 0:
                journal.cleanup(_COMPRESS_EVERYTHING)
        notes.busy = 0
    journal.close()


def process(url: str, user: str, writer: str, first: int, notes: Notes, *, pretends: bool = False) -> SpawnProcess:
    """Such a writer, not started yet; `pretends`: it finds the disk full whenever it is told so."""
    return children.context.Process(target=write, args=(url, user, writer, first, notes, pretends))


def stopped(process: SpawnProcess, notes: Notes) -> None:
    """Tells a writer to end, and waits for it."""
    notes.told |= children.STOP
    process.join(children.PATIENCE)
    assert process.exitcode == 0, f"the writer ended with {process.exitcode}"


def steps(acknowledged: int) -> Iterator[int]:
    """The first numbers of all steps up to some number."""
    first = 0
    while first < acknowledged:
        yield first
        first = step(first).stop
