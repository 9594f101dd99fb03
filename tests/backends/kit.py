"""What the tests of backends share: how each backend is opened at a place, and the records of the conformance suite."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from potofs.backends.base import RECORD_END, Backend
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.backends.memory import MemoryBackend
from potofs.config import Where
from potofs.errors import NotFound
from potofs.journal import reading
from potofs.testing.records import joined, names_of, record, records, said, stored

__all__ = ["joined", "names_of", "record", "records", "said", "stored"]

#: Opens a backend at a place; settings by the configuration file's names.
Opener = Callable[..., Backend]


def open_filesystem(place: Path, **options: str) -> FilesystemBackend:
    backend = FilesystemBackend(Where("file", str(place / "journal"), options), reading.marks)
    backend.prepare(create=True)
    return backend


def open_memory(_: Path, **options: str) -> MemoryBackend:
    """One of its own each time: memory has no place."""
    return MemoryBackend(Where("memory", "", options), reading.marks)


#: Every backend of ours: each has to pass the conformance suite.
OPENERS: dict[str, Callable[..., Backend]] = {"filesystem": open_filesystem, "memory": open_memory}


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
