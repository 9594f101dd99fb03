"""What a reader sees of a running conversation on files while somebody writes to it: whole records."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from potofs.backends.base import RECORD_END, Backend
from potofs.errors import NotFound
from tests.backends.kit import open_filesystem, record, stored

HALF = b"role: user\ncontent: hal"


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    """One in which mia has said something."""
    backend = open_filesystem(tmp_path)
    backend.append("mia", [record("whole")])
    return backend


@pytest.fixture
def current(users: Path) -> Path:
    return users / "mia/dialogs/current.yaml"


@contextmanager
def at_work(users: Path) -> Iterator[None]:
    """Holds mia's lock, as whoever writes does."""
    with (users / "mia/.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(current: Path, data: bytes) -> None:
    with current.open("ab") as file:
        file.write(data)


def test_the_beginning_of_what_is_being_written_is_not_there_yet(backend: Backend, users: Path, current: Path) -> None:
    said = stored(backend, "mia")
    with backend.open("mia") as reader:
        with at_work(users):
            write(current, HALF)
            assert backend.stat("mia").size == reader.stat().size == len(said)
            assert stored(backend, "mia") == reader.read_all() == said
            assert (reader.read(len(said), 100), reader.read(len(said) + 3, 100), reader.read(3, 4)) == (
                b"",
                b"",
                said[3:7],
            )
            # Asked again, for what is known of it is remembered.
            assert backend.stat("mia").size == len(said)
            write(current, b"f" + RECORD_END + HALF)
            said += HALF + b"f" + RECORD_END
            assert stored(backend, "mia") == reader.read_all() == said
        # Its writer has died.
        assert stored(backend, "mia") == reader.read_all() == said + HALF
        assert backend.stat("mia").size == reader.stat().size == len(said + HALF)
        # What a reader was shown stays there.
        with at_work(users):
            assert reader.read_all() == said + HALF


def test_a_record_is_found_whole_behind_a_long_one_that_is_being_written(
    backend: Backend, users: Path, current: Path
) -> None:
    said = stored(backend, "mia")
    for size in (*range((1 << 16) - 8, (1 << 16) + 8), 300_000):
        with at_work(users):
            os.truncate(current, len(said))
            write(current, b"x" * size)
            assert stored(backend, "mia") == said
    os.truncate(current, len(said))


def test_a_conversation_whose_first_record_is_being_written_is_not_begun(
    backend: Backend, users: Path, current: Path
) -> None:
    backend.archive("mia", "first")
    with at_work(users):
        write(current, HALF)
        with pytest.raises(NotFound):
            backend.stat("mia")
        with pytest.raises(NotFound):
            backend.open("mia")
    assert stored(backend, "mia") == HALF


def test_what_was_archived_with_a_torn_end_is_read_to_its_end_while_the_next_is_written(
    backend: Backend, users: Path, current: Path
) -> None:
    said = stored(backend, "mia")
    with backend.open("mia") as reader:
        write(current, HALF)
        os.rename(current, current.parent / "archived/first.yaml")
        with at_work(users):
            assert reader.read_all() == said + HALF
            write(current, b"role")
            assert reader.read_all() == said + HALF


def test_an_archive_that_was_open_when_it_was_restored_is_shown_whole_while_it_is_gone_on_with(
    backend: Backend, users: Path, current: Path
) -> None:
    said = stored(backend, "mia")
    backend.archive("mia", "first")
    with backend.open("mia", "first") as reader:
        backend.restore("mia", "first")
        with at_work(users):
            write(current, HALF)
            assert (reader.read_all(), reader.stat().size) == (said, len(said))


def test_no_read_has_half_a_record_while_long_ones_are_appended(tmp_path: Path) -> None:
    options = {"fsync": "never", "archiveThreshold": "0", "maxConversationLength": "0"}
    backend, other = open_filesystem(tmp_path, **options), open_filesystem(tmp_path, **options)
    backend.append("mia", [record("first")])
    ended = threading.Event()

    def write() -> None:
        for number in range(150):
            backend.append("mia", [record(f"{number} " + "long " * 60_000)])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with other.open("mia") as reader:
            while not ended.is_set():
                size = reader.stat().size
                assert reader.read(size - len(RECORD_END), 1 << 30).endswith(RECORD_END)
                size = other.stat("mia").size
                assert reader.read(size - len(RECORD_END), len(RECORD_END)) == RECORD_END
    finally:
        writer.join()
