"""Programs that use a mount with nothing but system calls: some append, some archive, some read; and rsync and tail.

Each of the first three is a process of its own, works at random until it is told to stop, and then says what it did and
was answered.
"""

import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from potofs.backends.base import RECORD_END
from potofs.journal import admission
from tests.soak import children, numbered
from tests.soak.children import Notes

# How long one who archives waits in between (seconds): conversations shall have time to become something.
_BETWEEN_ARCHIVALS = 0.1
# The same for copying: on a quiet machine a copy takes less.
_BETWEEN_COPIES = 0.2
# How much of a file is read at once (bytes).
_PIECE = 1 << 16
# rsync: all went well; or a file was gone before it was opened.
_COPIED = (0, 24)


class Account:
    """What one process did and was answered."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: How many messages of each user were acknowledged, all from number 0 on.
        self.acknowledged: Counter[str] = Counter()
        #: How often each kind of thing was done.
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []


class Client:
    """What one process does to some users, at random: to be told what by `kinds`."""

    def __init__(self, users: Path, names: Sequence[str], name: str) -> None:
        self.chance = random.Random(name)
        self.account = Account(name)
        self._users, self._names = users, names
        self._open: dict[str, int] = {}

    def kinds(self) -> dict[Callable[[str], object], float]:
        """What it does to a user, and how often."""
        raise NotImplementedError

    def work(self, notes: Notes) -> None:
        """Works until it is told to stop, or until something is not as it should be."""
        kinds = self.kinds()
        while not notes.told & children.STOP and not self.account.problems:
            (kind,) = self.chance.choices(list(kinds), list(kinds.values()))
            user = self.chance.choice(self._names)
            try:
                kind(user)
                self.account.done[kind.__name__.strip("_")] += 1
                notes.done += 1
            except Exception as error:
                self.account.problems.append(f"{kind.__name__} of {user!r}: {type(error).__name__}: {error}")
        for descriptor in self._open.values():
            os.close(descriptor)

    def current(self, user: str) -> Path:
        return self._users / user / "dialogs/current.yaml"

    def archived(self, user: str) -> Path:
        return self._users / user / "dialogs/archived"

    def held(self, user: str, flags: int) -> int:
        """A descriptor of the user's running conversation, opened once; raises OSError."""
        if user not in self._open:
            self._open[user] = os.open(self.current(user), flags)
        return self._open[user]

    def let_go(self, user: str) -> None:
        os.close(self._open.pop(user))


class Appends(Client):
    """Appends messages in every way that programs have."""

    def kinds(self) -> dict[Callable[[str], object], float]:
        return {
            self._one: 40,
            self._batch: 10,
            self._pieces: 10,
            self._opening: 20,
            self._without_terminator: 5,
            self._anew: 2,
        }

    def _one(self, user: str) -> None:
        """One record in one write."""
        self._write(self._to_append(user), self._next(user, 1))
        self._acknowledged(user, 1)

    def _batch(self, user: str) -> None:
        count = self.chance.randint(2, 20)
        self._write(self._to_append(user), self._next(user, count))
        self._acknowledged(user, count)

    def _pieces(self, user: str) -> None:
        data = self._next(user, 2)
        cuts = sorted(self.chance.sample(range(1, len(data)), 3))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            self._write(self._to_append(user), data[start:end])
        self._acknowledged(user, 2)

    def _opening(self, user: str) -> None:
        """As `>>` does: an open file for each record."""
        with self.current(user).open("ab", buffering=0) as file:
            self._write(file.fileno(), self._next(user, 1))
            self._acknowledged(user, 1)

    def _without_terminator(self, user: str) -> None:
        """Closing is what completes it."""
        with self.current(user).open("ab", buffering=0) as file:
            self._write(file.fileno(), self._next(user, 1).removesuffix(RECORD_END[1:]))
        self._acknowledged(user, 1)

    def _anew(self, user: str) -> None:
        self._to_append(user)
        self.let_go(user)

    def _next(self, user: str, count: int) -> bytes:
        first = self.account.acknowledged[user]
        messages = (numbered.message(self.account.name, first + number) for number in range(count))
        return b"".join(admission.from_message(message).data for message in messages)

    def _acknowledged(self, user: str, count: int) -> None:
        self.account.acknowledged[user] += count

    def _to_append(self, user: str) -> int:
        return self.held(user, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @staticmethod
    def _write(descriptor: int, data: bytes) -> None:
        written = os.write(descriptor, data)
        if written != len(data):
            raise AssertionError(f"{written} bytes of {len(data)} were written")


class Archives(Client):
    """Moves running conversations into archived/."""

    def kinds(self) -> dict[Callable[[str], object], float]:
        return {self._by_the_time: 1, self._by_name: 1}

    def _by_the_time(self, user: str) -> None:
        self._move(user, "current.yaml")

    def _by_name(self, user: str) -> None:
        self._move(user, f"{self.account.name} {self.account.done.total()}.yaml")

    def _move(self, user: str, name: str) -> None:
        time.sleep(_BETWEEN_ARCHIVALS)
        # Nothing to archive: somebody else just did.
        with suppress(FileNotFoundError):
            os.rename(self.current(user), self.archived(user) / name)


class Reads(Client):
    """Reads conversations whole, while they grow, and when they are archives."""

    def kinds(self) -> dict[Callable[[str], object], float]:
        return {self._running: 10, self._growing: 10, self._archive: 5, self._listing: 1}

    def _running(self, user: str) -> None:
        with suppress(FileNotFoundError):
            descriptor = os.open(self.current(user), os.O_RDONLY)
            try:
                size = os.fstat(descriptor).st_size
                data = read_on(descriptor)
            finally:
                os.close(descriptor)
            if len(data) < size:
                raise AssertionError(f"{len(data)} bytes were read of {size}")
            look_at(data)

    def _growing(self, user: str) -> None:
        """Goes on behind what it read the last time."""
        with suppress(FileNotFoundError):
            look_at(read_on(self.held(user, os.O_RDONLY)))
            try:
                is_there = os.stat(self.current(user)).st_ino == os.fstat(self.held(user, 0)).st_ino
            except FileNotFoundError:
                is_there = False
            if not is_there:
                # Archived by now: what was said before that is all there.
                look_at(read_on(self.held(user, 0)))
                self.let_go(user)

    def _archive(self, user: str) -> None:
        names = os.listdir(self.archived(user))
        if names:
            look_at((self.archived(user) / self.chance.choice(names)).read_bytes())

    def _listing(self, user: str) -> None:
        with os.scandir(self.archived(user)) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries}
        if not all(sizes.values()):
            raise AssertionError(f"an archive is empty: {sizes}")


def read_on(descriptor: int) -> bytes:
    """What there is to read from the descriptor's place on."""
    pieces = []
    while piece := os.read(descriptor, _PIECE):
        pieces.append(piece)
    return b"".join(pieces)


def look_at(data: bytes) -> None:
    """Raises AssertionError unless these are whole messages, in each writer's order."""
    contents = numbered.Contents()
    contents.read(None, data)
    if contents.damage or contents.strange:
        raise AssertionError(f"what was read is not whole: {contents.damage!r:.200} {contents.strange!r:.200}")


def process(
    kind: type[Client], users: Path, names: Sequence[str], name: str, notes: Notes, answers: Any
) -> SpawnProcess:
    """A process that is such a client, not started yet; its account goes to the queue `answers`."""
    return children.context.Process(target=_work, args=(kind, users, names, name, notes, answers))


def _work(kind: type[Client], users: Path, names: Sequence[str], name: str, notes: Notes, answers: Any) -> None:
    client = kind(users, names, name)
    client.work(notes)
    answers.put(client.account)


class Copier(threading.Thread):
    """Copies users out of a mount with rsync, over and over, and looks at each copy."""

    def __init__(self, users: Path, names: Sequence[str], place: Path) -> None:
        super().__init__()
        self._place = place
        self._command = ["rsync", "-a", "--delete", *(str(users / name) for name in names), str(place)]
        self._stopping = threading.Event()
        self._seen: set[tuple[str, int, int]] = set()
        self.copies = 0
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._stopping.wait(_BETWEEN_COPIES):
            self.copy(_COPIED)

    def stop(self) -> None:
        self._stopping.set()
        self.join(children.PATIENCE)

    def copy(self, codes: Sequence[int] = (0,)) -> None:
        """Copies once."""
        done = subprocess.run(self._command, capture_output=True, text=True, check=False)
        if done.returncode not in codes:
            self.problems.append(f"rsync ended with {done.returncode}: {done.stderr:.500}")
        self.copies += 1
        for path in self._place.glob("*/dialogs/**/*.yaml"):
            stat = path.stat()
            known = (str(path), stat.st_size, stat.st_mtime_ns)
            if known not in self._seen:
                self._seen.add(known)
                try:
                    look_at(path.read_bytes())
                except AssertionError as problem:
                    self.problems.append(f"{path.relative_to(self._place)} in a copy: {problem}")

    def differences(self, journal: Callable[[str, str | None], bytes], archives: dict[str, list[str]]) -> list[str]:
        """Which conversations are not what the journal has; `archives` of each user, by name."""
        found = []
        for user, names in archives.items():
            dialogs = self._place / user / "dialogs"
            for name in [None, *names]:
                path = dialogs / "current.yaml" if name is None else dialogs / "archived" / f"{name}.yaml"
                copied = path.read_bytes() if path.exists() else b""
                if copied != journal(user, name):
                    found.append(str(path.relative_to(self._place)))
            extra = set(os.listdir(dialogs / "archived")) - {f"{name}.yaml" for name in names}
            found += [f"{user}: {name} is no archive" for name in extra]
        shutil.rmtree(self._place)
        return found


class Follower:
    """`tail -F` of a running conversation, from its beginning."""

    def __init__(self, path: Path, output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                ["tail", "-q", "-n", "+1", "-s", "0.1", "--max-unchanged-stats=1", "-F", path],
                stdout=file,
                stderr=subprocess.DEVNULL,
            )

    def stop(self) -> tuple[int, list[str]]:
        """How many messages it showed, and what was wrong with them."""
        self._process.terminate()
        self._process.wait(children.PATIENCE)
        data = self._output.read_bytes()
        # It was stopped somewhere; what is behind the last record's end says nothing of the mount.
        contents = numbered.Contents()
        contents.read(None, data[: data.rfind(RECORD_END) + len(RECORD_END)])
        problems = [f"tail showed what is not whole: {damage!r:.200}" for damage in contents.damage]
        problems += [f"tail showed: {strange}" for strange in contents.strange]
        return contents.messages, problems
