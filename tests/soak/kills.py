"""Writers killed with SIGKILL at random moments, and everything that was acknowledged is there, once.

After each kill the journal is opened anew and takes an append; then a new writer goes on where the last was
acknowledged, and so tries again what was under way. What was under way may be there or not, whole or as damage by
itself: the beginning of one of its records, never anything else, and never in anything else.
"""

import random
import time
from pathlib import Path

from potofs import DialogueJournal, open_journal
from potofs.backends.base import RECORD_END
from tests.soak import children, numbered, places, steady
from tests.soak.report import Report

THRESHOLD = 9
# How long a writer lives at most, once it writes (seconds).
_LIFE = 0.2
# How long it takes to append what is long, about.
_LONG = 0.0015
# Kills of one user, before there is a new one: all that is there is looked at after each.
_EACH = 10
# How many times more kills than asked for there are at most, until one leaves something.
_PATIENCE = 4
_WRITER, _PROBE = "w", "after a kill"


class Victim:
    """The writers of one user, one after the other."""

    def __init__(self, report: Report, url: str, user: str) -> None:
        self._report, self._url, self.user = report, url, user
        self._acknowledged = 0
        self._probes = 0
        # The records that were under way when a writer was killed, in the order of the kills.
        self._under_way: list[list[bytes]] = []
        self.inside = self.between = self.recovered = self.torn = self.whole = self.records = 0

    @property
    def left(self) -> int:
        """How many of the appends that were under way left something: all of theirs, or a torn record."""
        return self.whole + self.torn

    def kill(self, chance: random.Random) -> None:
        """Starts a writer, kills it, and looks at what it leaves."""
        notes = children.notes()
        writer = steady.process(self._url, self.user, _WRITER, self._acknowledged, notes)
        with children.running(writer):
            children.wait_until(lambda: notes.begun, "the writer writes", writer)
            if chance.random() < 0.5:
                # Any moment, those of the first append, which has all to find out, included.
                time.sleep(chance.random() * _LIFE)
            else:
                # Not long after one has begun that takes the kernel some time.
                children.wait_until(lambda: steady.is_long(notes.done) and notes.begun > notes.done, "it is", writer)
                time.sleep(chance.random() * _LONG)
            self._report.must(writer.is_alive(), "a writer failed", writer.exitcode)
        self._report.must(not notes.refused, "a writer was refused something", notes.refused)
        self._acknowledged = notes.done
        in_flight = notes.begun - notes.done
        self.inside += in_flight > 0
        self.between += bool(notes.busy)
        if in_flight:
            self._under_way.append([record.data for record in steady.records(_WRITER, self._acknowledged)])
        with open_journal(self._url) as journal:
            self._probe(journal)
            self.records = self.judge(journal, in_flight)

    def judge(self, journal: DialogueJournal, in_flight: int) -> int:
        """Looks at everything there is of the user; returns how many records there are."""
        found = numbered.Found(journal, self.user)
        found.judge(self._report, _WRITER, self._acknowledged, in_flight)
        found.judge(self._report, _PROBE, self._probes)
        found.judge_the_rest(self._report, {_WRITER: self._acknowledged + in_flight, _PROBE: self._probes})
        there = sum((_WRITER, number) in found.places for number in range(self._acknowledged, self._acknowledged + 9))
        self.whole += bool(in_flight) and there == in_flight
        self.torn = len(found.damage)
        self.recovered = found.messages
        for archive, data in found.damage:
            judge_damage(self._report, archive, data, self._under_way)
        kills = len(self._under_way)
        self._report.must(self.torn <= kills, "there is more damage than kills", f"{self.torn}, {kills} kills")
        return found.messages

    def _probe(self, journal: DialogueJournal) -> None:
        journal.add_message(self.user, numbered.message(_PROBE, self._probes))
        self._probes += 1

    def finish(self) -> int:
        """Lets a last writer go on and end; returns how many messages there are."""
        notes = children.notes()
        writer = steady.process(self._url, self.user, _WRITER, self._acknowledged, notes)
        target = self._acknowledged + 3 * THRESHOLD
        with children.running(writer):
            children.wait_until(lambda: notes.done > target, "the last writer writes", writer)
            steady.stopped(writer, notes)
        self._acknowledged = notes.done
        with open_journal(self._url) as journal:
            self._probe(journal)
            return self.judge(journal, 0)


def judge_damage(report: Report, archive: str | None, data: bytes, under_way: list[list[bytes]]) -> None:
    """Whether damaged bytes are the beginning of a record that was under way when its writer was killed."""
    text = data.removesuffix(RECORD_END) if data.endswith(RECORD_END) else data
    text = text.removesuffix(RECORD_END[1:])
    is_one = any(record.startswith((text, text + b"\n")) for records in under_way for record in records)
    report.must(is_one, "damage that is no beginning of what was under way", f"{archive} {data!r:.100}")


def run(backend: str, folder: Path, *, kills: int, fsync: str = "never") -> Report:
    """Kills so many writers, and judges what they leave after each; more of them if none has left anything yet."""
    report = Report(f"kills on {backend}{f', fsync={fsync}' if backend == 'filesystem' else ''}: {kills}")
    url = places.url(backend, folder, archiveThreshold=THRESHOLD, fsync=fsync)
    chance = random.Random(kills)
    victims: list[Victim] = []
    messages = done = 0
    while done < kills or (done < _PATIENCE * kills and not any(each.left for each in victims)):
        if done % _EACH == 0:
            messages += victims[-1].finish() if victims else 0
            victims.append(Victim(report, url, f"user {done // _EACH}"))
        victims[-1].kill(chance)
        done += 1
    messages += victims[-1].finish()
    inside, whole = sum(each.inside for each in victims), sum(each.whole for each in victims)
    with open_journal(url) as journal:
        stats = journal.get_stats()
        compressed = sum(
            archive.stored_size < archive.stat.size
            for each in victims
            for archive in journal.backend.archives(each.user)
        )
    report.must(messages > 0 and any(each.left for each in victims), "nothing was recovered")
    report.must(stats.total_messages == messages, "the statistics count other messages", f"{stats}, {messages}")
    report.must(stats.total_archived_conversations > 0, "nothing was archived")
    report.must(compressed > 0 or backend != "filesystem", "nothing was compressed")
    report.must(inside >= done * 3 // 10, "too few kills landed inside an append", f"{inside} of {done}")
    report.figure("kills", done)
    report.figure("of them inside an append", inside)
    report.figure("such appends that were stored all the same", whole)
    report.figure("such appends that left a torn record", sum(each.torn for each in victims))
    report.figure("kills while archiving", sum(each.between for each in victims))
    report.figure("messages in the end", messages)
    report.figure("archives", f"{stats.total_archived_conversations}, {compressed} compressed")
    return report
