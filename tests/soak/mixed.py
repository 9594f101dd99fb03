"""Several processes on one journal: appends, batches, archives, restores, reads and clean-ups mixed, over a few users.

What has to hold in the end, when every process has said what it was answered:

- Each record is there once, whole, and none that nobody wrote.
- Within one conversation each writer's records stand in its order, and those of one append together. Across
  conversations no order can be asked for: restoring makes an older conversation the running one, to be gone on with.
- An append was answered that it archived the conversation exactly if its last record is the conversation's message
  number `THRESHOLD` or one after that (a restored conversation may have that many already).
- Archives are as many as were made (by hand, by a threshold, by a restore that found a running conversation, by a
  clean-up) less those restored; and the statistics say the same as the bytes.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from potofs import CleanupOptions, DialogueJournal, open_journal
from potofs.errors import AlreadyExists, NotFound
from potofs.journal import admission
from potofs.journal.reading import Damage
from tests.soak import children, numbered, places
from tests.soak.report import Report, counted

THRESHOLD = 20
USERS = 3
# Archives everything that was left alone for the tenth of a second, compresses all archives.
_CLEANUP = CleanupOptions(max_age_hours=1e-9, max_inactive_hours=0.1 / 3600)


class Append(NamedTuple):
    """One append and its answer."""

    user: str
    numbers: range
    archived_as: str | None


class Account:
    """What one process did and was answered."""

    def __init__(self, writer: str) -> None:
        self.writer = writer
        self.appends: list[Append] = []
        #: Archives made and, below 0, restored; how often each kind of operation was done.
        self.made: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []


class Worker:
    """What one process does, at random."""

    def __init__(self, journal: DialogueJournal, writer: str, chance: random.Random) -> None:
        self._journal, self._chance = journal, chance
        self._next = 0
        self.account = Account(writer)
        self._kinds: dict[Callable[[str], None], float] = {
            self._append: 60,
            self._batch: 15,
            self._read: 6,
            self._archive: 4,
            self._restore: 6,
            self._clean: 0.3,
        }

    def work(self, user: str) -> None:
        """Does one thing to a user."""
        (kind,) = self._chance.choices(list(self._kinds), list(self._kinds.values()))
        try:
            kind(user)
            self.account.done[kind.__name__.strip("_")] += 1
        except (NotFound, AlreadyExists):
            # Another process was quicker: there is nothing to archive, or the archive is gone.
            self.account.done["too late"] += 1

    def _add(self, user: str, count: int) -> None:
        numbers = range(self._next, self._next + count)
        self._next += count
        given = self._chance.random() < 0.5
        records = [
            admission.from_message(numbered.message(self.account.writer, number))._replace(retry=given)
            for number in numbers
        ]
        answer = self._journal.append(user, records)
        if answer.stored != count:
            self.account.problems.append(f"{answer.stored} of {count} new records were stored")
        self.account.appends.append(Append(user, numbers, answer.archived_as))
        self.account.made["threshold"] += answer.archived_as is not None

    def _append(self, user: str) -> None:
        self._add(user, 1)

    def _batch(self, user: str) -> None:
        self._add(user, self._chance.randint(2, 8))

    def _read(self, user: str) -> None:
        archives = [archive.name for archive in self._journal.backend.archives(user)]
        for archive in [None, *self._chance.sample(archives, min(2, len(archives)))]:
            for entry in self._journal.read_conversation(user, archive):
                # The end of the running one may be on its way.
                if isinstance(entry, Damage) and not (entry.torn and archive is None):
                    self.account.problems.append(f"read {archive}: {entry}")

    def _archive(self, user: str) -> None:
        name = f"by hand {self.account.writer} {self._next}" if self._chance.random() < 0.5 else None
        self._journal.archive_conversation(user, name)
        self.account.made["by hand"] += 1

    def _restore(self, user: str) -> None:
        archives = [archive.name for archive in self._journal.backend.archives(user)]
        if archives:
            swapped = self._journal.restore_conversation(user, self._chance.choice(archives))
            self.account.made["restored"] -= 1
            self.account.made["swapped"] += swapped is not None

    def _clean(self, user: str) -> None:
        result = self._journal.cleanup(_CLEANUP)
        self.account.made["clean-up"] += result.archived
        self.account.done["compressed"] += result.compressed
        if result.errors:
            self.account.problems.append(f"a clean-up had {result.errors} errors")


def work(url: str, writer: str, seconds: float, era: float, together: Any, answers: Any) -> None:
    """One process: works for some seconds, every `era` on other users, so that none gets archives without end."""
    words = children.Words()
    with open_journal(url) as journal:
        worker = Worker(journal, writer, random.Random(writer))
        together.wait(children.PATIENCE)
        begun = time.monotonic()
        try:
            while (now := time.monotonic() - begun) < seconds:
                worker.work(f"{int(now / era)}/{worker._chance.randrange(USERS)}")
        except Exception as error:
            worker.account.problems.append(f"{type(error).__name__}: {error}")
    worker.account.problems += words.said
    answers.put(worker.account)


def run(backend: str, folder: Path, *, seconds: float, processes: int = 4) -> Report:
    """Lets some processes work on one journal, and judges what they leave."""
    report = Report(f"mixed on {backend}: {processes} processes, {seconds:g} s")
    url = places.url(backend, folder, archiveThreshold=THRESHOLD, fsync="never")
    with open_journal(url):
        pass
    together, answers = children.context.Barrier(processes), children.context.Queue()
    era = min(5.0, seconds / 2)
    workers = [
        children.context.Process(target=work, args=(url, f"w{number}", seconds, era, together, answers))
        for number in range(processes)
    ]
    with children.running(*workers):
        accounts: list[Account] = [answers.get(timeout=seconds + children.PATIENCE) for _ in workers]
        for worker in workers:
            worker.join(children.PATIENCE)
            report.must(worker.exitcode == 0, "a process failed", worker.exitcode)
    with open_journal(url) as journal:
        _judge(report, journal, accounts)
    return report


def _judge(report: Report, journal: DialogueJournal, accounts: list[Account]) -> None:
    made, done = Counter[str](), Counter[str]()
    for account in accounts:
        # Not `+`, which drops what is below 0.
        made.update(account.made)
        done.update(account.done)
        for problem in account.problems:
            report.violated("a process was told what it should not be", f"{account.writer}: {problem}")
    records = archives = conversations = 0
    for user in journal.users():
        found = numbered.Found(journal, user)
        for archive, data in found.damage:
            report.violated("a record is torn", f"{user} {archive} {data!r:.100}")
        wanted = {
            (account.writer, number): append
            for account in accounts
            for append in account.appends
            if append.user == user
            for number in append.numbers
        }
        for key, append in wanted.items():
            _judge_record(report, found, key, append)
        for strange in found.strange:
            report.violated("a record is not whole or not in its writer's order", f"{user} {strange}")
        for key in found.places.keys() - wanted.keys():
            report.violated("a record is there that nobody wrote", key)
        records += len(wanted)
        archives += len(found.archives)
        conversations += found.conversations
    report.must(archives == sum(made.values()), "archives are not as many as were made", f"{archives}, {dict(made)}")
    report.must(records == sum(len(each.numbers) for account in accounts for each in account.appends), "users are lost")
    stats = journal.get_stats()
    report.must(stats.total_messages == records, "the statistics count other messages", stats)
    report.must(stats.total_archived_conversations == archives, "the statistics count other archives", stats)
    for kind in ("append", "batch", "read", "archive", "restore", "clean"):
        report.must(done[kind] > 0, "something was never done", kind)
    report.must(made["threshold"] > 0, "no threshold was ever reached")
    report.figure("records acknowledged, each there once", records)
    report.figure("conversations", f"{conversations}, {archives} of them archives")
    report.figure("operations", counted(done))
    report.figure("archives made, less restored", counted(made))


def _judge_record(report: Report, found: numbered.Found, key: tuple[str, int], append: Append) -> None:
    places = found.places.get(key, [])
    report.must(len(places) > 0, "an acknowledged record is lost", f"{append} {key}")
    report.must(len(places) < 2, "a record is doubled", f"{append} {key} {places}")
    if len(places) != 1:
        return
    (place,) = places
    writer, number = key
    if number > append.numbers.start:
        before = found.places.get((writer, number - 1))
        together = before == [numbered.Place(place.archive, place.position - 1)]
        report.must(together, "records of one append do not stand together", f"{append} {before} {place}")
    if number == append.numbers.stop - 1:
        should = place.position >= THRESHOLD
        is_so = append.archived_as is not None
        report.must(
            should == is_so, "archived by itself when it should not, or not when it should", f"{append} {place}"
        )
