"""What one call costs: potofs and what it is compared with, in turn, as medians and ratios.

Every round does each work once on every subject, so that a machine that gets slower gets slower for all of them. The
ratio is the median of the rounds' ratios to the floor (the same work with plain files), not a ratio of medians.
"""

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import tables
from bench.places import ENDLESS, bindfs, message, potofs, record
from potofs import open_journal

USERS = 200
# Some 20 kB a conversation, in messages of 200 characters.
MESSAGES = 60
BATCH = 200


class Subject(NamedTuple):
    """Something that does a work."""

    name: str
    #: Does the work once; its cost is the time that it takes, divided by `operations`.
    work: Callable[[], object]


class Work(NamedTuple):
    """One row block of the table."""

    name: str
    unit: str
    #: How many units one call of a subject's work does.
    operations: int
    #: The floor first.
    subjects: list[Subject]


def append_opening_each_time(path: Path, *, sync: bool = False) -> None:
    for _ in range(BATCH):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, record())
        if sync:
            os.fdatasync(descriptor)
        os.close(descriptor)


def append_held(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for _ in range(BATCH):
        os.write(descriptor, record())
    os.close(descriptor)


def append_locked(path: Path) -> None:
    for _ in range(BATCH):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, record())
        os.close(descriptor)


def read_all(users: list[Path]) -> None:
    for user in users:
        (user / "dialogs/current.yaml").read_bytes()


def stat_all(users: list[Path]) -> None:
    for user in users:
        os.stat(user / "dialogs/current.yaml")


def grep(directory: Path) -> None:
    subprocess.run(["grep", "-rc", "nothing like this", directory], stdout=subprocess.DEVNULL, check=False)


def fill(root: Path) -> None:
    """Conversations of USERS users, written as files: the layout is the journal's."""
    data = b"".join(record() for _ in range(MESSAGES))
    for number in range(USERS):
        dialogs = root / f"users/user-{number:03d}/dialogs"
        (dialogs / "archived").mkdir(parents=True)
        (dialogs / "current.yaml").write_bytes(data)


def works(place: Path, stack: ExitStack) -> Iterator[Work]:
    """All that is measured, set up in a folder."""
    plain, journal = place / "plain", place / "journal"
    fill(plain)
    fill(journal)
    url = f"file://{journal}?{ENDLESS}"
    peer = stack.enter_context(bindfs(plain, place / "bindfs"))
    quick = stack.enter_context(potofs(f"{url}&fsync=never", place / "quick"))
    durable = stack.enter_context(potofs(url, place / "durable"))

    def current(root: Path, user: str) -> Path:
        """A conversation of one subject alone."""
        dialogs = root / f"users/{user}/dialogs"
        dialogs.mkdir(parents=True, exist_ok=True)
        return dialogs / "current.yaml"

    def mounted(root: Path, user: str) -> Path:
        (root / "users" / user).mkdir()
        return root / f"users/{user}/dialogs/current.yaml"

    files = (current(plain, "a"), current(peer, "b"), mounted(quick, "c"))
    names = ("plain file", "bindfs", "potofs, fsync=never")
    yield Work(
        "append: open, one record, close",
        "µs",
        BATCH,
        [Subject(n, lambda f=f: append_opening_each_time(f)) for n, f in zip(names, files, strict=True)],  # type: ignore[misc]
    )
    yield Work(
        "append on one open file",
        "µs",
        BATCH,
        [Subject(n, lambda f=f: append_held(f)) for n, f in zip(names, files, strict=True)],  # type: ignore[misc]
    )
    synced, kept = current(plain, "d"), mounted(durable, "e")
    yield Work(
        "append made durable: open, one record, close",
        "µs",
        BATCH,
        [
            Subject("plain file, fdatasync", lambda: append_opening_each_time(synced, sync=True)),
            Subject("potofs, fsync=always", lambda: append_opening_each_time(kept)),
        ],
    )
    trees = {"plain files": plain, "bindfs": peer, "potofs": quick}
    yield Work(
        "read a conversation of 20 kB: open, read, close",
        "µs",
        USERS,
        [Subject(n, lambda t=t: read_all(users_of(t))) for n, t in trees.items()],  # type: ignore[misc]
    )
    yield Work(
        "stat a conversation",
        "µs",
        USERS,
        [Subject(n, lambda t=t: stat_all(users_of(t))) for n, t in trees.items()],  # type: ignore[misc]
    )
    yield Work(
        f"grep -r over {USERS} users",
        "ms",
        1,
        [Subject(n, lambda t=t: grep(t / "users")) for n, t in trees.items()],  # type: ignore[misc]
    )
    library = stack.enter_context(open_journal(f"{url}&fsync=never"))
    locked = current(plain, "f")

    def add() -> None:
        for _ in range(BATCH):
            library.add_message("g", message())

    yield Work(
        "add_message of the library, fsync=never",
        "µs",
        BATCH,
        [Subject("open, flock, append", lambda: append_locked(locked)), Subject("add_message", add)],
    )
    # Behind everything that appends: what is read has the same length in every round.
    whole = journal / "users/user-000/dialogs/current.yaml"
    yield Work(
        f"get_conversation of {MESSAGES} messages",
        "µs",
        1,
        [
            Subject("read the file", whole.read_bytes),
            Subject("get_conversation", lambda: library.get_conversation("user-000")),
        ],
    )


def users_of(root: Path) -> list[Path]:
    return [root / f"users/user-{number:03d}" for number in range(USERS)]


def measure(work: Work, rounds: int) -> Iterator[tuple[str, float, float]]:
    """For each subject: its name, its median (in the work's unit), and the median of its ratios to the floor."""
    scale = {"µs": 1e6, "ms": 1e3}[work.unit] / work.operations
    times: dict[str, list[float]] = {subject.name: [] for subject in work.subjects}
    for _ in range(rounds + 1):
        for subject in work.subjects:
            begun = time.perf_counter()
            subject.work()
            times[subject.name].append((time.perf_counter() - begun) * scale)
    floor = times[work.subjects[0].name][1:]
    for name, all_taken in times.items():
        # The first round warms caches up.
        taken = all_taken[1:]
        yield name, median(taken), median(one / base for one, base in zip(taken, floor, strict=True))


def table(rounds: int) -> Iterator[str]:
    """The lines of the table, as they are measured."""
    yield tables.measured()
    yield f"medians of {rounds} rounds, the subjects in turn. The ratio is to the first of each group.\n\n"
    yield "| what | subject | median | ratio |\n| --- | --- | ---: | ---: |\n"
    with tempfile.TemporaryDirectory(prefix="potofs-bench-") as place, ExitStack() as stack:
        for work in works(Path(place), stack):
            for number, (name, taken, ratio) in enumerate(measure(work, rounds)):
                what = work.name if number == 0 else ""
                yield f"| {what} | {name} | {tables.short(taken)} {work.unit} | {ratio:.2f} |\n"
