"""The memory backend: conversations in this process, for development and tests; they end with it.

There is no archive. A conversation that reaches `maxConversationLength` forgets its oldest quarter and goes on as a new
generation, with a number of its own: whoever has the old one open reads it as it was.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count

from potofs import names, times
from potofs.backends.base import (
    RECORD_END,
    Appended,
    Archived,
    Backend,
    Capability,
    Fence,
    Mark,
    Reader,
    Record,
    Scan,
    Stat,
    Totals,
    Usage,
    new_ones,
    seam,
)
from potofs.config import MemorySettings, Where
from potofs.errors import AlreadyExists, ConfigError, NotFound

_BLOCK = 4096
# What `df` is told: as much as any process may have.
_BLOCKS = 1 << 28

# Numbers of conversations of all backends in this process.
_numbers = count(2)


class _Conversation:
    """One generation of a running conversation: bytes that only grow."""

    def __init__(self, scan: Scan, data: bytes, mtime_ns: int) -> None:
        self._scan = scan
        self.id = next(_numbers)
        self.data = bytearray(data)
        self.mtime_ns = self.ctime_ns = mtime_ns
        #: What each message is known by, in order.
        self.marks: list[Mark] = list(scan(data))
        self.known = {mark.fingerprint for mark in self.marks}

    def stat(self) -> Stat:
        return Stat(self.id, len(self.data), self.mtime_ns, self.ctime_ns)

    def append(self, records: Sequence[Record]) -> None:
        between = seam(bytes(self.data[-len(RECORD_END) :]))
        self.data += between
        for record in records:
            self.data += record.data
        if between:
            # What stood there without an end has one now, and only the bytes can say what that makes of it.
            self.marks = list(self._scan(bytes(self.data)))
            self.known = {mark.fingerprint for mark in self.marks}
        else:
            self.marks += [record.mark for record in records]
            self.known.update(record.mark.fingerprint for record in records)
        self.mtime_ns = self.ctime_ns = time.time_ns()

    def newest(self, messages: int) -> bytes:
        """The bytes of the newest messages, at least so many of them."""
        at = len(self.data)
        for _ in range(messages + 1):
            at = self.data.rfind(RECORD_END, 0, at)
            if at < 0:
                return bytes(self.data)
        return bytes(self.data[at + len(RECORD_END) :])


class _Reader(Reader):
    """A generation, or bytes that were set aside."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation

    def stat(self) -> Stat:
        return self._conversation.stat()

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._conversation.data[offset : offset + size])

    def close(self) -> None: ...


class _User:
    def __init__(self, profile: bytes) -> None:
        self.profile = profile
        self.current: _Conversation | None = None
        self.set_aside: dict[str, _Conversation] = {}
        self.changed = time.time_ns()


class MemoryBackend(Backend):
    """Conversations in this process. One lock for all: nothing is done under it but copying bytes."""

    capabilities: frozenset[Capability] = frozenset()
    append_blocks = False

    def __init__(self, where: Where, scan: Scan) -> None:
        if where.place:
            raise ConfigError(f"{where}: memory has no place, write memory: alone")
        self._settings = where.settings(MemorySettings)
        self._scan = scan
        self._lock = threading.RLock()
        self._users: dict[str, _User] = {}
        self._changed = 0
        self._fence = Fence()

    def prepare(self, *, create: bool) -> None:
        """Is always there."""

    # Users

    def users(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._users))

    def users_changed(self) -> int:
        return self._changed

    def has_user(self, user: str) -> bool:
        names.encode(user)
        return user in self._users

    def create_user(self, user: str, profile: bytes) -> None:
        names.encode(user)
        with self._lock:
            self._fence.check()
            if user in self._users:
                raise AlreadyExists(f"user {user!r} exists already")
            self._users[user] = _User(profile)
            self._changed = time.time_ns()

    def user_changed(self, user: str) -> int:
        found = self._users.get(user)
        return found.changed if found else 0

    def read_profile(self, user: str) -> bytes:
        found = self._users.get(user)
        return found.profile if found else b""

    # Conversations

    def stat(self, user: str, archive: str | None = None) -> Stat:
        with self._lock:
            return self._conversation(user, archive).stat()

    def open(self, user: str, archive: str | None = None) -> Reader:
        with self._lock:
            return _Reader(self._conversation(user, archive))

    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        with self._lock:
            self._fence.check()
            found = self._made(user)
            current = found.current
            fresh = new_ones(records, lambda record: current is not None and record.mark.fingerprint in current.known)
            if fresh:
                if current is None:
                    current = found.current = _Conversation(self._scan, b"", time.time_ns())
                    found.changed = current.ctime_ns
                current.append(fresh)
                self._trim(found, current)
            return Appended(len(fresh), None)

    def sync(self, user: str) -> None:
        """Nothing is durable here."""

    def set_times(self, user: str, archive: str | None, mtime_ns: int) -> None:
        with self._lock:
            self._fence.check()
            current = self._conversation(user, archive)
            current.mtime_ns, current.ctime_ns = mtime_ns, time.time_ns()

    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        with self._lock:
            self._fence.check()
            found = self._made(user)
            if found.current is not None:
                raise AlreadyExists(f"user {user!r} has a running conversation already; nothing is replaced")
            found.current = _Conversation(self._scan, data, mtime_ns)
            found.changed = time.time_ns()

    def clear(self, user: str) -> None:
        with self._lock:
            self._fence.check()
            self._conversation(user, None)
            self._users[user].current = None
            self._users[user].changed = time.time_ns()

    # What could not become a message

    def set_aside(self, user: str, data: bytes) -> str:
        with self._lock:
            found = self._made(user)
            name = names.first_free(times.compact(time.time_ns()), found.set_aside.__contains__)
            found.set_aside[name] = _Conversation(lambda _: (), data, time.time_ns())
            found.changed = time.time_ns()
            return name

    def set_asides(self, user: str) -> list[Archived]:
        with self._lock:
            found = self._users.get(user)
            kept = found.set_aside if found else {}
            return [Archived(name, kept[name].stat(), len(kept[name].data)) for name in kept]

    def open_set_aside(self, user: str, name: str) -> Reader:
        with self._lock:
            found = self._users.get(user)
            if found is None or name not in found.set_aside:
                raise NotFound(f"nothing of user {user!r} was set aside as {name!r}")
            return _Reader(found.set_aside[name])

    def remove_set_aside(self, user: str, name: str) -> None:
        with self._lock:
            found = self._users.get(user)
            if found is None or found.set_aside.pop(name, None) is None:
                raise NotFound(f"nothing of user {user!r} was set aside as {name!r}")
            found.changed = time.time_ns()

    # Checking

    def rewrite(self, user: str, archive: str | None, seen: Stat, data: bytes) -> bool:
        with self._lock:
            self._fence.check()
            current = self._conversation(user, archive)
            if current.stat()[:2] != seen[:2]:
                return False
            found = self._users[user]
            found.current = _Conversation(self._scan, data, current.mtime_ns) if data else None
            found.changed = time.time_ns()
            return True

    # The place

    def usage(self) -> Usage:
        used = -(-self.totals().bytes // _BLOCK)
        return Usage(_BLOCK, _BLOCKS, _BLOCKS - used, _BLOCKS - used)

    def totals(self) -> Totals:
        with self._lock:
            running = [user.current for user in self._users.values() if user.current is not None]
            said = [mark.time_ns for current in running for mark in current.marks if mark.time_ns is not None]
            return Totals(
                users=len(self._users),
                conversations=len(running),
                archives=0,
                messages=sum(len(current.marks) for current in running),
                bytes=sum(len(current.data) for current in running),
                first_ns=min(said, default=None),
                last_ns=max(said, default=None),
            )

    def fence(self) -> Fence:
        return self._fence

    def set_fence(self, fence: Fence) -> None:
        with self._lock:
            self._fence = fence

    # Inside; the caller holds the lock

    def _made(self, user: str) -> _User:
        if user not in self._users:
            self.create_user(user, b"")
        return self._users[user]

    def _conversation(self, user: str, archive: str | None) -> _Conversation:
        found = self._users.get(user)
        if archive is not None:
            raise NotFound(f"user {user!r} has no archive {archive!r}: this backend has no archival")
        if found is None or found.current is None:
            raise NotFound(f"user {user!r} has no running conversation")
        return found.current

    def _trim(self, user: _User, current: _Conversation) -> None:
        longest = self._settings.max_conversation_length
        if 0 < longest < len(current.marks):
            user.current = _Conversation(self._scan, current.newest(-(-longest * 3 // 4)), current.mtime_ns)
            user.changed = time.time_ns()
