"""Two mounts of one journal: who writes, archives, restores and reads on both, each judging at once what it sees.

What has to hold while they are at it:

- What was written through one mount is found through the other as soon as the write has returned.
- No read is cut: a range within the size that is shown comes whole, and so does everything up to it.
- What is read to its end is whole records. On files one that is just being written may be seen half, and the next read
  of the same open file has the rest; on Redis not even that.

And in the end, when all that there is can be read without a mount:

- Each record that was written is there once, in its writer's order, and none that nobody wrote.
- All that anybody read is how its conversation begins, byte for byte, whatever it was called then or is now.
"""

import errno
import os
import random
import time
import zlib
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from potofs import DialogueJournal, open_journal
from potofs.backends.base import RECORD_END
from potofs.errors import NotFound
from potofs.journal import admission, reading
from potofs.journal.reading import Damage
from tests.mounts import mounted
from tests.soak import children, numbered, places
from tests.soak.report import Report, counted

THRESHOLD = 25
USERS = 2
# How long the rest of a record may take that is being written (seconds).
_SOON = 10.0
# How long whoever archives and restores waits in between, at most (seconds).
_PAUSE = 0.05


class Sample(NamedTuple):
    """What was read of a conversation from its beginning on."""

    user: str
    inode: int
    length: int
    digest: int


class Account:
    """What one process did and saw."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: How many of its messages each user has.
        self.written: Counter[str] = Counter()
        self.samples: set[Sample] = set()
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []


class Party:
    """One process at work on one mount; `other` is the other one."""

    def __init__(self, name: str, users: Path, other: Path, journal: DialogueJournal) -> None:
        self.account = Account(name)
        self._users, self._other, self._journal = users, other, journal
        self._chance = random.Random(name)
        self._appending: dict[str, int] = {}

    def work(self, user: str) -> None:
        """Does one thing to a user."""
        with suppress(FileExistsError):
            (self._users / user).mkdir()
        self.do(user, self._users / user / "dialogs")

    def do(self, user: str, dialogs: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        for descriptor in self._appending.values():
            os.close(descriptor)

    def _wrong(self, what: str) -> None:
        self.account.problems.append(what)

    def _read_to_end(self, descriptor: int, data: bytearray) -> None:
        """Reads on, in pieces of any size, to where it ends now."""
        while piece := os.read(descriptor, self._chance.choice((100, 4096, 5000, 1 << 17))):
            data += piece


class Writer(Party):
    """Appends, to an open file that it keeps for a while or to one that it opens each time."""

    def do(self, user: str, dialogs: Path) -> None:
        first = self.account.written[user]
        numbers = range(first, first + self._chance.choice((1, 1, 1, 3)))
        messages = [numbered.message(self.account.name, number) for number in numbers]
        data = b"".join(admission.from_message(message).data for message in messages)
        descriptor = self._appending.get(user)
        if descriptor is None:
            descriptor = os.open(dialogs / "current.yaml", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._appending[user] = descriptor
        if os.write(descriptor, data) != len(data):
            self._wrong("a write was cut")
        self.account.written[user] = numbers.stop
        self.account.done["append"] += 1
        if self._chance.random() < 0.3:
            os.close(self._appending.pop(user))
        if self._chance.random() < 0.2:
            self._must_be_found(user, data)

    def _must_be_found(self, user: str, data: bytes) -> None:
        """Looks for what it has just written through the other mount, wherever that may be by now."""
        dialogs = self._other / user / "dialogs"
        deadline = time.monotonic() + _SOON
        # First where it is unless somebody has archived it; that may go on while it is looked for.
        while True:
            for path in (dialogs / "current.yaml", *(dialogs / "archived").glob("*.yaml"), dialogs / "current.yaml"):
                with suppress(FileNotFoundError):
                    if data in path.read_bytes():
                        self.account.done["found at once"] += 1
                        return
            self.account.done["moved meanwhile"] += 1
            if time.monotonic() > deadline:
                self._wrong(f"what was written is not found: {user} {data[:60]!r}")
                return


class Archiver(Party):
    """Archives through its mount, and restores."""

    def do(self, user: str, dialogs: Path) -> None:
        time.sleep(self._chance.random() * _PAUSE)
        names = [name for name in os.listdir(dialogs / "archived") if name.endswith(".yaml")]
        try:
            if names and self._chance.random() < 0.4:
                self._journal.restore_conversation(user, self._chance.choice(names).removesuffix(".yaml"))
                self.account.done["restore"] += 1
                return
            number = self.account.done.total()
            name = self._chance.choice(("", f"{self.account.name} {number}.yaml"))
            os.rename(dialogs / "current.yaml", dialogs / "archived" / (name or "current.yaml"))
            self.account.done["archive"] += 1
            if (dialogs / "archived/current.yaml").exists():
                self._wrong("there is an archived/current.yaml")
        except (FileNotFoundError, NotFound):
            # Somebody was quicker.
            self.account.done["too late"] += 1


class Looker(Party):
    """Reads the running conversation and archives, goes on reading for a while, and looks into the middle."""

    #: Whether a record may be seen while it is being written.
    may_be_half = True

    def do(self, user: str, dialogs: Path) -> None:
        paths = [dialogs / "current.yaml"]
        archives = sorted((dialogs / "archived").glob("*.yaml"))
        paths += self._chance.sample(archives, min(2, len(archives)))
        for path in paths:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                self.account.done["gone"] += 1
                continue
            try:
                self._follow(user, path, descriptor)
            finally:
                os.close(descriptor)

    def _follow(self, user: str, path: Path, descriptor: int) -> None:
        data = bytearray()
        for _ in range(self._chance.choice((1, 1, 4))):
            shown = os.fstat(descriptor)
            self._read_to_end(descriptor, data)
            if len(data) < shown.st_size:
                self._wrong(f"cut: {path} is {shown.st_size} long, and {len(data)} come")
            self._must_be_whole(path, descriptor, data)
            self.account.samples.add(Sample(user, shown.st_ino, len(data), zlib.crc32(data)))
            self._must_be_the_same(path, descriptor, data)
            self.account.done["read"] += 1
            self.account.done["bytes read"] += len(data)
            time.sleep(self._chance.random() * _PAUSE / 4)

    def _must_be_whole(self, path: Path, descriptor: int, data: bytearray) -> None:
        deadline = time.monotonic() + _SOON
        while data and not data.endswith(RECORD_END):
            if not self.may_be_half or time.monotonic() > deadline:
                self._wrong(f"half a record: {path} ends in {bytes(data[-80:])!r}")
                return
            self.account.done["half at first"] += 1
            self._read_to_end(descriptor, data)
        for entry in reading.read(bytes(data)):
            if isinstance(entry, Damage):
                self._wrong(f"torn: {path} {entry}: {bytes(data[entry.offset : entry.offset + 80])!r}")
                return

    def _must_be_the_same(self, path: Path, descriptor: int, data: bytearray) -> None:
        start = self._chance.randrange(len(data) + 1)
        size = min(self._chance.choice((1, 100, 5000)), len(data) - start)
        if os.pread(descriptor, size, start) != data[start : start + size]:
            self._wrong(f"{path}: {size} bytes at {start} are not as they were")


class StrictLooker(Looker):
    may_be_half = False


def work(
    kind: type[Party], name: str, places: tuple[Path, Path], url: str, seconds: float, era: float, shared: Any
) -> None:
    """One process: works for some seconds, every `era` on other users, so that none gets archives without end."""
    together, answers = shared
    words = children.Words()
    with open_journal(url) as journal:
        party = kind(name, *places, journal)
        together.wait(children.PATIENCE)
        begun = time.monotonic()
        try:
            while (now := time.monotonic() - begun) < seconds:
                party.work(f"{int(now / era)}-{party._chance.randrange(USERS)}")
        except Exception as error:
            place = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else ""
            party.account.problems.append(f"{type(error).__name__}: {error} {place}")
        party.close()
    party.account.problems += words.said
    answers.put(party.account)


def run(backend: str, folder: Path, *, seconds: float) -> Report:
    """Lets them work on two mounts, and judges what they saw and what they leave."""
    url = places.url(backend, folder, archiveThreshold=THRESHOLD, fsync="never", lockTimeoutMs=30000)
    url = url if backend == "filesystem" else url.replace("lockTimeoutMs", "timeoutMs")
    report = Report(f"two mounts on {backend}: {seconds:g} s")
    looker = Looker if backend == "filesystem" else StrictLooker
    era = min(5.0, seconds / 2)
    with ExitStack() as stack:
        journal = stack.enter_context(open_journal(url))
        users = [stack.enter_context(mounted(url, folder / f"mnt{number}")).users for number in range(2)]
        kinds = [(kind, side) for side in range(2) for kind in (Writer, Writer, Archiver, looker)]
        shared = children.context.Barrier(len(kinds)), children.context.Queue()
        parties = [
            children.context.Process(
                target=work,
                args=(kind, f"{kind.__name__}{number}", (users[side], users[1 - side]), url, seconds, era, shared),
            )
            for number, (kind, side) in enumerate(kinds)
        ]
        with children.running(*parties):
            accounts: list[Account] = [shared[1].get(timeout=seconds + children.PATIENCE) for _ in parties]
            for party in parties:
                party.join(children.PATIENCE)
                report.must(party.exitcode == 0, "a process failed", party.exitcode)
        _judge(report, journal, accounts)
    return report


def _judge(report: Report, journal: DialogueJournal, accounts: list[Account]) -> None:
    done = Counter[str]()
    samples: dict[str, set[Sample]] = defaultdict(set)
    for account in accounts:
        done.update(account.done)
        for problem in account.problems:
            report.violated("somebody saw or was told what should not be", f"{account.name}: {problem}")
        for sample in account.samples:
            samples[sample.user].add(sample)
    written = conversations = 0
    for user in journal.users():
        found = numbered.Found(journal, user)
        for account in accounts:
            found.judge(report, account.name, account.written[user])
        found.judge_the_rest(report, {account.name: account.written[user] for account in accounts})
        for archive, data in found.damage:
            report.violated("a record is torn", f"{user} {archive} {data!r:.100}")
        written += sum(account.written[user] for account in accounts)
        conversations += found.conversations
        _judge_samples(report, journal, user, [None, *found.archives], samples.pop(user, set()))
    report.must(not samples, "users are lost", list(samples))
    for kind in ("append", "archive", "restore", "read", "found at once"):
        report.must(done[kind] > 0, "something was never done", kind)
    report.figure("records written, each there once", written)
    report.figure("conversations", conversations)
    report.figure("done", counted(done))


def _judge_samples(
    report: Report, journal: DialogueJournal, user: str, archives: list[str | None], samples: set[Sample]
) -> None:
    """Whether all that was read of a user is how one of the conversations begins."""
    bytes_of: dict[int, bytes] = {}
    for archive in archives:
        with suppress(NotFound), journal.backend.open(user, archive) as reader:
            bytes_of[reader.stat().id] = reader.read_all()
    for sample in samples:
        data = bytes_of.get(sample.inode)
        if data is None:
            report.violated("what was read is of no conversation", sample)
        elif len(data) < sample.length or zlib.crc32(data[: sample.length]) != sample.digest:
            report.violated("what was read is not how its conversation begins", sample)
