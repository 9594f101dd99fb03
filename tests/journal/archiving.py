"""A backend with every capability and no place: the memory backend with archives beside its running conversations."""

import time

from potofs import config, names, times
from potofs.backends.base import Archived, Backend, Capability
from potofs.backends.memory import MemoryBackend, _Conversation
from potofs.errors import AlreadyExists, NotFound, Stale
from potofs.journal import reading


class ArchivingBackend(MemoryBackend):
    """Its methods are the contract's plainest reading, under the one lock of the memory backend."""

    capabilities = frozenset({Capability.ARCHIVAL, Capability.COMPRESSION})

    def __init__(self, options: str = "maxConversationLength=0") -> None:
        super().__init__(config.parse(f"memory:?{options}"), reading.marks)
        self.kept: dict[tuple[str, str], _Conversation] = {}
        self.compressed: set[tuple[str, str]] = set()

    def archives(self, user: str) -> list[Archived]:
        return [
            Archived(name, kept.stat(), self._stored_size(owner, name, len(kept.data)))
            for (owner, name), kept in list(self.kept.items())
            if owner == user
        ]

    def archive(
        self, user: str, name: str | None = None, *, idle_since_ns: int | None = None, wait: bool = True
    ) -> str:
        with self._lock:
            self.fence().check()
            current = self._conversation(user, None)
            if idle_since_ns is not None and current.mtime_ns > idle_since_ns:
                raise Stale(user)
            if name is None:
                name = names.first_free(times.compact(time.time_ns()), lambda name: (user, name) in self.kept)
            names.archive_file(name)
            self._keep(user, name, current)
            self._users[user].current = None
            return name

    def restore(self, user: str, archive: str, *, swap: bool = True) -> str | None:
        with self._lock:
            self.fence().check()
            restored = self._conversation(user, archive)
            swapped = None
            if self._users[user].current is not None:
                if not swap:
                    raise AlreadyExists(f"user {user!r} has a running conversation")
                swapped = self.archive(user)
            del self.kept[user, archive]
            self._users[user].current = restored
            return swapped

    def put_archive(self, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        with self._lock:
            self._made(user)
            self._keep(user, name, _Conversation(self._scan, data, mtime_ns))

    def compress(self, user: str, archive: str) -> int:
        with self._lock:
            self.fence().check()
            kept = self._conversation(user, archive)
            self.compressed.add((user, archive))
            return len(kept.data) - self._stored_size(user, archive, len(kept.data))

    def _stored_size(self, user: str, name: str, size: int) -> int:
        return size // 2 if (user, name) in self.compressed else size

    def _keep(self, user: str, name: str, conversation: _Conversation) -> None:
        if (user, name) in self.kept:
            raise AlreadyExists(f"user {user!r} has an archive {name!r} already")
        self.kept[user, name] = conversation

    def _conversation(self, user: str, archive: str | None) -> _Conversation:
        if archive is None:
            return super()._conversation(user, None)
        if (user, archive) not in self.kept:
            raise NotFound(f"user {user!r} has no archive {archive!r}")
        return self.kept[user, archive]


def everything(backend: Backend) -> dict[tuple[str, str | None], tuple[bytes, int, int]]:
    """All conversations of all users: bytes, time, bytes of storage."""
    found: dict[tuple[str, str | None], tuple[bytes, int, int]] = {}
    for user in backend.users():
        archives = {archive.name: archive.stored_size for archive in backend.archives(user)}
        for name in (None, *archives):
            try:
                with backend.open(user, name) as reader:
                    stored = archives[name] if name else reader.stat().size
                    found[user, name] = reader.read_all(), reader.stat().mtime_ns, stored
            except NotFound:
                continue
    return found
