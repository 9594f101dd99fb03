"""Figures over all users, kept as changes happen: nobody reads or walks everything to know them.

Two records are changed with each change of a user, while the user's lock is held:

- the user's own, in the file that is the lock: what was counted of the user, and of which state (`Counted`);
- a shard's, in `system/totals`: the sums of what was counted of all users whose names fall into it (256 shards).

A shard's record is written before the user's, under the shard's lock. It says what it was before and for whose sake it
was changed; so whoever finds that the user's record did not follow (a process was killed in between) takes that back.
What was counted and what is there may differ for as long as a process was killed after a change: the user's next change
counts anew, as `recount` does for all. Neither is forced to disk: the file lists for which runs of which machine it is
known to be right, and it is counted anew where the machine, or the file's place, is another.

    system/totals: "potofs totals 1\\n", 63 × 16 bytes that say where it is right, zeros up to 4,096,
    then for each shard 512 bytes: sums (8 × 8), sums before (8 × 8), number of the change (8), length (2) and
    name (up to 255) of the user's folder; all numbers little-endian and signed
"""

import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import blake2b
from typing import NamedTuple

from potofs import names
from potofs.backends.base import Mark, Totals
from potofs.backends.filesystem.layout import DIRECTORY_MODE, FILE_MODE, Layout
from potofs.errors import DeadlineExceeded

_SHARDS = 256
_MAGIC = b"potofs totals 1\n"
_START, _SLOT = 4096, 512
_PLACES = 63
_SUMS = struct.Struct("<8q")
_SHARD = struct.Struct("<8q8qqH255s")
_LOCK = struct.Struct("hhqqi4x")
# Nobody holds a shard for long; one who was stopped there does not hold up others, who count next time (seconds).
_PATIENCE = 0.05
# The same for one who may not wait: as long as it takes somebody who is at work to write two records.
_LITTLE_PATIENCE = 0.002
_PAUSE = 0.0005

# No message: later, and earlier, than any.
_NEVER, _NOT_YET = (1 << 63) - 1, -(1 << 63)


class Figures(NamedTuple):
    """What is counted of conversations."""

    conversations: int = 0
    archives: int = 0
    messages: int = 0
    bytes: int = 0
    first_ns: int = _NEVER
    last_ns: int = _NOT_YET

    def plus(self, other: "Figures") -> "Figures":
        """Both together."""
        a, b, c, d, first, last = self
        e, f, g, h, other_first, other_last = other
        earliest = min(first, other_first)
        return Figures._make((a + e, b + f, c + g, d + h, earliest, max(last, other_last)))

    def totals(self, users: int) -> Totals:
        """As totals over so many users."""
        first = None if self.first_ns == _NEVER else self.first_ns
        last = None if self.last_ns == _NOT_YET else self.last_ns
        return Totals(users, self.conversations, self.archives, self.messages, self.bytes, first, last)


NO_FIGURES = Figures()


def figures_of(marks: Iterable[Mark]) -> tuple[int, int, int]:
    """How many messages, and when the first and the last was said: between the years 1677 and 2262, as far as fits."""
    count, first, last = 0, _NEVER, _NOT_YET
    for mark in marks:
        count += 1
        if mark.time_ns is not None:
            time_ns = fitting(mark.time_ns)
            first, last = min(first, time_ns), max(last, time_ns)
    return count, first, last


def fitting(time_ns: int) -> int:
    """The nearest time that has a place in a record: messages may be of any year from 1 to 9999."""
    return min(max(time_ns, _NOT_YET + 1), _NEVER - 1)


class Counted(NamedTuple):
    """What was counted of a user."""

    #: Counts up with each change.
    number: int
    #: The running conversation then: id and bytes; 0 if there was none.
    current_id: int
    current_size: int
    #: The state of the archives' folder (`files.state`).
    archives_at: int
    current: Figures
    archives: Figures

    @property
    def all(self) -> Figures:
        return self.current.plus(self.archives)


_COUNTED = struct.Struct("<4q6q6q")
_CHECK = struct.Struct("<I")


class Note(NamedTuple):
    """What stands in a user's record, and what it says."""

    data: bytes
    counted: Counted


def noted(lock: int, known: Note | None = None) -> Note | None:
    """What was counted of the user whose lock file is opened as `lock`; None if that was never done.

    `known` is what stood there when it was looked at last.
    """
    data = os.pread(lock, _COUNTED.size + _CHECK.size, 0)
    if known is not None and known.data == data:
        return known
    packed = data[:-4]
    if len(data) < _COUNTED.size + _CHECK.size or data[-4:] != _CHECK.pack(zlib.crc32(packed)):
        return None
    found = _COUNTED.unpack(packed)
    number, current_id, current_size, archives_at = found[:4]
    # _make is twice as quick as the call by arguments, and this is on the way of every append.
    current, archives = Figures._make(found[4:10]), Figures._make(found[10:])
    return Note(data, Counted(number, current_id, current_size, archives_at, current, archives))


def _counted(lock: int) -> Counted | None:
    note = noted(lock)
    return note.counted if note else None


def _note(lock: int, now: Counted) -> Note:
    packed = _COUNTED.pack(*now[:4], *now.current, *now.archives)
    data = packed + _CHECK.pack(zlib.crc32(packed))
    os.pwrite(lock, data, 0)
    return Note(data, now)


class _Sums(NamedTuple):
    """The sums of a shard."""

    users: int = 0
    #: How often a user was counted for the first time.
    added: int = 0
    conversations: int = 0
    archives: int = 0
    messages: int = 0
    bytes: int = 0
    first_ns: int = _NEVER
    last_ns: int = _NOT_YET

    def changed(self, before: Figures | None, after: Figures) -> "_Sums":
        """With `after` in the place of what was counted of a user before, None if nothing was."""
        new = before is None
        users, added, conversations, archives, messages, size, first, last = self
        was, now = before or NO_FIGURES, after
        return _Sums._make(
            (
                users + new,
                added + new,
                conversations + now[0] - was[0],
                archives + now[1] - was[1],
                messages + now[2] - was[2],
                size + now[3] - was[3],
                min(first, now[4]),
                max(last, now[5]),
            )
        )

    def may_be(self, counted: "_Sums") -> bool:
        """Whether these are right if so much was counted; the times may be of what has gone since."""
        return self[:6] == counted[:6] and self.first_ns <= counted.first_ns and self.last_ns >= counted.last_ns


class Busy(Exception):
    """Somebody holds a shard for longer than counting takes."""


class TotalsFile:
    """The sums of one root, shared by all servers there; thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._guards = [threading.Lock() for _ in range(_SHARDS)]
        self._opening = threading.Lock()
        # The opened file and the process that opened it: a lock belongs to an open file, which a child shares.
        # Used only by whoever holds a guard, so that it is not closed meanwhile.
        self._opened: tuple[int, int] | None = None
        # What this process wrote last into each shard: then there is nothing to be taken back.
        self._written: dict[int, tuple[bytes, _Sums]] = {}

    def change(self, user: str, lock: int, before: Counted | None, now: Counted, *, wait: bool = True) -> Note:
        """Counts a user as `now`, the next number after `before`; the caller holds the user's lock, opened as `lock`.

        Returns what stands in the user's record then. Without `wait` it waits for nobody who is not about to be done.

        Raises OSError, Busy; then it is as if the user's last change had not been counted.
        """
        name = names.encode(user).encode()
        shard = _shard(name)
        patience = _PATIENCE if wait else _LITTLE_PATIENCE
        with self._guarded(shard, wait):
            file = self._file()
            self._lock(file, shard, 1, patience)
            try:
                sums = self._sums(file, shard, name, lock)
                if before is not None and before.archives == now.archives:
                    # What archives have is in the sums already, their times too.
                    after = sums.changed(before.current, now.current)
                else:
                    after = sums.changed(before.all if before else None, now.all)
                data = self._write(file, shard, after, sums, now.number, name)
                note = _note(lock, now)
                self._written[shard] = data, after
                return note
            finally:
                self._unlock(file, shard, 1)

    def is_right(self) -> bool:
        """Whether the sums were counted here, and the machine has run since then; else they may be anything."""
        descriptor = self._open()
        try:
            return self._place() in self._places(descriptor)
        finally:
            os.close(descriptor)

    def totals(self) -> Totals:
        """The sums over all shards; raises OSError, DeadlineExceeded."""
        # By an opened file of its own: a lock does not keep threads apart that share one.
        descriptor = self._open()
        try:
            with self._locked(descriptor, 0, _SHARDS):
                found = [self._sums(descriptor, shard, b"", None) for shard in range(_SHARDS)]
        finally:
            os.close(descriptor)
        total = NO_FIGURES
        for sums in found:
            total = total.plus(Figures(*sums[2:]))
        return total.totals(sum(sums.users for sums in found))

    def recount(self, users: Callable[[], Iterator[str]], *, write: bool = True) -> int:
        """Makes the sums those of what was counted of each user, while changes go on; returns how many were wrong.

        Raises OSError, DeadlineExceeded.
        """
        wrong = 0
        descriptor = self._open()
        try:
            left = set(range(_SHARDS))
            while left:
                # Whoever is counted for the first time after this may not be among those that are listed.
                added = {shard: self._read(descriptor, shard)[0].added for shard in left}
                listed: dict[int, list[bytes]] = {shard: [] for shard in left}
                for user in users():
                    name = names.encode(user).encode()
                    if _shard(name) in left:
                        listed[_shard(name)].append(name)
                for shard in sorted(left):
                    with self._locked(descriptor, shard, 1):
                        sums = self._sums(descriptor, shard, b"", None)
                        # As it stands there: a last change that is taken back may have been the first of a user.
                        if self._read(descriptor, shard)[0].added == added[shard]:
                            total = _Sums(added=sums.added)
                            for name in listed[shard]:
                                found = self._counted(name)
                                if found is not None:
                                    total = total.changed(None, found.all)._replace(added=sums.added)
                            wrong += not sums.may_be(total)
                            if write:
                                self._write(descriptor, shard, total, total, 0, b"")
                            left.discard(shard)
            if write:
                self._add_place(descriptor)
            return wrong
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Lets go of the file, until it is wanted again.

        Waits for changes under way: their file's number may be another file's as soon as this one is closed.
        """
        with ExitStack() as held:
            for guard in self._guards:
                held.enter_context(guard)
            held.enter_context(self._opening)
            if self._opened is not None:
                os.close(self._opened[0])
                self._opened = None

    # Inside

    @contextmanager
    def _guarded(self, shard: int, wait: bool) -> Iterator[None]:
        """Keeps other threads of this process from a shard."""
        guard = self._guards[shard]
        if not guard.acquire(timeout=-1 if wait else _LITTLE_PATIENCE):
            raise Busy
        try:
            yield
        finally:
            guard.release()

    def _sums(self, file: int, shard: int, name: bytes, lock: int | None) -> _Sums:
        """A shard's sums, the last change taken back if it did not come to its end; the caller holds the shard."""
        data = os.pread(file, _SHARD.size, _START + shard * _SLOT)
        written = self._written.get(shard)
        if written is not None and written[0] == data:
            return written[1]
        sums, before, number, whose = _unpacked(data)
        if not whose:
            return sums
        # Of the user's own record it is known that it cannot change meanwhile: that happens in the shard's lock too.
        found = _counted(lock) if whose == name and lock is not None else self._counted(whose)
        return before if found is None or found.number < number else sums

    def _read(self, file: int, shard: int) -> tuple[_Sums, _Sums, int, bytes]:
        return _unpacked(os.pread(file, _SHARD.size, _START + shard * _SLOT))

    def _write(self, file: int, shard: int, sums: _Sums, before: _Sums, number: int, name: bytes) -> bytes:
        data = _SHARD.pack(*sums, *before, number, len(name), name)
        # One small write, which is whole even if the process is killed.
        os.pwrite(file, data, _START + shard * _SLOT)
        return data

    def _counted(self, name: bytes) -> Counted | None:
        try:
            descriptor = os.open(f"{self._layout.users}/{name.decode()}/.lock", os.O_RDONLY)
        except (FileNotFoundError, ValueError):
            # Gone, or what names nobody: the file of sums may be damaged.
            return None
        try:
            return _counted(descriptor)
        finally:
            os.close(descriptor)

    def _file(self) -> int:
        opened = self._opened
        if opened is not None and opened[1] == os.getpid():
            return opened[0]
        with self._opening:
            if self._opened is None or self._opened[1] != os.getpid():
                self._opened = self._open(), os.getpid()
                self._written.clear()
            return self._opened[0]

    def _open(self) -> int:
        with suppress(FileExistsError):
            os.mkdir(self._layout.system, DIRECTORY_MODE)
        return os.open(self._layout.totals, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)

    @contextmanager
    def _locked(self, file: int, first: int, count: int) -> Iterator[None]:
        """Holds shards, among all open files; for as long as this may wait."""
        try:
            self._lock(file, first, count, 100 * _PATIENCE)
        except Busy:
            raise DeadlineExceeded(f"somebody holds {self._layout.totals}; nothing was changed, try again") from None
        try:
            yield
        finally:
            self._unlock(file, first, count)

    @staticmethod
    def _lock(file: int, first: int, count: int, patience: float) -> None:
        region = _region(fcntl.F_WRLCK, first, count)
        deadline = 0.0
        while True:
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, region)
                return
            except BlockingIOError:
                deadline = deadline or time.monotonic() + patience
                if time.monotonic() > deadline:
                    raise Busy from None
                time.sleep(_PAUSE)

    @staticmethod
    def _unlock(file: int, first: int, count: int) -> None:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _region(fcntl.F_UNLCK, first, count))

    # Where it is right

    def _place(self) -> bytes:
        """This run of this machine, and this folder."""
        found = os.stat(self._layout.users)
        try:
            with open("/proc/sys/kernel/random/boot_id", "rb") as file:
                run = file.read()
        except FileNotFoundError:
            run = b"unknown"
        return blake2b(b"%d %d %s" % (found.st_dev, found.st_ino, run), digest_size=16).digest()

    @staticmethod
    def _places(file: int) -> list[bytes]:
        start = os.pread(file, _START, 0)
        if not start.startswith(_MAGIC):
            return []
        return [start[at : at + 16] for at in range(16, 16 * (_PLACES + 1), 16)]

    def _add_place(self, file: int) -> None:
        places = [place for place in self._places(file) if place != bytes(16)]
        places = [self._place(), *places][:_PLACES]
        os.pwrite(file, (_MAGIC + b"".join(places)).ljust(_START, b"\0"), 0)


@cache
def _region(kind: int, first: int, count: int) -> bytes:
    """How fcntl(2) is told of shards."""
    return _LOCK.pack(kind, 0, _START + first * _SLOT, count * _SLOT, 0)


def _shard(name: bytes) -> int:
    return zlib.crc32(name) % _SHARDS


def _unpacked(data: bytes) -> tuple[_Sums, _Sums, int, bytes]:
    if len(data) < _SHARD.size or not any(data):
        return _Sums(), _Sums(), 0, b""
    *sums, number, length, name = _SHARD.unpack(data)
    return _Sums(*sums[:8]), _Sums(*sums[8:]), number, name[:length]
