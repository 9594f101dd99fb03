"""A disk that is full again and again, and every time room is made: nothing acknowledged is lost, no half record stays.

A tiny file system, filled with ballast up to the last byte; where nobody may mount one, a writer whose writes fail as
on one. The writer tries again what was refused until it is stored.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from potofs import open_journal
from tests.soak import children, numbered, places, steady
from tests.soak.children import Notes
from tests.soak.report import Report

THRESHOLD = 9
_SIZE = 24 << 20
_USER, _WRITER = "mia", "w"
# What is appended between two times that the disk is full (messages), and how often it is refused each time.
_BETWEEN = 30
_REFUSALS = 3


class Disk(NamedTuple):
    """A place with little room."""

    place: Path
    fill: Callable[[Notes], None]
    make_room: Callable[[Notes], None]


@contextmanager
def _real(place: Path) -> Iterator[Disk]:
    place.mkdir()
    ballast = place / "ballast"

    def fill(_: Notes) -> None:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                # Up to the last byte, whatever the writer takes meanwhile.
                file.write(bytes(1 << 16))

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=700", "tmpfs", place], check=True)
    try:
        yield Disk(place, fill, lambda _: ballast.unlink())
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def _pretended(place: Path) -> Iterator[Disk]:
    place.mkdir()

    def tell(notes: Notes, *, full: bool) -> None:
        notes.told = children.FULL if full else 0

    yield Disk(place, lambda notes: tell(notes, full=True), lambda notes: tell(notes, full=False))
    shutil.rmtree(place)


def run(folder: Path, *, seconds: float, real: bool | None = None) -> Report:
    """Fills a disk for some seconds, once at least; `real`: on a file system of its own (as root does by default)."""
    real = os.geteuid() == 0 if real is None else real
    report = Report(f"full disk, {'a small file system' if real else 'pretended'}: {seconds:g} s")
    deadline = time.monotonic() + seconds
    fillings = messages = disks = refused = 0
    while not disks or time.monotonic() < deadline:
        disks += 1
        with (_real if real else _pretended)(folder / f"disk {disks}") as disk:
            times, stored, refusals = _use(report, disk, deadline, real)
            fillings, messages, refused = fillings + times, messages + stored, refused + refusals
    report.figure("disks, one after the other", disks)
    report.figure("times that a disk was full", fillings)
    report.figure("appends refused, and given again", refused)
    report.figure("messages in the end", messages)
    return report


def _use(report: Report, disk: Disk, deadline: float, real: bool) -> tuple[int, int, int]:
    """Fills one disk until it is half full of messages; how often, how many messages are there, how many refusals."""
    url = places.url("filesystem", disk.place, archiveThreshold=THRESHOLD, fsync="never")
    notes = children.notes()
    writer = steady.process(url, _USER, _WRITER, 0, notes, pretends=not real)
    times = 0
    with children.running(writer):
        children.wait_until(lambda: notes.done > _BETWEEN, "the writer writes", writer)
        while times < 3 or (time.monotonic() < deadline and _used(disk.place) < _SIZE // 2):
            disk.fill(notes)
            children.wait_for_more(notes, "refused", _REFUSALS, writer)
            disk.make_room(notes)
            children.wait_for_more(notes, "done", _BETWEEN, writer)
            times += 1
        steady.stopped(writer, notes)
    with open_journal(url) as journal:
        # Whatever could not be counted when the disk was full is counted with the next change.
        journal.add_message(_USER, numbered.message("afterwards", 0))
        found = numbered.Found(journal, _USER)
        stats = journal.get_stats()
    found.judge(report, _WRITER, notes.done)
    found.judge_the_rest(report, {_WRITER: notes.done, "afterwards": 1})
    for archive, data in found.damage:
        report.violated("a half record stayed", f"{archive} {data!r:.100}")
    report.must(stats.total_messages == found.messages, "the statistics count other messages", stats)
    report.must(stats.total_archived_conversations == len(found.archives), "the statistics count other archives", stats)
    scratch = [path.name for path in disk.place.rglob("*.new")]
    report.must(not scratch, "unfinished files stayed", scratch)
    return times, found.messages, notes.refused


def _used(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*.yaml*") if path.is_file())
