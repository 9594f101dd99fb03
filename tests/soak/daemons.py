"""A mount whose daemon is killed with SIGKILL under appends, and everything that was acknowledged is there, once.

Each writer opens its user's current.yaml in the mount, appends one record with one write and closes it; acknowledged is
what write(2) took. After each kill the journal is read without a mount and takes an append; the next mount repairs the
dead one, and the writers give again what failed. What was under way may be there or not, whole or as damage by itself.
"""

import os
import random
import signal
import threading
import time
from pathlib import Path

from potofs import open_journal
from potofs.journal import admission
from tests.mounts import Mount, mounted, processes_of, wait_until
from tests.soak import children, numbered, places
from tests.soak.kills import judge_damage
from tests.soak.report import Report

THRESHOLD = 40
_USERS = ("mia", "noah")
# How long a daemon lives at most, once every writer has written (seconds).
_LIFE = 0.1
# How long it takes to append what is long, about; every so many messages one is.
_LONG, _EVERY = 0.015, 5
_WRITER, _PROBE = "w", "after a kill"


class Writer:
    """Appends to one user through a mount until that fails."""

    def __init__(self, user: str) -> None:
        self.user = user
        #: Up to which message it has begun to append, and up to which it was told that they are stored.
        self.begun = self.done = 0
        #: The records that were under way when a daemon was killed.
        self.under_way: list[list[bytes]] = []
        #: Those of them that were stored all the same.
        self.whole = 0

    @property
    def is_long(self) -> bool:
        """Whether what it appends next takes the daemon some time."""
        return self.done % _EVERY == 0

    def record(self) -> bytes:
        """What it appends next."""
        message = numbered.message(_WRITER, self.done, 9000 if self.is_long else None)
        return admission.from_message(message).data

    def write(self, mount: Mount) -> None:
        """Goes on behind what was acknowledged last, until the daemon is gone."""
        try:
            while True:
                record = self.record()
                self.begun = self.done + 1
                descriptor = os.open(mount.current(self.user), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                try:
                    assert os.write(descriptor, record) == len(record)
                    self.done = self.begun
                finally:
                    os.close(descriptor)
        except OSError:
            if self.begun > self.done:
                self.under_way.append([self.record()])


def run(folder: Path, *, kills: int) -> Report:
    """Kills so many daemons, and judges what they leave after each."""
    report = Report(f"kills of a mount's daemon: {kills}")
    url = places.url("filesystem", folder, archiveThreshold=THRESHOLD, fsync="never")
    chance = random.Random(kills)
    writers = [Writer(user) for user in _USERS]
    with open_journal(url) as journal:
        for writer in writers:
            journal.create_user(writer.user)
    with mounted(url, folder / "mnt") as mount:
        for number in range(kills):
            if number:
                mount.start()
            _kill(report, mount, writers, chance)
            messages, torn = _judge(report, url, writers, number)
    inside, whole = sum(len(writer.under_way) for writer in writers), sum(writer.whole for writer in writers)
    report.must(torn <= inside, "there is more damage than appends under way", f"{torn}, {inside}")
    report.must(inside > 0, "no kill landed inside an append")
    report.must(messages > 0, "nothing was recovered")
    report.figure("kills", kills)
    report.figure("appends under way then", inside)
    report.figure("of them stored all the same", whole)
    report.figure("of them left as a torn record", torn)
    report.figure("records acknowledged", sum(writer.done for writer in writers))
    report.figure("messages in the end", messages)
    return report


def _kill(report: Report, mount: Mount, writers: list[Writer], chance: random.Random) -> None:
    """Lets the writers write, and kills the daemon meanwhile."""
    daemon, before = mount.daemon, [writer.done for writer in writers]
    threads = [threading.Thread(target=writer.write, args=(mount,)) for writer in writers]
    for thread in threads:
        thread.start()
    for writer, done in zip(writers, before, strict=True):
        wait_until(lambda writer=writer, done=done: writer.done > done, "it writes")  # type: ignore[misc]
    if chance.random() < 0.5:
        time.sleep(chance.random() * _LIFE)
    else:
        children.wait_until(
            lambda: writers[0].is_long and writers[0].begun > writers[0].done, "it appends what is long"
        )
        time.sleep(chance.random() * _LONG)
    report.must(all(thread.is_alive() for thread in threads), "a writer failed")
    os.kill(daemon, signal.SIGKILL)
    for thread in threads:
        thread.join(children.PATIENCE)
        report.must(not thread.is_alive(), "a writer hangs")
    wait_until(lambda: not processes_of(mount.path), "the daemon is gone")


def _judge(report: Report, url: str, writers: list[Writer], kill: int) -> tuple[int, int]:
    """Looks at everything there is after a kill; returns how many messages and torn records that is."""
    messages = torn = 0
    with open_journal(url) as journal:
        for writer in writers:
            in_flight = writer.begun - writer.done
            journal.add_message(writer.user, numbered.message(_PROBE, kill))
            found = numbered.Found(journal, writer.user)
            found.judge(report, _WRITER, writer.done, in_flight)
            found.judge(report, _PROBE, kill + 1)
            found.judge_the_rest(report, {_WRITER: writer.done + in_flight, _PROBE: kill + 1})
            for archive, data in found.damage:
                judge_damage(report, archive, data, writer.under_way)
            writer.whole += in_flight > 0 and (_WRITER, writer.done) in found.places
            messages, torn = messages + found.messages, torn + len(found.damage)
        stats = journal.get_stats()
    report.must(stats.total_messages == messages, "the statistics count other messages", f"{stats}, {messages}")
    return messages, torn
