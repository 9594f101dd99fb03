"""What an append has to know of a conversation that it does not read: how many messages, and which were given.

Derived from the bytes and caught up with them, whoever wrote them; dropped and made again at any time. Kept for the
users that appended last. All of it is used under the user's lock, but for what is looked at ahead: what a copy holds is
known before it is stored, for nobody else can write while a long one is read.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from potofs.backends.base import (
    PIECE,
    RECORD_END,
    Fingerprint,
    Mark,
    Reader,
    Record,
    Scan,
    marks_of,
    seam,
    up_to_error,
    whole_records,
)
from potofs.backends.filesystem.files import NumberOf
from potofs.backends.filesystem.sidecar import Kept, Sidecar
from potofs.backends.filesystem.totals import Figures, Note, figures_of
from potofs.errors import NotFound, WouldBlock

# Users whose conversations are remembered, those of the last appends (about 20 kB each).
_USERS = 2048
# How much is read while others wait for it (bytes); it takes a millisecond or so.
_QUICKLY_READ = 1 << 14
# How many of the bytes accounted for have to be where they were: enough to hold a timestamp.
_SEEN = 512
# After how many new messages what is known is kept on disk; shorter conversations are read as quickly.
_KEPT_EVERY = 256


class Contents:
    """The messages of one conversation, up to the last record that ends."""

    def __init__(self, conversation: int, scan: Scan, sidecar: Sidecar) -> None:
        self._scan = scan
        self._sidecar = sidecar
        # What was given since it was kept last, and up to where that was.
        self._unkept: list[Fingerprint] = []
        self._kept_until = 0
        #: The conversation's id.
        self.id = conversation
        #: Bytes that are accounted for; a record ends there.
        self.covered = 0
        self.count = 0
        self.given: set[Fingerprint] = set()
        #: What was counted of the user when this was looked at last.
        self.noted: Note | None = None
        #: Whether this process has made the file's name durable.
        self.is_named = False
        # The last of the bytes that are accounted for: an inode number may come again, with other bytes.
        self._seen = b""
        #: What follows `covered`: bytes without a terminator, which may be a message all the same.
        self.tail = b""
        self._in_tail: list[Mark] = []
        # When the first and the last message was said that is covered.
        _, self._first_ns, self._last_ns = figures_of(())

    @property
    def size(self) -> int:
        """Bytes of the conversation, as far as it was looked at."""
        return self.covered + len(self.tail)

    def figures(self) -> Figures:
        """What is counted of it as a running conversation."""
        if not self._in_tail:
            return Figures._make((1, 0, self.count, self.size, self._first_ns, self._last_ns))
        _, first, last = figures_of(self._in_tail)
        return Figures(1, 0, self.count, self.size, min(first, self._first_ns), max(last, self._last_ns))

    def recall(self) -> None:
        """Takes over what is kept on disk; the bytes have yet to say whether it is true."""
        with suppress(OSError):
            loaded = self._sidecar.load(self.id)
            if loaded is not None:
                kept, self.given = loaded
                self.covered = self._kept_until = kept.covered
                self.count, self._first_ns, self._last_ns = kept.messages, kept.first_ns, kept.last_ns
                self._seen = kept.seen

    def keep(self) -> None:
        """Keeps on disk what is known, if much has come since."""
        if len(self._unkept) < _KEPT_EVERY:
            return
        # Chunks hold fingerprints of one size.
        sizes = {len(fingerprint) for fingerprint in self._unkept} | {len(next(iter(self.given)))}
        messages = self.count - len(self._in_tail)
        kept = Kept(self.id, self.covered, messages, self._first_ns, self._last_ns, self._seen)
        # An append does not fail for what is only a help.
        with suppress(OSError):
            if len(sizes) == 1 and not self._sidecar.add(self._kept_until, kept, self._unkept):
                self._sidecar.replace(kept, list(self.given))
        self._unkept, self._kept_until = [], self.covered

    def catch_up(self, descriptor: int) -> bool:
        """Takes in what was appended since; False if these are not the bytes it knows."""
        return self.take_in(partial(_read, descriptor), os.fstat(descriptor).st_size)

    def take_in(self, read: Callable[[int, int], bytes], size: int) -> bool:
        """The same of whatever `read` gives, asked for an offset and a size, which are `size` bytes in all."""
        if size < self.covered:
            return False
        start = self.covered - len(self._seen)
        data = read(start, min(size - start, PIECE))
        if not data.startswith(self._seen):
            return False
        new = data[len(self._seen) :]
        if not new and not self.tail:
            return True  # As nearly always.
        self.count -= len(self._in_tail)
        self.tail = b""
        if start + len(data) >= size:
            pieces: Iterable[bytes] = [new]
        else:
            pieces = whole_records(read, self.covered, size)
        for piece in pieces:
            end = piece.rfind(RECORD_END) + len(RECORD_END) if RECORD_END in piece else 0
            self._take(list(self._scan(piece[:end])), piece[:end])
            # There is one behind the last piece only.
            self.tail = piece[end:]
        self._in_tail = list(self._scan(self.tail))
        self.count += len(self._in_tail)
        return True

    def last(self) -> bytes:
        """The last of the bytes that were looked at: enough of them to tell these from others."""
        return self._seen + self.tail

    def has(self, fingerprint: Fingerprint) -> bool:
        return fingerprint in self.given or fingerprint in [mark.fingerprint for mark in self._in_tail]

    def fingerprints(self) -> set[Fingerprint]:
        """Those of all its messages; it is not to be used any more."""
        self.given.update(mark.fingerprint for mark in self._in_tail)
        return self.given

    def is_cut_off(self, record: Record) -> bool:
        """Whether the tail is this very record as far as it was written: all that tells it apart, and not all of it."""
        return (
            record.retry
            and 0 < len(self.tail) < len(record.data) - len(RECORD_END[1:])
            and record.data.startswith(self.tail)
            and list(self._scan(self.tail + seam(self.tail))) == [record.mark]
        )

    def add(self, records: list[Record], data: bytes) -> None:
        """Accounts for records that were just appended, as `data`, right behind what is covered."""
        self._take([record.mark for record in records], data)

    def _take(self, marks: list[Mark], data: bytes) -> None:
        count, first, last = figures_of(marks)
        fingerprints = [mark.fingerprint for mark in marks]
        self.given.update(fingerprints)
        self._unkept += fingerprints
        self.count += count
        self._first_ns, self._last_ns = min(self._first_ns, first), max(self._last_ns, last)
        self.covered += len(data)
        self._seen = (self._seen + data[-_SEEN:])[-_SEEN:]


#: When an archive was appended to last (nanoseconds since 1970), and its name: the newest has the largest.
Appended = tuple[int, str]


class Ahead(NamedTuple):
    """What a conversation will hold, found out before it does."""

    #: Bytes that it has until then, and the last of them.
    size: int
    last: bytes
    contents: Contents

    def fits(self, descriptor: int) -> bool:
        """Whether a conversation, opened, is as it was when this was found out."""
        found = os.fstat(descriptor).st_size
        return found == self.size and _read(descriptor, found - len(self.last), len(self.last)) == self.last


class _User:
    def __init__(self) -> None:
        self.current: Contents | None = None
        #: Which archive is the newest, if there is one, and what it holds.
        self.newest: Appended | None = None
        self.previous: set[Fingerprint] = set()
        #: The state of the archives' folder then; None: not looked at yet.
        self.previous_at: int | None = None


class Index:
    """The contents of conversations in use; thread-safe as long as each user's lock is held."""

    def __init__(
        self,
        scan: Scan,
        open_newest_archive: Callable[[str], tuple[Appended, Reader] | None],
        has_many_archives: Callable[[str], bool],
        state_of_archives: Callable[[str], int],
        sidecar_of: Callable[[str], str],
        number_of: NumberOf,
    ) -> None:
        self._sidecar_of = sidecar_of
        self._number_of = number_of
        self._scan = scan
        self._open_newest_archive = open_newest_archive
        self._has_many_archives = has_many_archives
        self._state_of_archives = state_of_archives
        self._guard = threading.Lock()
        self._users: OrderedDict[str, _User] = OrderedDict()

    def current(self, user: str, descriptor: int, *, wait: bool = True) -> Contents:
        """What the running conversation, opened as `descriptor`, holds now; raises WouldBlock before a long read."""
        known = self._known(user)
        found = os.fstat(descriptor)
        conversation = self._number_of(found)
        contents = known.current
        _refuse_long_read(user, found.st_size - (contents.covered if contents else 0), wait)
        if contents is None or contents.id != conversation or not contents.catch_up(descriptor):
            contents = self._new(user, conversation)
            contents.recall()
            if not contents.catch_up(descriptor):
                contents = self._new(user, conversation)
                contents.catch_up(descriptor)
            contents.keep()
            if known.current is not None:
                known.previous_at = None
            known.current = contents
        return contents

    def of_copy(self, user: str, descriptor: int) -> Contents:
        """What a file holds that is to become a conversation; without the lock."""
        contents = self._new(user, self._number_of(os.fstat(descriptor)))
        contents.catch_up(descriptor)
        return contents

    def once_added(self, user: str, descriptor: int, size: int, data: bytes) -> Ahead | None:
        """What the running conversation, opened, will hold once bytes are added to the first `size` that it has.

        Without the lock; None if it has not so many.
        """
        contents = self._new(user, self._number_of(os.fstat(descriptor)))
        contents.recall()
        read = partial(_read, descriptor)
        if not contents.take_in(read, size):
            contents = self._new(user, contents.id)
            contents.take_in(read, size)
        if contents.size != size:
            return None
        last = contents.last()

        def read_both(offset: int, wanted: int) -> bytes:
            if offset >= size:
                return data[offset - size : offset - size + wanted]
            there = _read(descriptor, offset, min(wanted, size - offset))
            return there + data[: wanted - len(there)]

        contents.take_in(read_both, size + len(data))
        return Ahead(size, last, contents)

    def adopt(self, user: str, contents: Contents) -> None:
        """Takes it that the running conversation holds what was found out about it ahead."""
        known = self._known(user)
        if known.current is not None and known.current.id == contents.id:
            contents.is_named |= known.current.is_named
        elif known.current is not None:
            known.previous_at = None
        known.current = contents
        contents.keep()

    def _new(self, user: str, conversation: int) -> Contents:
        return Contents(conversation, self._scan, Sidecar(self._sidecar_of(user)))

    def was_archived(self, user: str, fingerprint: Fingerprint, *, wait: bool = True) -> bool:
        """Whether the newest archive holds a message; raises WouldBlock before a long read, or a look at many."""
        known = self._known(user)
        # Archives come from other servers too.
        state = self._state_of_archives(user)
        if known.previous_at != state:
            if not wait and self._has_many_archives(user):
                raise WouldBlock(f"user {user!r}: the newest of many archives has to be looked for")
            opened = self._open_newest_archive(user)
            known.newest, known.previous = None, set()
            if opened is not None:
                known.newest, newest = opened
                with newest:
                    _refuse_long_read(user, newest.stat().size, wait)
                    # What cannot be read of it keeps nobody from going on.
                    known.previous.update(mark.fingerprint for mark in up_to_error(marks_of(newest, self._scan)))
            known.previous_at = state
        return fingerprint in known.previous

    def archived(self, user: str, state_before: int, archive: Appended) -> None:
        """Takes it that the running conversation as it is known has become an archive, and nothing else has changed.

        So the next append need not look for the newest archive among all, and read it; `state_before`: that of
        their folder until then.
        """
        known = self._known(user)
        contents = known.current
        is_newest = known.previous_at == state_before and (known.newest is None or known.newest < archive)
        if contents is None or not is_newest:
            self.forget(user)
            return
        known.current = None
        known.newest, known.previous = archive, contents.fingerprints()
        known.previous_at = self._state_of_archives(user)

    def copied(self, user: str, state_before: int, archive: Appended, contents: Contents) -> None:
        """Takes it that an archive has come that holds this, and nothing else has changed.

        So the next append need not read it if it is the newest; `state_before` as for `archived`.
        """
        known = self._known(user)
        if known.previous_at != state_before:
            known.previous_at = None
            opened = None
            # What is stored does not fail for what is only a help.
            with suppress(OSError, NotFound):
                opened = self._open_newest_archive(user)
            if opened is None:
                return
            known.newest, newest = opened
            newest.close()
            if known.newest != archive:
                return
            known.previous = contents.fingerprints()
        elif known.newest is None or known.newest < archive:
            known.newest, known.previous = archive, contents.fingerprints()
        known.previous_at = self._state_of_archives(user)

    def forget(self, user: str) -> None:
        """Drops what is known of a user: conversations came or went."""
        with self._guard:
            self._users.pop(user, None)

    def _known(self, user: str) -> _User:
        with self._guard:
            known = self._users.setdefault(user, _User())
            self._users.move_to_end(user)
            if len(self._users) > _USERS:
                self._users.popitem(last=False)
            return known


def _refuse_long_read(user: str, size: int, wait: bool) -> None:
    if size > _QUICKLY_READ and not wait:
        raise WouldBlock(f"user {user!r}: a long conversation has to be read first")


def _read(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data
