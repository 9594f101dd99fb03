"""The memory backend: conversations in this process, for development and tests; they end with it.

There is no archive. A conversation that reaches `maxConversationLength` forgets its oldest quarter and goes on as a new
generation, with a number of its own: whoever has the old one open reads it as it was.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from potofs import names, times
from potofs.backends.base import (
    RECORD_END,
    Appended,
    Archived,
    Backend,
    Capability,
    Fence,
    Fingerprint,
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
from potofs.backends.wording import no_user, not_found, nothing_aside, taken_aside
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
        self._look()

    def stat(self) -> Stat:
        return Stat(self.id, len(self.data), self.mtime_ns, self.ctime_ns)

    def append(self, records: Sequence[Record]) -> None:
        between = seam(bytes(self.data[-len(RECORD_END) :]))
        self.data += between + b"".join([record.data for record in records])
        if between:
            # What stood there without an end has one now, and only the bytes can say what that makes of it.
            self._look()
        else:
            self._count(record.mark for record in records)
        self.mtime_ns = self.ctime_ns = time.time_ns()

    def extend(self, data: bytes, mtime_ns: int) -> None:
        self.data += data
        # What stood there without an end may go on in what was added.
        self._look()
        self.mtime_ns, self.ctime_ns = mtime_ns, time.time_ns()

    def _look(self) -> None:
        """Counts what the bytes hold."""
        self.messages = 0
        #: What each message is known by.
        self.known: set[Fingerprint] = set()
        #: When the earliest and the latest of them was said; nothing if nobody can tell.
        self.said: list[int] = []
        self._count(self._scan(bytes(self.data)))

    def _count(self, marks: Iterable[Mark]) -> None:
        for mark in marks:
            self.messages += 1
            self.known.add(mark.fingerprint)
            if mark.time_ns is not None:
                self.said = [min([mark.time_ns, *self.said]), max([mark.time_ns, *self.said])]

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
        #: When it was written, or messages were forgotten; 0 if never.
        self.profile_changed = 0
        self.current: _Conversation | None = None
        self.set_aside: dict[str, _Conversation] = {}
        self.changed = time.time_ns()


class MemoryBackend(Backend):
    """Conversations in this process. One lock for all: nothing is done under it but copying bytes."""

    capabilities: frozenset[Capability] = frozenset()
    name = "memory"
    append_blocks = False

    def __init__(self, where: Where, scan: Scan) -> None:
        if where.place:
            raise ConfigError(f"{where}: memory has no place, write memory: alone")
        self.configured = self._settings = where.settings(MemorySettings)
        self.limits = self._settings.limits
        self._scan = scan
        self._lock = threading.RLock()
        self._users: dict[str, _User] = {}
        self._changed = 0
        self._fence = Fence()
        self._log = b""

    def prepare(self, *, create: bool) -> None:
        """Is always there."""

    # Users

    def users(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._users))

    def users_changed(self) -> int:
        return self._changed

    def has_user(self, user: str) -> bool:
        return self._found(user) is not None

    def create_user(self, user: str, profile: bytes) -> None:
        with self._lock:
            self._fence.check()
            if self._found(user) is not None:
                raise AlreadyExists(f"user {user!r} exists already")
            made = self._made(user)
            made.profile, made.profile_changed = profile, time.time_ns() if profile else 0

    def user_changed(self, user: str) -> int:
        found = self._found(user)
        return found.changed if found else 0

    def set_changed(self, user: str | None, when_ns: int) -> None:
        with self._lock:
            self._fence.check()
            if user is None:
                self._changed = when_ns
            else:
                self._known(user).changed = when_ns

    def read_profile(self, user: str) -> bytes:
        found = self._found(user)
        return found.profile if found else b""

    def profile_changed(self, user: str) -> int:
        found = self._found(user)
        return found.profile_changed if found else 0

    def put_profile(self, user: str, profile: bytes, mtime_ns: int) -> None:
        with self._lock:
            self._fence.check()
            found = self._known(user)
            found.profile, found.profile_changed = profile, mtime_ns

    def rewrite_profile(self, user: str, profile: bytes, *, was: bytes) -> bool:
        with self._lock:
            self._fence.check()
            found = self._found(user)
            if found is None or found.profile != was:
                return False
            found.profile, found.profile_changed = profile, time.time_ns()
            return True

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
            if data:
                found.current = _Conversation(self._scan, data, mtime_ns)
                found.changed = time.time_ns()

    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        with self._lock:
            self._fence.check()
            current = self._conversation(user, None)
            if current.stat()[:2] != seen[:2]:
                return False
            current.extend(data, mtime_ns)
            return True

    def clear(self, user: str) -> None:
        with self._lock:
            self._fence.check()
            self._conversation(user, None)
            self._forget(self._users[user], None)

    def archives(self, user: str) -> list[Archived]:
        self._found(user)
        return []

    # What could not become a message; no fence keeps anybody from setting it aside, or it would be lost

    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        with self._lock:
            if name is not None:
                self._fence.check()
                names.archive_file(name)  # Nothing is called what no file can be.
            found = self._made(user)
            if name is None:
                name = names.first_free(times.compact(time.time_ns()), found.set_aside.__contains__)
            now = time.time_ns()
            there = found.set_aside.get(name)
            if there is not None:
                if bytes(there.data) != data:
                    raise taken_aside(user, name)
                there.mtime_ns, there.ctime_ns = now if mtime_ns is None else mtime_ns, now
                return name
            found.set_aside[name] = _Conversation(lambda _: (), data, now if mtime_ns is None else mtime_ns)
            found.changed = now
            return name

    def set_asides(self, user: str) -> list[Archived]:
        with self._lock:
            found = self._found(user)
            kept = found.set_aside if found else {}
            return [Archived(name, kept[name].stat(), len(kept[name].data)) for name in kept]

    def open_set_aside(self, user: str, name: str) -> Reader:
        with self._lock:
            found = self._found(user)
            if found is None or name not in found.set_aside:
                raise nothing_aside(user, name)
            return _Reader(found.set_aside[name])

    def remove_set_aside(self, user: str, name: str) -> None:
        with self._lock:
            self._fence.check()
            found = self._found(user)
            if found is None or found.set_aside.pop(name, None) is None:
                raise nothing_aside(user, name)
            found.changed = time.time_ns()

    # The log of clean-ups

    def log_size(self) -> int:
        return len(self._log)

    def read_log(self, offset: int, size: int) -> bytes:
        return self._log[offset : offset + size]

    def append_log(self, line: bytes) -> None:
        with self._lock:
            self._log += line

    # Checking

    def rewrite(
        self,
        user: str,
        archive: str | None,
        seen: Stat,
        data: bytes,
        *,
        was: bytes | None = None,
        mtime_ns: int | None = None,
    ) -> bool:
        with self._lock:
            self._fence.check()
            current = self._conversation(user, archive)
            if current.stat()[:2] != seen[:2] or was not in (None, bytes(current.data)):
                return False
            found = self._users[user]
            when_ns = current.mtime_ns if mtime_ns is None else mtime_ns
            found.current = _Conversation(self._scan, data, when_ns) if data else None
            found.changed = time.time_ns()
            return True

    # The place

    def usage(self) -> Usage:
        used = -(-self.totals().bytes // _BLOCK)
        return Usage(_BLOCK, _BLOCKS, _BLOCKS - used, _BLOCKS - used)

    def totals(self) -> Totals:
        with self._lock:
            running = [user.current for user in self._users.values() if user.current is not None]
            said = [when for current in running for when in current.said]
            return Totals(
                users=len(self._users),
                conversations=len(running),
                archives=0,
                messages=sum(current.messages for current in running),
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

    def _found(self, user: str) -> _User | None:
        names.encode(user)  # Nobody may look for what no user can be called.
        return self._users.get(user)

    def _known(self, user: str) -> _User:
        found = self._found(user)
        if found is None:
            raise no_user(user)
        return found

    def _made(self, user: str) -> _User:
        found = self._found(user)
        if found is None:
            found = self._users[user] = _User(b"")
            self._changed = time.time_ns()
        return found

    def _conversation(self, user: str, archive: str | None) -> _Conversation:
        found = self._found(user)
        if archive is not None:
            raise NotFound(f"user {user!r} has no archive {archive!r}: this backend has no archival")
        if found is None or found.current is None:
            raise not_found(user, None)
        return found.current

    def _trim(self, user: _User, current: _Conversation) -> None:
        longest = self._settings.max_conversation_length
        if 0 < longest < current.messages:
            kept = current.newest(-(-longest * 3 // 4))
            # Nothing is forgotten where no message ends as records do: somebody else wrote them.
            if len(kept) < len(current.data):
                self._forget(user, _Conversation(self._scan, kept, current.mtime_ns))

    @staticmethod
    def _forget(user: _User, left: _Conversation | None) -> None:
        """Leaves a user only what is left of the running conversation: the figures are others now."""
        user.current = left
        user.changed = user.profile_changed = time.time_ns()
