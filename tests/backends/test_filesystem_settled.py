"""What a reader sees of a running conversation on files while somebody writes to it: whole records."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from potofs.backends.base import RECORD_END, Backend
from potofs.backends.filesystem.settled import growing
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
def at_work(current: Path) -> Iterator[None]:
    """Appends, as a writer in another process does that has not come to its end."""
    current.touch()
    with current.open("r+b") as file, growing(file.fileno(), current.stat().st_size):
        yield


def write(current: Path, data: bytes) -> None:
    with current.open("ab") as file:
        file.write(data)


def test_the_beginning_of_what_is_being_written_is_not_there_yet(backend: Backend, users: Path, current: Path) -> None:
    said = stored(backend, "mia")
    with backend.open("mia") as reader:
        with at_work(current):
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
            write(current, b"f" + RECORD_END)
            said += HALF + b"f" + RECORD_END
            # Whole, it is there, also if its writer says nothing yet.
            assert stored(backend, "mia") == reader.read_all() == said
            write(current, HALF)
        # Its writer has died.
        assert stored(backend, "mia") == reader.read_all() == said + HALF
        assert backend.stat("mia").size == reader.stat().size == len(said + HALF)
        # What a reader was shown stays there, and what stood there before a write is shown.
        with at_work(current):
            write(current, HALF)
            assert reader.read_all() == stored(backend, "mia") == said + HALF


def test_what_ends_otherwise_than_records_of_ours_is_there_while_the_users_lock_is_held(
    backend: Backend, users: Path, current: Path, tmp_path: Path
) -> None:
    said = [
        b'role: user\r\ncontent: CRLF\r\ntimestamp: "2024-01-15T10:30:00.000Z"\r\n---\r\n',
        b'role: user\ncontent: glued\ntimestamp: "2024-01-15T10:30:00.000Z"---\n',
        b'role: user\ncontent: without an end\ntimestamp: "2024-01-15T10:30:00.000Z"\n',
    ]
    for data in said:
        current.write_bytes(data)
        with (users / "mia/.lock").open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert stored(open_filesystem(tmp_path), "mia") == stored(backend, "mia") == data
            assert backend.stat("mia").size == len(data)


def test_a_writer_that_is_killed_hides_nothing(backend: Backend, current: Path) -> None:
    said = stored(backend, "mia")
    code = (
        "import os, sys; from potofs.backends.filesystem.settled import growing\n"
        "with open(sys.argv[1], 'r+b', buffering=0) as file, growing(file.fileno(), os.stat(sys.argv[1]).st_size):\n"
        "    file.seek(0, 2); file.write(b'role: us'); print(); sys.stdout.flush(); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, current], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert stored(backend, "mia") == said
        writer.kill()
        writer.wait()
        assert stored(backend, "mia") == said + b"role: us"


def test_a_conversation_whose_first_record_is_being_written_is_not_begun(
    backend: Backend, users: Path, current: Path
) -> None:
    backend.archive("mia", "first")
    with at_work(current):
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
        with at_work(current):
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
        with at_work(current):
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
