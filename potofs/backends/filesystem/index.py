"""What an append has to know of a conversation that it does not read: how many messages, and which were given.

Derived from the bytes and caught up with them, whoever wrote them; dropped and made again at any time. Kept for the
users that appended last. All of it is used under the user's lock.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

from potofs.backends.base import RECORD_END, Fingerprint, Reader, Record, Scan

# Users whose conversations are remembered, those of the last appends (about 20 kB each).
_USERS = 2048


class Contents:
    """The messages of one conversation, up to the last record that ends."""

    def __init__(self, conversation: int) -> None:
        #: The conversation's id.
        self.id = conversation
        #: Bytes that are accounted for; a record ends there.
        self.covered = 0
        self.count = 0
        self.given: set[Fingerprint] = set()
        # The same for what follows `covered`: bytes without a terminator, which may be a message all the same.
        self._tail: list[Fingerprint] = []

    def catch_up(self, descriptor: int, scan: Scan) -> bool:
        """Takes in what was appended since; False if these are not the bytes it knows."""
        size = os.fstat(descriptor).st_size
        if size < self.covered:
            return False
        # One marker before the new bytes: it must still be where it was.
        start = max(0, self.covered - len(RECORD_END))
        data = _read(descriptor, start, size - start)
        if self.covered and not data.startswith(RECORD_END):
            return False
        new = data[self.covered - start :]
        end = 0 if not new else (new.rfind(RECORD_END) + len(RECORD_END) if RECORD_END in new else 0)
        self.count -= len(self._tail)
        self._tail = list(scan(new[end:]))
        whole = list(scan(new[:end]))
        self.covered += end
        self.count += len(whole) + len(self._tail)
        self.given.update(whole)
        return True

    def has(self, fingerprint: Fingerprint) -> bool:
        return fingerprint in self.given or fingerprint in self._tail

    def add(self, records: list[Record], size: int) -> None:
        """Accounts for records that were just appended; the conversation has `size` bytes now."""
        # What stood there without a terminator has one now.
        self.given.update(self._tail)
        self._tail = []
        self.given.update(record.fingerprint for record in records)
        self.count += len(records)
        self.covered = size


class _User:
    def __init__(self) -> None:
        self.current: Contents | None = None
        #: What the newest archive holds; None: not looked at yet.
        self.previous: set[Fingerprint] | None = None


class Index:
    """The contents of conversations in use; thread-safe as long as each user's lock is held."""

    def __init__(self, scan: Scan, open_newest_archive: Callable[[str], Reader | None]) -> None:
        self._scan = scan
        self._open_newest_archive = open_newest_archive
        self._guard = threading.Lock()
        self._users: OrderedDict[str, _User] = OrderedDict()

    def current(self, user: str, descriptor: int) -> Contents:
        """What the running conversation, opened as `descriptor`, holds now."""
        known = self._known(user)
        conversation = os.fstat(descriptor).st_ino
        contents = known.current
        if contents is None or contents.id != conversation or not contents.catch_up(descriptor, self._scan):
            contents = Contents(conversation)
            contents.catch_up(descriptor, self._scan)
            known.current, known.previous = contents, None
        return contents

    def was_archived(self, user: str, fingerprint: Fingerprint) -> bool:
        """Whether the newest archive holds a message."""
        known = self._known(user)
        if known.previous is None:
            known.previous = set()
            newest = self._open_newest_archive(user)
            if newest is not None:
                with newest:
                    known.previous.update(self._scan(newest.read_all()))
        return fingerprint in known.previous

    def archived(self, user: str) -> None:
        """The running conversation has just become the newest archive."""
        known = self._known(user)
        known.previous = known.current.given if known.current else None
        known.current = None

    def forget(self, user: str) -> None:
        """Drops what is known of a user: archives came or went."""
        with self._guard:
            self._users.pop(user, None)

    def _known(self, user: str) -> _User:
        with self._guard:
            known = self._users.setdefault(user, _User())
            self._users.move_to_end(user)
            if len(self._users) > _USERS:
                self._users.popitem(last=False)
            return known


def _read(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data
