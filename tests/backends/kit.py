"""What the tests of backends share: how each backend is opened at a place, and the records of the conformance suite."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from potofs.backends.base import RECORD_END, Backend
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.backends.memory import MemoryBackend
from potofs.backends.redis.backend import RedisBackend
from potofs.config import Where
from potofs.errors import NotFound
from potofs.journal import reading
from potofs.testing.records import joined, names_of, record, records, said, stored
from tests import redis_servers

__all__ = ["joined", "names_of", "record", "records", "said", "stored"]

#: Opens a backend at a place; settings by the configuration file's names.
Opener = Callable[..., Backend]

#: Backends that a test has opened; each holds its place, which cannot be unmounted before.
_opened: list[Backend] = []


def close_all() -> None:
    """Closes every backend that a test has opened."""
    while _opened:
        _opened.pop().close()


def open_filesystem(place: Path, **options: str) -> FilesystemBackend:
    backend = FilesystemBackend(Where("file", str(place / "journal"), options), reading.marks)
    # Where nothing can be made, what is there has to do.
    backend.prepare(create=not place.exists() or os.access(place, os.W_OK))
    _opened.append(backend)
    return backend


def open_memory(_: Path, **options: str) -> MemoryBackend:
    """One of its own each time: memory has no place."""
    return MemoryBackend(Where("memory", "", options), reading.marks)


def open_redis(place: Path, **options: str) -> RedisBackend:
    """On the shared server, under a prefix of its own."""
    return _open_redis_at("redis", redis_servers.shared().place, place, **options)


def open_cluster(place: Path, **options: str) -> RedisBackend:
    """On the shared cluster of three masters."""
    return _open_redis_at("redis+cluster", redis_servers.shared_cluster().place, place, **options)


def open_watched(place: Path, **options: str) -> RedisBackend:
    """On what the shared sentinel watches."""
    return _open_redis_at("redis+sentinel", redis_servers.shared_watched().place, place, **options)


def _open_redis_at(scheme: str, servers: str, place: Path, **options: str) -> RedisBackend:
    # Durability is theirs.
    options = {"keyPrefix": f"{place}:"} | {name: value for name, value in options.items() if name != "fsync"}
    backend = RedisBackend(Where(scheme, servers, options), reading.marks)
    backend.prepare(create=True)
    _opened.append(backend)
    return backend


#: Every backend of ours: each has to pass the conformance suite.
OPENERS: dict[str, Callable[..., Backend]] = {
    "filesystem": open_filesystem,
    "memory": open_memory,
    "redis": open_redis,
    "redis+cluster": open_cluster,
    "redis+sentinel": open_watched,
}


def opener(name: str, place: Path) -> Opener:
    """Opens a backend at one place, as often as it is called: each time another server's."""
    return partial(OPENERS[name], place)


def everything(backend: Backend, user: str) -> list[bytes]:
    """The records of all conversations of a user, whole or not."""
    data = b"".join(stored(backend, user, name) for name in names_of(backend, user))
    with suppress(NotFound):
        data += stored(backend, user)
    assert data.endswith(RECORD_END)
    return [piece + RECORD_END for piece in data.split(RECORD_END)[:-1]]
