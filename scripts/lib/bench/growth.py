"""What an append, a size and a read of the end cost, in small and large journals: p50, p99 and the ratio to the floor.

Every subject does each work once, in one journal after the other, and then all of it again, so that a machine that
gets slower gets slower for all of them. The work goes from one user to the next, so that a conversation of 10 messages
has only a few more in the end.
"""

import os
import random
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import redis

from bench import held, tables
from bench.places import ENDLESS, message, potofs, record, redis_server
from potofs import DialogueJournal, open_journal

TAIL = 4096
#: How often each work is done in each journal, and how often a journal is opened to append to.
TIMES = 1000
OPENED = 15
BATCH = 1000


class Size(NamedTuple):
    """How large a journal is."""

    name: str
    #: Of each, three subjects have a third to themselves.
    users: int
    #: Messages of each user.
    messages: int


SIZES = (
    Size("10 messages", 180, 10),
    Size("1,000 messages", 60, 1000),
    Size("100,000 messages", 3, 100_000),
    Size("10 users", 30, 10),
    Size("100,000 users", 100_000, 10),
)


class Subject(ABC):
    """Something that has conversations; a size's own."""

    @abstractmethod
    def append(self, user: str) -> object: ...

    @abstractmethod
    def size(self, user: str) -> object: ...

    @abstractmethod
    def tail(self, user: str) -> object: ...


class Files(Subject):
    """Files that are appended to, in a folder or in a mount; `sync`: each is forced to disk."""

    def __init__(self, path_of: Callable[[str], str], *, sync: bool = False) -> None:
        self._path_of, self._sync = path_of, sync

    def append(self, user: str) -> None:
        descriptor = os.open(self._path_of(user), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, record())
            if self._sync:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def size(self, user: str) -> int:
        return os.stat(self._path_of(user)).st_size

    def tail(self, user: str) -> bytes:
        descriptor = os.open(self._path_of(user), os.O_RDONLY)
        data = os.pread(descriptor, TAIL, max(0, os.fstat(descriptor).st_size - TAIL))
        os.close(descriptor)
        return data


class Strings(Subject):
    """Strings in Redis."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client, self._name = client, name

    def append(self, user: str) -> None:
        self._client.append(f"{self._name}{user}", record())

    def size(self, user: str) -> object:
        return self._client.strlen(f"{self._name}{user}")

    def tail(self, user: str) -> object:
        return self._client.getrange(f"{self._name}{user}", -TAIL, -1)


class Library(Subject):
    """A journal as programs use it."""

    def __init__(self, journal: DialogueJournal) -> None:
        self._journal = journal

    def append(self, user: str) -> None:
        self._journal.add_message(user, message())

    def size(self, user: str) -> int:
        return self._journal.backend.stat(user).size

    def tail(self, user: str) -> bytes:
        with self._journal.backend.open(user) as reader:
            return reader.read(max(0, reader.stat().size - TAIL), TAIL)


class Work(NamedTuple):
    """One subject that does one work in a journal of one size."""

    #: A row of the table.
    what: str
    name: str
    #: The name of the subject whose ratio is 1; empty if there is none.
    floor: str
    do: Callable[[str], object]
    users: Iterator[str]
    times: list[float]


class Journal:
    """The same users on files, in Redis, and as what both are compared with."""

    def __init__(self, size: Size, place: Path, port: int, stack: ExitStack) -> None:
        place.mkdir()
        users = [f"user-{number:06d}" for number in range(size.users)]
        random.Random(1).shuffle(users)  # noqa: S311  (the same order each time)
        self._users = users
        self._url = f"file://{place}/journal?{ENDLESS}"
        self._redis = f"redis://127.0.0.1:{port}/0?{ENDLESS}&prefix={place.name}:"
        self._root = place / "journal"
        client = stack.enter_context(redis.Redis(port=port))
        fill(f"{self._url}&fsync=never", users, size.messages)
        fill(self._redis, users, size.messages)
        plain = place / "plain"
        plain.mkdir()
        for user in users:
            conversation = b"".join(record() for _ in range(size.messages))
            (plain / user).write_bytes(conversation)
            client.set(f"{place.name}/{user}", conversation)
        journals = [
            stack.enter_context(open_journal(url))
            for url in (f"{self._url}&fsync=never", f"{self._url}&fsync=always", self._redis)
        ]
        mountpoint = stack.enter_context(potofs(f"{self._url}&fsync=never", place / "mount"))
        self._subjects: list[tuple[str, str, Subject, Sequence[str]]] = [
            ("plain file", "", Files(lambda user: f"{plain}/{user}"), users[0::3]),
            ("library, files", "plain file", Library(journals[0]), users[0::3]),
            (
                "mount, files",
                "plain file",
                Files(lambda user: f"{mountpoint}/users/{user}/dialogs/current.yaml"),
                users[1::3],
            ),
            ("plain file, fdatasync", "", Files(lambda user: f"{plain}/{user}", sync=True), users[2::3]),
            ("library, files, fsync=always", "plain file, fdatasync", Library(journals[1]), users[2::3]),
            ("Redis", "", Strings(client, f"{place.name}/"), users),
            ("library, Redis", "Redis", Library(journals[2]), users),
        ]

    def works(self) -> Iterator[Work]:
        """What is done in it, row by row."""
        for name, floor, subject, users in self._subjects:
            yield Work("append", name, floor, subject.append, cycle(users), [])
        for what in ("size", "tail"):
            for name, floor, subject, users in self._subjects:
                # For these it does not matter what is forced to disk.
                if "sync" not in name:
                    yield Work(what, name, floor, getattr(subject, what), cycle(users), [])

    def first_appends(self) -> Iterator[Work]:
        """Of a journal that was opened for it; the second without what the journal keeps beside a long conversation."""
        on_files = f"{self._url}&fsync=never"
        for name, url, forgets in (
            ("library, files", on_files, False),
            ("library, files, index removed", on_files, True),
            ("library, Redis", self._redis, False),
        ):
            users = cycle(self._users[0::3])
            times = [self._first_append(url, next(users), forgets=forgets) for _ in range(OPENED)]
            yield Work("first append", name, "", str, users, times)

    def _first_append(self, url: str, user: str, *, forgets: bool) -> float:
        if forgets:
            (self._root / f"users/{user}/.current.idx").unlink(missing_ok=True)
        with open_journal(url) as journal:
            begun = time.perf_counter()
            journal.add_message(user, message())
            return time.perf_counter() - begun


def fill(url: str, users: Sequence[str], messages: int) -> None:
    """Gives each of the users a conversation."""
    with open_journal(url) as journal:
        for user in users:
            for _ in range(0, messages, BATCH):
                journal.add_messages(user, [message() for _ in range(min(messages, BATCH))])


def measure(journals: Sequence[Journal]) -> list[list[Work]]:
    """The rows, each with one work for each journal."""
    rows = list(zip(*(journal.works() for journal in journals), strict=True))
    for number in range(TIMES + 1):
        for row in rows:
            # Another first each time: that one finds the processor's caches full of other work.
            first = number % len(row)
            for work in (*row[first:], *row[:first]):
                user = next(work.users)
                begun = time.perf_counter()
                work.do(user)
                if number:  # The first opens connections and the like.
                    work.times.append(time.perf_counter() - begun)
    return [list(row) for row in [*rows, *zip(*(journal.first_appends() for journal in journals), strict=True)]]


def p99(times: Sequence[float]) -> float:
    """The largest where there are fewer than a hundred."""
    return quantiles(times, n=100)[98] if len(times) >= 100 else max(times)


def row_of(row: Sequence[Work], floors: Mapping[tuple[str, str], Sequence[Work]]) -> str:
    """A line of the table."""
    what, name, floor = row[0][:3]
    cells = []
    for number, work in enumerate(row):
        middle = median(work.times)
        cell = f"{tables.short(middle * 1e6)} / {tables.short(p99(work.times) * 1e6)}"
        if floor:
            cell += f" ({middle / median(floors[what, floor][number].times):.1f})"
        cells.append(cell)
    return f"| {what} | {name} | {' | '.join(cells)} |\n"


def table() -> Iterator[str]:
    """The lines of the table."""
    yield tables.measured()
    yield "p50 / p99 in µs "
    yield f"of {TIMES:,} times, the subjects in turn; behind it, the ratio of the p50 to that of the floor. Of first "
    yield f"appends there are {OPENED}: p50 / largest.\n\n"
    yield f"| what | subject | {' | '.join(size.name for size in SIZES)} |\n"
    yield f"| --- | --- | {' | '.join('---:' for _ in SIZES)} |\n"
    with tempfile.TemporaryDirectory(prefix="potofs-bench-") as folder, ExitStack() as stack:
        place = Path(folder)
        port = stack.enter_context(redis_server(place / "redis"))
        journals = [Journal(size, place / str(number), port, stack) for number, size in enumerate(SIZES)]
        rows = measure(journals)
        floors = {(row[0].what, row[0].name): row for row in rows}
        for row in rows:
            yield row_of(row, floors)
    yield "\n"
    yield from held.table()
