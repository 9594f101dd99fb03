"""Counting a user: what there is now, beside what was counted before, so that only what changed is looked at.

What an archive holds is kept in a file of the user, for archives stay as they are: entries of seven numbers (id, size,
time of last append, messages, times of the first and last message; CRC-32 of those), added at its end. It is derived
and may be removed at any time.
"""

import errno
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from potofs.backends.base import Archived, Scan, Stat, Totals, marks_of, up_to_error
from potofs.backends.filesystem import files
from potofs.backends.filesystem.conversations import Conversations
from potofs.backends.filesystem.index import Contents
from potofs.backends.filesystem.layout import FILE_MODE, Layout
from potofs.backends.filesystem.lock import UserLocks
from potofs.backends.filesystem.totals import (
    NO_FIGURES,
    Busy,
    Counted,
    Figures,
    TotalsFile,
    figures_of,
    fitting,
    noted,
)
from potofs.errors import DeadlineExceeded, NotFound, reason

log = logging.getLogger(__name__)

_ENTRY = struct.Struct("<6qI")
# Entries of archives that are gone, before the file is written anew.
_SPARE = 256
# Errors of a place that cannot be written to, is full, or has no locks of the kind that sums need.
_NOTHING_KEPT = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT),
    *(errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP),
)

#: What tells one state of an archive from another: id, size, time of last append.
_Key = tuple[int, int, int]
#: Messages, and when the first and the last was said.
_Held = tuple[int, int, int]


class Accounts:
    """What is counted of the users of one root; where `lock` is asked for, the caller holds it: the opened file."""

    def __init__(
        self,
        layout: Layout,
        conversations: Conversations,
        scan: Scan,
        locks: UserLocks,
        contents_of: Callable[[str], Contents | None],
    ) -> None:
        self._layout, self._conversations, self._scan = layout, conversations, scan
        self._locks, self._contents_of = locks, contents_of
        self.sums = TotalsFile(layout)
        # Users of whom nothing that was counted is believed.
        self._anew: set[str] = set()
        # Users whose last change may not have been counted for want of time; and of room, mostly.
        self._behind: set[str] = set()
        self._uncounted: set[str] = set()

    def count(
        self,
        user: str,
        lock: int,
        contents: Contents | None = None,
        archived: tuple[int, Figures] | None = None,
        *,
        wait: bool = True,
    ) -> None:
        """Counts a user anew, as far as that has changed; `contents`: of the running conversation, if known.

        `archived`: if nothing but one archive has come since their folder was in that state; what it has.
        Without `wait` nothing is counted that would have to be read for it: then the user `is_behind`.
        """
        anew = user in self._anew
        self._anew.discard(user)
        self._behind.discard(user)
        self._uncounted.discard(user)
        # What was done is done, and not undone because it cannot be counted: the next change counts it too.
        try:
            note = noted(lock, contents.noted if contents else None)
            before = note.counted if note else None
            archives_at = files.state(self._layout.archived(user))
            if contents is not None:
                state = contents.id, contents.size, archives_at
            else:
                state = *self._current(user), archives_at
            known = None if anew else before
            if anew:
                with suppress(FileNotFoundError):
                    os.unlink(self._layout.archive_index(user))
            if known is not None and known[1:4] == state:
                return
            if known is not None and known[1:3] == state[:2]:
                current = known.current
            elif contents is None and not state[1]:
                current = NO_FIGURES
            else:
                if contents is None:
                    self._before_reading(user, wait)
                    with _passing_over_no_file(user):
                        contents = self._contents_of(user)
                current = contents.figures() if contents else NO_FIGURES
            if known and known.archives_at == archives_at:
                archives = known.archives
            elif known and archived and known.archives_at == archived[0]:
                archives = known.archives.plus(archived[1])
            else:
                archives = self._archives(user, wait)
            number = before.number + 1 if before else 1
            note = self.sums.change(user, lock, before, Counted(number, *state, current, archives), wait=wait)
            if contents is not None:
                contents.noted = note
        except Busy:
            self._missed(user, anew)
        except OSError:
            self._uncounted.add(user)
            self._missed(user, anew)
        except Exception:
            # A message that is stored must not be reported as failed, whatever is wrong with figures.
            log.exception("user %r: what has changed could not be counted", user)
            self._missed(user, anew)

    def is_behind(self, user: str) -> bool:
        """Whether a change was not counted because it might not wait: so that the next one does."""
        return user in self._behind

    def _before_reading(self, user: str, wait: bool) -> None:
        if not wait:
            self._behind.add(user)
            raise Busy

    def _missed(self, user: str, anew: bool) -> None:
        if anew:
            self._anew.add(user)

    def count_at_rest(self, user: str) -> None:
        """Counts a user whose lock the caller does not hold."""
        # Whoever holds it for so long counts what it does.
        with suppress(DeadlineExceeded), self._locks.held(user, wait=True) as lock:
            self.count(user, lock)

    def totals(self, foreign_writers: bool) -> Totals:
        """Figures over all users; each is looked at only if somebody may have written who counts nothing.

        Raises OSError, DeadlineExceeded.
        """
        try:
            with files.naming(self._layout.totals):
                for user in [*self._behind, *self._uncounted]:
                    self.count_at_rest(user)
                if not self.sums.is_right():
                    self.recount()
                elif foreign_writers:
                    self._count_changed()
                if not self._uncounted:
                    return self.sums.totals()
        except OSError as error:
            if error.errno not in _NOTHING_KEPT:
                raise
        # Nothing can be stored: what would have been counted is read.
        return self.walked()

    def recount(self) -> None:
        """Makes the sums true again; raises OSError, DeadlineExceeded."""
        self._count_changed()
        self.sums.recount(self._conversations.users)

    def _count_changed(self) -> None:
        for user in self._conversations.users():
            if not self.is_counted(user):
                self.count_at_rest(user)

    def is_counted(self, user: str) -> bool:
        """Whether a user, whose lock nobody holds, has not changed since it was counted."""
        found = self.counted(user)
        return found is not None and found[1:4] == self.state(user)

    def state(self, user: str) -> tuple[int, int, int]:
        """What a user's counts are of: the running conversation's id and size, the state of the archives' folder."""
        return *self._current(user), files.state(self._layout.archived(user))

    def count_anew(self, user: str) -> None:
        """Has everything of a user, whose lock the caller holds, counted by the next `count`, whatever was before."""
        self._anew.add(user)

    def misled_by_index(self, user: str) -> str:
        """What is wrong with what is noted of the archives; empty if nothing is."""
        archives = self._conversations.archives(user)
        try:
            with files.FileReader(self._layout.archive_index(user)) as reader:
                data = reader.read_all()
        except FileNotFoundError:
            return "is missing" if archives else ""
        known = _held(data)
        if len(data) % _ENTRY.size or not all(map(_is_good, _entries(data))):
            return "has entries that are damaged or cut off"
        # What it lacks is read when it is needed: in a copy of the folder all archives have other numbers.
        noted = [archive for archive in archives if _key(archive.stat) in known]
        if any(known[_key(archive.stat)] != self.read(user, archive) for archive in noted):
            return "does not say what archives hold"
        return ""

    def counted(self, user: str) -> Counted | None:
        """What was counted of a user; None if that was never done."""
        try:
            descriptor = os.open(self._layout.lock(user), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            note = noted(descriptor)
            return note.counted if note else None
        finally:
            os.close(descriptor)

    def note(self, user: str, stat: Stat, figures: Figures) -> None:
        """Notes what a conversation holds that becomes an archive, so that it need not be read for that."""
        with suppress(OSError):
            self._add(user, {_key(stat): (figures.messages, figures.first_ns, figures.last_ns)})

    def walked(self) -> Totals:
        """The totals without any record: by reading everything."""
        users = 0
        found = NO_FIGURES
        for user in self._conversations.users():
            users += 1
            for held in self.walked_user(user):
                found = found.plus(held)
        return found.totals(users)

    def walked_user(self, user: str) -> tuple[Figures, Figures]:
        """What there is to be counted of a user, in the running conversation and in archives: by reading everything."""
        current = archives = NO_FIGURES
        with (
            _passing_over_no_file(user),
            suppress(NotFound),
            self._conversations.open(user, None) as reader,
        ):
            held = figures_of(marks_of(reader, self._scan))
            current = Figures(1, 0, held[0], reader.stored_size(), *held[1:])
        for archive in self._conversations.archives(user):
            in_archive = self.read(user, archive)
            if in_archive is not None:
                archives = archives.plus(Figures(0, 1, in_archive[0], archive.stored_size, *in_archive[1:]))
        return current, archives

    def _current(self, user: str) -> tuple[int, int]:
        """Id and size of the running conversation; 0 if there is none."""
        try:
            found = os.stat(self._layout.conversation(user, None))
        except FileNotFoundError:
            return 0, 0
        return (self._layout.number_of(found), found.st_size) if found.st_size else (0, 0)

    def _archives(self, user: str, wait: bool) -> Figures:
        if not wait and self._conversations.has_many_archives(user):
            self._before_reading(user, wait)
        known = self._known(user)
        archives = self._conversations.archives(user)
        live = {key: known[key] for key in (_key(archive.stat) for archive in archives) if key in known}
        total, new = NO_FIGURES, {}
        for archive in archives:
            key = _key(archive.stat)
            if key not in live:
                self._before_reading(user, wait)
                held = self.read(user, archive)
                if held is None:
                    continue
                new[key] = live[key] = held
            messages, first, last = live[key]
            total = total.plus(Figures(0, 1, messages, archive.stored_size, first, last))
        with suppress(OSError):
            if len(known) > 2 * len(live) + _SPARE:
                self._add(user, live, anew=True)
            elif new:
                self._add(user, new)
        return total

    def read(self, user: str, archive: Archived) -> _Held | None:
        """What an archive holds: messages, first and last time; None if it is gone."""
        try:
            with self._conversations.open(user, archive.name) as reader:
                # Of a damaged one what is before the damage: what is behind it nobody can say.
                return figures_of(up_to_error(marks_of(reader, self._scan)))
        except NotFound:
            return None
        except OSError:
            return figures_of(())

    def _known(self, user: str) -> dict[_Key, _Held]:
        with suppress(FileNotFoundError), files.FileReader(self._layout.archive_index(user)) as reader:
            return _held(reader.read_all())
        return {}

    def _add(self, user: str, held: dict[_Key, _Held], *, anew: bool = False) -> None:
        path = self._layout.archive_index(user)
        data = bytearray()
        for key, value in held.items():
            entry = _ENTRY.pack(*key, *value, 0)[:-4]
            data += entry + struct.pack("<I", zlib.crc32(entry))
        if anew:
            with suppress(FileNotFoundError):
                os.unlink(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, FILE_MODE)
        try:
            end = os.fstat(descriptor).st_size
            # A killed writer's half entry is written over.
            os.pwrite(descriptor, data, end - end % _ENTRY.size)
        finally:
            os.close(descriptor)


@contextmanager
def _passing_over_no_file(user: str) -> Iterator[None]:
    """Counts what is no file, as a link, as nothing: so one user is not in the way of all the others' figures."""
    try:
        yield
    except OSError as error:
        if error.errno not in files.NO_PLAIN_FILE:
            raise
        log.warning("user %r: the running conversation is not counted: %s", user, reason(error))


def _key(stat: Stat) -> _Key:
    # Its time may have been set to any.
    return stat[0], stat[1], fitting(stat[2])


def _held(data: bytes) -> dict[_Key, _Held]:
    found: dict[_Key, _Held] = {}
    for entry in filter(_is_good, _entries(data)):
        *numbers, _ = _ENTRY.unpack(entry)
        found[numbers[0], numbers[1], numbers[2]] = numbers[3], numbers[4], numbers[5]
    return found


def _is_good(entry: bytes) -> bool:
    return entry[-4:] == struct.pack("<I", zlib.crc32(entry[:-4]))


def _entries(data: bytes) -> Iterator[bytes]:
    return (data[at : at + _ENTRY.size] for at in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size))
