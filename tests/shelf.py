"""A backend as a plug-in's author might write it: conversations on a shelf in this process, with archives.

What is on a shelf is there for whoever opens it by its name, as long as the process lives.
"""

import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from potofs import names, times
from potofs.backends.base import (
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
from potofs.config import ArchivingSettings, Where
from potofs.errors import AlreadyExists, NotFound, Stale

numbers = count(1)


class Item(Reader):
    """One conversation, or what was set aside; it goes wherever it is moved to."""

    def __init__(self, data: bytes, marks: Iterable[Mark], mtime_ns: int) -> None:
        self.id = next(numbers)
        #: Its bytes, and whether they are compressed: together, for nobody who reads takes a lock.
        self.kept = (data, False)
        self.marks = list(marks)
        self.mtime_ns, self.ctime_ns = mtime_ns, time.time_ns()

    @property
    def data(self) -> bytes:
        kept, is_packed = self.kept
        return zlib.decompress(kept) if is_packed else kept

    def stat(self) -> Stat:
        return Stat(self.id, len(self.data), self.mtime_ns, self.ctime_ns)

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    def close(self) -> None: ...


@dataclass
class User:
    profile: bytes = b""
    profile_changed: int = 0
    #: By name; None is the running one.
    items: dict[str | None, Item] = field(default_factory=dict)
    asides: dict[str, Item] = field(default_factory=dict)
    changed: int = field(default_factory=time.time_ns)


@dataclass
class Shelf:
    users: dict[str, User] = field(default_factory=dict)
    fence: Fence = field(default_factory=Fence)
    log: bytes = b""
    changed: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)


shelves: defaultdict[str, Shelf] = defaultdict(Shelf)


class ShelfBackend(Backend):
    """Conversations on the shelf that is called `where.place`."""

    capabilities = frozenset({Capability.PERSISTENCE, Capability.ARCHIVAL, Capability.COMPRESSION})

    def __init__(self, where: Where, scan: Scan) -> None:
        self.settings = where.settings(ArchivingSettings)
        self.scan = scan
        self.shelf = shelves[where.place]
        self.lock = self.shelf.lock

    def prepare(self, *, create: bool) -> None:
        """A shelf is there as soon as somebody speaks of it."""

    # Users

    def users(self) -> Iterator[str]:
        return iter(list(self.shelf.users))

    def users_changed(self) -> int:
        return self.shelf.changed

    def has_user(self, user: str) -> bool:
        names.encode(user)
        return user in self.shelf.users

    def create_user(self, user: str, profile: bytes) -> None:
        with self.lock:
            self.shelf.fence.check()
            if self.has_user(user):
                raise AlreadyExists(user)
            self.made(user).profile = profile
            self.made(user).profile_changed = time.time_ns()

    def set_changed(self, user: str | None, when_ns: int) -> None:
        with self.lock:
            self.shelf.fence.check()
            if user is None:
                self.shelf.changed = when_ns
            else:
                self.known(user).changed = when_ns

    def user_changed(self, user: str) -> int:
        return self.shelf.users[user].changed if self.has_user(user) else 0

    def read_profile(self, user: str) -> bytes:
        return self.shelf.users[user].profile if self.has_user(user) else b""

    def profile_changed(self, user: str) -> int:
        return self.shelf.users[user].profile_changed if self.has_user(user) else 0

    def put_profile(self, user: str, profile: bytes, mtime_ns: int) -> None:
        with self.lock:
            self.shelf.fence.check()
            found = self.known(user)
            found.profile, found.profile_changed = profile, mtime_ns

    # Conversations

    def stat(self, user: str, archive: str | None = None) -> Stat:
        return self.item(user, archive).stat()

    def open(self, user: str, archive: str | None = None) -> Reader:
        return self.item(user, archive)

    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        with self.changing(user) as found:
            archives = [(item.mtime_ns, name) for name, item in found.items.items() if name is not None]
            item = found.items.get(None)
            recent = [one for one in (item, found.items[max(archives)[1]] if archives else None) if one]
            known = {mark.fingerprint for one in recent for mark in one.marks}
            fresh = new_ones(records, lambda record: record.mark.fingerprint in known)
            if fresh:
                item = item or self.put(found, None, Item(b"", (), 0))
                between = seam(item.data)
                item.kept = (item.data + between + b"".join(record.data for record in fresh), False)
                item.marks += [record.mark for record in fresh]
                if between:
                    item.marks = list(self.scan(item.data))
                item.mtime_ns = item.ctime_ns = time.time_ns()
            is_due = item is not None and 0 < self.settings.archive_at <= len(item.marks)
            return Appended(len(fresh), self.archive(user) if is_due else None)

    def sync(self, user: str) -> None:
        """Nothing is durable here."""

    def set_times(self, user: str, archive: str | None, mtime_ns: int) -> None:
        item = self.item(user, archive)
        with self.changing(user):
            item.mtime_ns, item.ctime_ns = mtime_ns, time.time_ns()

    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        with self.changing(user) as found:
            if None in found.items:
                raise AlreadyExists(f"{user!r} has a running conversation")
            if data:
                self.put(found, None, Item(data, self.scan(data), mtime_ns))

    # Archives

    def archives(self, user: str) -> list[Archived]:
        found = self.shelf.users[user].items if self.has_user(user) else {}
        return [Archived(name, item.stat(), len(item.kept[0])) for name, item in found.items() if name is not None]

    def archive(
        self, user: str, name: str | None = None, *, idle_since_ns: int | None = None, wait: bool = True
    ) -> str:
        if name is not None:
            names.archive_file(name)
        self.item(user, None)
        with self.changing(user) as found:
            if idle_since_ns is not None and self.item(user, None).mtime_ns > idle_since_ns:
                raise Stale(user)
            new = name if name is not None else self.present(found.items)
            self.move(found, None, new)
            return new

    def restore(self, user: str, archive: str, *, swap: bool = True) -> str | None:
        item = self.item(user, archive)
        with self.changing(user) as found:
            running = None in found.items
            if running and not swap:
                raise AlreadyExists(f"{user!r} has a running conversation")
            swapped = self.archive(user) if running else None
            item.kept = (item.data, False)
            self.move(found, archive, None)
            return swapped

    def rename_archive(self, user: str, archive: str, name: str) -> None:
        names.archive_file(name)
        self.item(user, archive)
        with self.changing(user) as found:
            self.move(found, archive, name)

    def put_archive(self, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        with self.changing(user) as found:
            self.put(found, name, Item(data, self.scan(data), mtime_ns))

    def compress(self, user: str, archive: str) -> int:
        item = self.item(user, archive)
        with self.changing(user):
            before, is_packed = item.kept
            packed = before if is_packed else zlib.compress(before)
            if len(packed) < len(before):
                item.kept = (packed, True)
            return len(before) - len(item.kept[0])

    # What could not become a message

    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        with self.lock:
            if name is not None:
                self.shelf.fence.check()
                names.archive_file(name)
            found = self.made(user)
            there = found.asides.get(name or "")
            if there is not None and bytes(there.data) == data:
                there.mtime_ns = time.time_ns() if mtime_ns is None else mtime_ns
                return str(name)
            if there is not None:
                raise AlreadyExists(f"{name!r} was set aside already")
            name = name or self.present(found.asides)
            found.asides[name] = Item(data, (), time.time_ns() if mtime_ns is None else mtime_ns)
            found.changed = time.time_ns()
            return name

    def set_asides(self, user: str) -> list[Archived]:
        found = self.shelf.users[user].asides if self.has_user(user) else {}
        return [Archived(name, item.stat(), len(item.data)) for name, item in found.items()]

    def open_set_aside(self, user: str, name: str) -> Reader:
        if not self.has_user(user) or name not in self.shelf.users[user].asides:
            raise NotFound(f"{user!r} {name!r}")
        return self.shelf.users[user].asides[name]

    def remove_set_aside(self, user: str, name: str) -> None:
        with self.lock:
            self.shelf.fence.check()
            self.open_set_aside(user, name)
            del self.shelf.users[user].asides[name]

    def rewrite_profile(self, user: str, profile: bytes, *, was: bytes) -> bool:
        with self.changing(user) as found:
            if found.profile != was:
                return False
            found.profile = profile
            return True

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
        item = self.item(user, archive)
        with self.changing(user) as found:
            if item.stat()[:2] != seen[:2] or was not in (None, item.data):
                return False
            del found.items[archive]
            if data or archive is not None:
                self.put(found, archive, Item(data, self.scan(data), item.mtime_ns if mtime_ns is None else mtime_ns))
            return True

    # The place

    def log_size(self) -> int:
        return len(self.shelf.log)

    def read_log(self, offset: int, size: int) -> bytes:
        return self.shelf.log[offset : offset + size]

    def append_log(self, line: bytes) -> None:
        with self.lock:
            self.shelf.log += line

    def usage(self) -> Usage:
        return Usage(1, 1 << 40, 1 << 39, 1 << 39)

    def totals(self) -> Totals:
        with self.lock:
            kept = [entry for user in self.shelf.users.values() for entry in user.items.items()]
            marks = [mark for _, item in kept for mark in item.marks]
            said = [mark.time_ns for mark in marks if mark.time_ns is not None]
            running = sum(name is None for name, _ in kept)
            size = sum(len(item.kept[0]) for _, item in kept)
            first, last = min(said, default=None), max(said, default=None)
            return Totals(len(self.shelf.users), running, len(kept) - running, len(marks), size, first, last)

    def fence(self) -> Fence:
        return self.shelf.fence

    def set_fence(self, fence: Fence) -> None:
        with self.lock:
            self.shelf.fence = fence

    # Inside

    def known(self, user: str) -> User:
        if not self.has_user(user):
            raise NotFound(user)
        return self.shelf.users[user]

    def made(self, user: str) -> User:
        if not self.has_user(user):
            self.shelf.users[user] = User()
            self.shelf.changed = time.time_ns()
        return self.shelf.users[user]

    @contextmanager
    def changing(self, user: str) -> Iterator[User]:
        """Holds the lock while a user's conversations change."""
        with self.lock:
            self.shelf.fence.check()
            yield self.made(user)

    def item(self, user: str, archive: str | None) -> Item:
        if not self.has_user(user) or archive not in self.shelf.users[user].items:
            raise NotFound(f"{user!r} {archive!r}")
        return self.shelf.users[user].items[archive]

    def present(self, taken: Container[str | None]) -> str:
        return names.first_free(times.compact(time.time_ns()), taken.__contains__)

    def put(self, user: User, name: str | None, item: Item) -> Item:
        """Puts something in a free place; every conversation gets its name here."""
        if name is not None:
            names.archive_file(name)
        if name in user.items:
            raise AlreadyExists(f"there is {name!r} already")
        user.items[name] = item
        user.changed = item.ctime_ns = time.time_ns()
        return item

    def move(self, user: User, old: str | None, new: str | None) -> None:
        self.put(user, new, user.items[old])
        del user.items[old]
