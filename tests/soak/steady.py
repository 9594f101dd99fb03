"""A writer that goes on whatever happens to it or to what it writes to: killed, without room, without a server.

It appends messages by themselves and in batches, tries again what was refused, archives, and in a thread beside that
it compresses whatever it can. One writer a user: so whatever it tries again is in the running conversation or the
newest archive, and known there. Those who share a user only append, nothing long, and to a journal that does not
archive.
"""

import threading
import time
from contextlib import suppress
from multiprocessing.context import SpawnProcess

from potofs import CleanupOptions, DialogueJournal, open_journal
from potofs.backends.base import Record
from potofs.errors import AlreadyExists, DeadlineExceeded, NotFound, Unreachable
from potofs.journal import admission
from tests.soak import children, numbered
from tests.soak.children import Notes

# How long it waits before it tries again (seconds).
_PAUSE = 0.002
# What a place may be in for a while.
_TROUBLE = (OSError, DeadlineExceeded, Unreachable)
_COMPRESS_EVERYTHING = CleanupOptions(max_age_hours=1e-9, max_inactive_hours=0)


def step(first: int) -> range:
    """The numbers of the messages that are appended together with message `first`."""
    return range(first, first + (4 if first % 7 == 0 else 1))


def is_long(first: int) -> bool:
    """Whether a step is so long that the kernel takes its time to write it."""
    return first % 35 == 0


def records(writer: str, first: int, *, alone: bool = True) -> list[Record]:
    """What is appended in a step."""
    lines = 9000 if alone and is_long(first) else None
    return [admission.from_message(numbered.message(writer, number, lines)) for number in step(first)]


def write(url: str, user: str, writer: str, first: int, notes: Notes, pretends: bool, alone: bool) -> None:
    """Appends messages from `first` on until it is told to stop."""
    children.Words()
    if pretends:
        children.pretend_a_full_disk(notes)
    journal = open_journal(url)
    notes.done = first
    cleaner = threading.Thread(target=_clean, args=(journal, notes))
    if alone:
        cleaner.start()
    while not notes.told & children.STOP:
        batch = records(writer, first, alone=alone)
        notes.begun = first + len(batch)
        _insist(journal, user, batch, notes)
        first += len(batch)
        notes.done = first
        if alone and first % 13 == 0:
            notes.busy = 1
            with suppress(NotFound, AlreadyExists, *_TROUBLE):
                journal.archive_conversation(user)
            notes.busy = 0
    if alone:
        cleaner.join()
    journal.close()


def _insist(journal: DialogueJournal, user: str, batch: list[Record], notes: Notes) -> None:
    while True:
        try:
            journal.append(user, batch)
            return
        except _TROUBLE:
            notes.refused += 1
            time.sleep(_PAUSE)


def _clean(journal: DialogueJournal, notes: Notes) -> None:
    while not notes.told & children.STOP:
        with suppress(*_TROUBLE):
            journal.cleanup(_COMPRESS_EVERYTHING)
        time.sleep(_PAUSE)


def process(
    url: str, user: str, writer: str, first: int, notes: Notes, *, pretends: bool = False, alone: bool = True
) -> SpawnProcess:
    """Such a writer, not started yet.

    `pretends`: it finds the disk full whenever it is told so; `alone`: nobody else writes to its user.
    """
    return children.context.Process(target=write, args=(url, user, writer, first, notes, pretends, alone))


def stopped(process: SpawnProcess, notes: Notes) -> None:
    """Tells a writer to end, and waits for it."""
    notes.told |= children.STOP
    process.join(children.PATIENCE)
    assert process.exitcode == 0, f"the writer ended with {process.exitcode}"
