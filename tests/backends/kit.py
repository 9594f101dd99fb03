"""What the tests of backends share: records, and how each backend is opened at a place."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from potofs.backends.base import RECORD_END, Backend, Record
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.backends.redis.backend import RedisBackend
from potofs.config import Where
from potofs.errors import NotFound
from potofs.journal import admission, reading
from potofs.journal.message import ChatMessage
from tests import redis_servers

#: Opens a backend at a place; settings by the configuration file's names.
Opener = Callable[..., Backend]


#: Backends that a test has opened; each holds its place, which cannot be unmounted before.
_opened: list[Backend] = []


def open_filesystem(place: Path, **options: str) -> FilesystemBackend:
    backend = FilesystemBackend(Where("file", str(place / "journal"), options), reading.marks)
    # Where nothing can be made, what is there has to do.
    backend.prepare(create=not place.exists() or os.access(place, os.W_OK))
    _opened.append(backend)
    return backend


def close_all() -> None:
    """Closes every backend that a test has opened."""
    while _opened:
        _opened.pop().close()


def open_redis(place: Path, **options: str) -> RedisBackend:
    """On the shared server, under a prefix of its own."""
    return open_redis_at("redis", redis_servers.shared().place, place, **options)


def open_redis_at(scheme: str, servers: str, place: Path, **options: str) -> RedisBackend:
    """On other servers."""
    # Durability is theirs.
    options = {"keyPrefix": f"{place}:"} | {name: value for name, value in options.items() if name != "fsync"}
    backend = RedisBackend(Where(scheme, servers, options), reading.marks)
    backend.prepare(create=True)
    return backend


#: Every backend that has to behave alike.
OPENERS: dict[str, Callable[..., Backend]] = {
    "filesystem": open_filesystem,
    "redis": open_redis,
}


def opener(name: str, place: Path) -> Opener:
    """Opens a backend at one place, as often as it is called: each time another server's."""
    return partial(OPENERS[name], place)


def record(content: str, *, retry: bool = True, time: str = "2024-01-15T10:30:00.000Z") -> Record:
    """A user's message as a record; `retry`: its timestamp was given."""
    return admission.from_message(ChatMessage("user", content, time))._replace(retry=retry)


def records(first: int, stop: int) -> list[Record]:
    """Messages `message <number>`, each with a time of its own."""
    return [
        record(f"message {number}", time=f"2024-01-15T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z")
        for number in range(first, stop)
    ]


def joined(some: Sequence[Record]) -> bytes:
    return b"".join(record.data for record in some)


def stored(backend: Backend, user: str, archive: str | None = None) -> bytes:
    """All bytes of a conversation."""
    with backend.open(user, archive) as reader:
        return reader.read_all()


def said(data: bytes) -> list[str]:
    """The contents of the messages in a conversation's bytes; no damage may be in it."""
    found = list(reading.read(data))
    assert all(isinstance(entry, ChatMessage) for entry in found), found
    return [entry.content for entry in found if isinstance(entry, ChatMessage)]


def names_of(backend: Backend, user: str) -> list[str]:
    """The archives of a user, oldest first."""
    archives = sorted(backend.archives(user), key=lambda archive: (archive.stat.mtime_ns, archive.name))
    return [archive.name for archive in archives]


def everything(backend: Backend, user: str) -> list[bytes]:
    """The records of all conversations of a user, whole or not."""
    data = b"".join(stored(backend, user, name) for name in names_of(backend, user))
    with suppress(NotFound):
        data += stored(backend, user)
    assert data.endswith(RECORD_END)
    return [piece + RECORD_END for piece in data.split(RECORD_END)[:-1]]
