"""One mount under load: some append, some archive, some read, `tail -F` follows, and rsync copies, round after round.

What has to hold after each round, when everybody has said what they were answered:

- Each record that was acknowledged is there once, whole, and none that nobody wrote; each writer's records stand in
  its order.
- Whoever read anything, tail and rsync among them, saw whole records only; the last copy is what the journal has.
- Nothing failed, and the daemon complains of nothing in its log.
- The daemon has no more open files than after the first round, but for a connection to Redis for each of its threads,
  and its memory has not grown by more than it keeps of users, however many archives were made.

A round has users of its own, so that one is like the other.
"""

import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from potofs import DialogueJournal, open_journal
from tests.mounts import Mount, mounted
from tests.soak import children, clients, numbered, places
from tests.soak.clients import Account, Copier, Follower
from tests.soak.report import Report, counted

THRESHOLD = 100
USERS = 4
# What a daemon keeps of a user who was appended to (KiB): about 20, and nothing of an archive.
_OF_USER = 20
# What memory varies by when nothing more is kept: a thousand names of archives that the kernel may remember, pieces
# that are free and not given back, more threads than before (KiB).
_VARIES = 4096
# Worker threads of a mount: each may have a connection.
_THREADS = 64


class Crowd(NamedTuple):
    """How many there are of each kind."""

    appenders: int = 8
    archivers: int = 2
    readers: int = 4

    @property
    def kinds(self) -> list[type[clients.Client]]:
        return [clients.Appends] * self.appenders + [clients.Archives] * self.archivers + [clients.Reads] * self.readers


class Footprint(NamedTuple):
    """What a daemon takes of the machine when nobody uses its mount."""

    #: Kibibytes of memory.
    memory: int
    #: Open files, and open connections.
    files: int
    connections: int


def run(backend: str, folder: Path, *, seconds: float, rounds: int, crowd: Crowd | None = None) -> Report:
    """Puts load on a mount for so many rounds of so many seconds, and judges what they leave."""
    crowd = crowd or Crowd()
    report = Report(f"load on {backend}: {rounds} × {seconds:g} s")
    url = places.url(backend, folder, archiveThreshold=THRESHOLD)
    footprints: list[Footprint] = []
    done = Counter[str]()
    with mounted(url, folder / "mnt") as mount, open_journal(url) as journal:
        for number in range(rounds):
            one = _Round(report, mount, journal, folder, f"{number + 1}", seconds, crowd)
            one.run()
            done.update(one.done)
            footprints.append(_settled(mount.daemon, footprints[0] if footprints else None))
        for complaint in mount.complaints():
            report.violated("the daemon complains", complaint)
        # It was reported.
        mount.expect_warning(".")
    # At least once each, or the run says nothing; a short one on a busy machine may not come to it.
    kinds = ("one", "batch", "pieces", "opening", "without_terminator", "by_name", "running", "growing")
    for kind in kinds if seconds >= 5 else ():
        report.must(done[kind] > 0, "something was never done", kind)
    report.figure("done", counted(done))
    _judge_footprints(report, footprints)
    return report


class _Round:
    """One round, with users of its own."""

    def __init__(
        self,
        report: Report,
        mount: Mount,
        journal: DialogueJournal,
        folder: Path,
        name: str,
        seconds: float,
        crowd: Crowd,
    ) -> None:
        self._report, self._mount, self._journal = report, mount, journal
        self._name, self._seconds = name, seconds
        #: How often each kind of thing was done.
        self.done = Counter[str]()
        self._users = [f"round {name} user {number}" for number in range(USERS)]
        for user in self._users:
            (mount.users / user).mkdir()
        self._copier = Copier(mount.users, self._users, folder / "copy")
        self._follower = Follower(mount.current(self._users[0]), folder / "followed")
        self._answers = children.context.Queue()
        self._notes = [children.notes() for _ in crowd.kinds]
        self._processes = [
            clients.process(kind, mount.users, self._users, f"{kind.__name__}{number}", notes, self._answers)
            for number, (kind, notes) in enumerate(zip(crowd.kinds, self._notes, strict=True))
        ]

    def run(self) -> None:
        begun = time.monotonic()
        try:
            with children.running(*self._processes):
                accounts = self._work()
            followed, problems = self._follower.stop()
        finally:
            self._follower.stop()
        for account in accounts:
            problems += [f"{account.name}: {problem}" for problem in account.problems]
        took = time.monotonic() - begun
        self._copier.copy()
        problems += self._copier.problems
        for problem in problems:
            self._report.violated("somebody was shown what they should not be", f"round {self._name}: {problem}")
        self._judge(accounts, took, followed)

    def _work(self) -> list[Account]:
        for notes, process in zip(self._notes, self._processes, strict=True):
            children.wait_until(lambda notes=notes: notes.done, "it works", process)  # type: ignore[misc]
        self._copier.start()
        try:
            time.sleep(self._seconds)
        finally:
            for notes in self._notes:
                notes.told |= children.STOP
            self._copier.stop()
        accounts = [self._answers.get(timeout=children.PATIENCE) for _ in self._processes]
        for process in self._processes:
            process.join(children.PATIENCE)
            self._report.must(process.exitcode == 0, "a process failed", process.exitcode)
        return accounts

    def _judge(self, accounts: list[Account], took: float, followed: int) -> None:
        report, archives, messages = self._report, dict[str, list[str]](), 0
        for user in self._users:
            found = numbered.Found(self._journal, user)
            archives[user] = found.archives
            messages += found.messages
            for archive, data in found.damage:
                report.violated("a record is torn", f"{user} {archive} {data!r:.100}")
            known = {account.name: account.acknowledged[user] for account in accounts}
            for writer, acknowledged in known.items():
                found.judge(report, writer, acknowledged)
            found.judge_the_rest(report, known)
        for difference in self._copier.differences(self._journal.read_bytes, archives):
            report.violated("the last copy is not what the journal has", f"round {self._name}: {difference}")
        for account in accounts:
            self.done.update(account.done)
        report.must(followed > 0, "tail showed nothing")
        report.figure(
            f"round {self._name}",
            f"{messages} messages, {messages / took:.0f}/s; {sum(map(len, archives.values()))} archives;"
            f" tail showed {followed}; {self._copier.copies} copies",
        )


def _settled(daemon: int, first: Footprint | None) -> Footprint:
    """The daemon's footprint once it has closed what nobody has open any more; given up after a while."""
    deadline = time.monotonic() + 10
    while True:
        now = _footprint(daemon)
        if first is None or now.files <= first.files or time.monotonic() > deadline:
            return now
        time.sleep(0.1)


def _footprint(daemon: int) -> Footprint:
    status = Path(f"/proc/{daemon}/status").read_text()
    opened = []
    for path in Path(f"/proc/{daemon}/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(os.readlink(path))
    connections = sum(name.startswith("socket:") for name in opened)
    return Footprint(int(status.split("VmRSS:")[1].split()[0]), len(opened) - connections, connections)


def _judge_footprints(report: Report, footprints: list[Footprint]) -> None:
    """Judges what was found after each round."""
    memory, files, connections = zip(*footprints, strict=True)
    report.figure("daemon's memory, MiB", ", ".join(f"{each / 1024:.1f}" for each in memory))
    report.figure("daemon's open files", ", ".join(map(str, files)))
    report.figure("daemon's connections", ", ".join(map(str, connections)))
    report.must(max(files) == files[0], "the daemon's open files grow", files)
    report.must(max(connections) <= connections[0] + _THREADS, "the daemon's connections grow", connections)
    allowed = _VARIES + _OF_USER * USERS * (len(footprints) - 1)
    report.must(
        memory[-1] <= memory[0] + allowed,
        f"the daemon's memory grows by more than {allowed} KiB",
        (memory[0], memory[-1]),
    )
