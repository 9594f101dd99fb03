"""Bytes that the filesystem backend did not write: torn tails, other programs' appends, and how the index sees them."""

import os
from pathlib import Path

import pytest

from potofs.backends.base import RECORD_END, Backend, Mark, seam
from potofs.backends.filesystem import index
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.config import Where
from potofs.errors import NotFound
from potofs.journal import admission, reading
from potofs.journal.message import ChatMessage
from potofs.journal.reading import Damage
from tests.backends.kit import joined, open_filesystem, record, records, said, stored


@pytest.fixture
def current(users: Path) -> Path:
    """The running conversation of mia."""
    return users / "mia/dialogs/current.yaml"


@pytest.fixture
def scanned() -> list[int]:
    """How many bytes each scan of `backend` was of."""
    return []


@pytest.fixture
def backend(tmp_path: Path, scanned: list[int]) -> Backend:
    """One that archives at 6 messages."""

    def scan(data: bytes) -> list[Mark]:
        scanned.append(len(data))
        return list(reading.marks(data))

    options = {"archiveThreshold": "6", "fsync": "never"}
    backend = FilesystemBackend(Where("file", str(tmp_path / "journal"), options), scan)
    backend.prepare(create=True)
    return backend


def append(path: Path, data: bytes) -> None:
    """As another program does, that takes no lock."""
    with path.open("ab") as file:
        file.write(data)


# Torn tails

WHOLE = records(0, 1)[0].data


def is_isolated(data: bytes, torn: bytes, following: bytes) -> bool:
    """Whether what follows torn bytes reads as its own messages."""
    entries = list(reading.read(data))
    messages = [entry.content for entry in entries if isinstance(entry, ChatMessage)]
    return data.startswith(torn) and data.endswith(following) and messages[-len(said(following)) :] == said(following)


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_a_record_cut_anywhere_is_never_glued_to_the_next(tmp_path: Path, current: Path, cut: int) -> None:
    backend = open_filesystem(tmp_path, fsync="never")
    backend.append("mia", records(5, 6))
    append(current, WHOLE[:cut])
    torn = current.read_bytes()
    backend.append("mia", records(1, 3))
    assert is_isolated(stored(backend, "mia"), torn, joined(records(1, 3)))


@pytest.mark.parametrize(
    "torn",
    [b"x", b"role: user", b"content: |\n  text\n", b"--", b"\n--", b"---", b"- [", b'"', b"{", b"\xff", b"#", b"\r"],
)
def test_any_torn_tail_gets_a_marker_before_the_next_record(backend: Backend, current: Path, torn: bytes) -> None:
    backend.append("mia", records(0, 1))
    append(current, torn)
    backend.append("mia", records(1, 2))
    between = b"---\n" if torn.endswith(b"\n") else b"\n---\n"
    data = stored(backend, "mia")
    assert data == joined(records(0, 1)) + torn + between + joined(records(1, 2))
    entries = list(reading.read(data))
    assert [entry.content for entry in entries if isinstance(entry, ChatMessage)] == ["message 0", "message 1"]


@pytest.mark.parametrize(
    ("tail", "between"),
    [
        (b"", b""),
        (b"---\n", b""),
        (b"x\n---\n", b""),
        (b"\r\n---\n", b""),
        (b"x\n", b"---\n"),
        (b"x---\n", b"---\n"),
        (b"x\n---", b"\n---\n"),
        (b"x", b"\n---\n"),
    ],
)
def test_the_seam_is_what_a_record_lacks(tail: bytes, between: bytes) -> None:
    assert seam(tail[-len(RECORD_END) :]) == between


def test_a_whole_message_that_lacks_only_its_marker_is_a_message(backend: Backend, current: Path) -> None:
    """As the document's own sample ends; it counts, and giving it again adds nothing."""
    backend.append("mia", records(0, 1))
    append(current, records(1, 2)[0].data.removesuffix(b"---\n"))
    assert backend.append("mia", records(1, 2)).stored == 0
    assert backend.append("mia", records(2, 5)) == (3, None)
    assert said(stored(backend, "mia")) == [f"message {number}" for number in range(5)]
    assert backend.append("mia", records(1, 2)).stored == 0
    assert backend.append("mia", records(5, 6)).archived_as is not None


def test_a_message_without_its_last_newline_counts_once_it_has_an_end(backend: Backend, current: Path) -> None:
    backend.append("mia", records(0, 1))
    append(current, records(1, 2)[0].data.removesuffix(b"\n---\n"))
    assert backend.append("mia", records(2, 3)).stored == 1
    assert said(stored(backend, "mia")) == ["message 0", "message 1", "message 2"]
    assert backend.append("mia", records(1, 2)).stored == 0
    assert backend.append("mia", records(3, 5)).archived_as is None
    assert backend.append("mia", records(5, 6)).archived_as is not None


@pytest.mark.parametrize("fsync", ["never", "always"])
def test_a_second_try_of_a_record_cut_off_anywhere_is_there_once_and_whole(
    tmp_path: Path, current: Path, fsync: str
) -> None:
    """Cut off in its metadata it is a message already, only not the one that was given."""
    message = ChatMessage("user", "a", "2024-01-15T10:30:00.000Z", {"model": "gpt-4", "tokens": 15, "sessionId": "s-1"})
    whole = admission.from_message(message)
    backend = open_filesystem(tmp_path, fsync=fsync)
    for cut in range(1, len(whole.data)):
        current.unlink(missing_ok=True)
        backend.append("mia", records(0, 1))
        append(current, whole.data[:cut])
        backend.append("mia", [whole, *records(1, 2)])
        assert backend.append("mia", [whole, *records(1, 2)]).stored == 0
        entries = list(reading.read(stored(backend, "mia")))
        assert [entry for entry in entries if entry == message] == [message]
        assert [entry.content for entry in entries if isinstance(entry, ChatMessage)] == ["message 0", "a", "message 1"]


# Other programs' appends


def test_what_another_program_appends_counts_and_is_known(backend: Backend, current: Path) -> None:
    backend.append("mia", records(0, 1))
    append(current, joined(records(1, 3)))
    assert backend.append("mia", records(1, 4)).stored == 1
    append(current, b"--- {role: user, content: in flow, timestamp: 2024-01-15}\n...\n")
    assert backend.append("mia", records(0, 4)).archived_as is None
    append(current, joined(records(4, 5)))
    assert backend.append("mia", records(0, 1)).archived_as is not None, "the sixth message was another program's"
    with pytest.raises(NotFound):
        backend.stat("mia")


def test_a_message_that_another_program_writes_in_pieces_is_counted_once(backend: Backend, current: Path) -> None:
    backend.append("mia", records(0, 1))
    data = records(1, 2)[0].data
    for piece in (data[:15], data[15:-4], data[-4:]):
        append(current, piece)
        assert backend.append("mia", records(0, 1)) == (0, None)
    assert backend.append("mia", records(1, 2)).stored == 0
    assert backend.append("mia", records(2, 5)).archived_as is None
    assert backend.append("mia", records(5, 6)).archived_as is not None


def test_an_append_between_looking_and_writing_is_not_lost_to_the_index(
    backend: Backend, current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.append("mia", records(0, 1))
    write = os.write

    def late(descriptor: int, data: bytes) -> int:
        monkeypatch.undo()
        append(current, joined(records(1, 2)))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", late)
    backend.append("mia", records(2, 3))
    assert said(stored(backend, "mia")) == ["message 0", "message 1", "message 2"]
    assert backend.append("mia", records(0, 3)).stored == 0


def test_what_another_program_appends_behind_a_failed_write_is_not_cut_off(
    backend: Backend, current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.append("mia", records(0, 1))
    write = os.write

    def short(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(descriptor, data[:20])

    def full(descriptor: int, data: bytes) -> int:
        monkeypatch.undo()
        append(current, b"\n---\n" + joined(records(2, 3)))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space left"):
        backend.append("mia", records(1, 2))
    entries = list(reading.read(stored(backend, "mia")))
    assert [entry.content for entry in entries if isinstance(entry, ChatMessage)] == ["message 0", "message 2"]
    assert backend.append("mia", records(1, 3)).stored == 1


# The index


def test_the_index_reads_only_what_is_new(backend: Backend, current: Path, scanned: list[int]) -> None:
    backend.append("mia", records(0, 3))
    scanned.clear()
    backend.append("mia", records(3, 4))
    assert sum(scanned) == 0
    append(current, joined(records(4, 5)))
    backend.append("mia", records(4, 5))
    assert sum(scanned) == len(joined(records(4, 5)))


def test_the_index_is_dropped_for_users_long_gone_and_made_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, scanned: list[int]
) -> None:
    monkeypatch.setattr(index, "_USERS", 2)
    for user in ("mia", "noah", "zoe", "mia"):
        backend.append(user, records(0, 5))
    assert max(scanned) == len(joined(records(0, 5))), "read again when mia came back"
    for user in ("mia", "noah", "zoe"):
        assert backend.append(user, records(0, 5)) == (0, None)
        assert backend.append(user, records(5, 6)).archived_as is not None


def test_a_file_that_was_cut_behind_its_back_is_looked_at_again(backend: Backend, current: Path) -> None:
    backend.append("mia", records(0, 4))
    os.truncate(current, len(joined(records(0, 2))))
    assert backend.append("mia", records(0, 4)).stored == 2
    assert said(stored(backend, "mia")) == [f"message {number}" for number in range(4)]


def test_a_file_that_was_cut_and_has_grown_again_is_looked_at_again(backend: Backend, current: Path) -> None:
    """Records of one size: the markers are where they were, the messages are others."""
    backend.append("mia", records(0, 4))
    os.truncate(current, 0)
    append(current, joined(records(5, 9)))
    assert backend.append("mia", records(5, 9)).stored == 0
    assert backend.append("mia", records(0, 1)).stored == 1
    assert said(stored(backend, "mia")) == [f"message {number}" for number in (5, 6, 7, 8, 0)]


def test_a_file_that_was_replaced_is_another_even_under_the_same_number(backend: Backend, current: Path) -> None:
    """A message that went with the old file is stored, not taken for given."""
    backend.append("mia", records(0, 1))
    for number in range(1, 20):
        current.unlink()
        append(current, records(number, number + 1)[0].data)
        assert backend.append("mia", records(number - 1, number)).stored == 1
        assert backend.append("mia", records(number, number + 1)).stored == 0
        current.unlink()
        backend.append("mia", records(number, number + 1))


def test_damage_counts_nothing(backend: Backend, current: Path) -> None:
    current.parent.mkdir(parents=True)
    current.write_bytes(b"no message\n---\n" * 10)
    assert backend.append("mia", records(0, 5)) == (5, None)
    entries = list(reading.read(stored(backend, "mia")))
    assert sum(isinstance(entry, Damage) for entry in entries) == 10
    assert backend.append("mia", [record("the sixth")]).archived_as is not None


# The newest archive


def test_what_was_just_archived_is_known_without_reading_it(backend: Backend, scanned: list[int]) -> None:
    for first in (0, 6, 12):
        scanned.clear()
        assert backend.append("mia", records(first, first + 6)).archived_as is not None
        assert backend.append("mia", records(first + 2, first + 4)).stored == 0
        if first:
            assert not any(scanned)
        assert backend.totals()[1:4] == (0, first // 6 + 1, first + 6)


def test_what_another_server_archived_since_is_the_newest(tmp_path: Path) -> None:
    one, other = (open_filesystem(tmp_path, fsync="never", archiveThreshold="6") for _ in range(2))
    one.append("mia", records(0, 1))
    assert one.append("mia", records(1, 6)).archived_as is not None
    assert other.append("mia", records(6, 12)).archived_as is not None
    assert one.append("mia", records(8, 9)).stored == 0
    assert one.append("mia", records(2, 3)).stored == 1
    assert one.totals()[1:4] == other.totals()[1:4] == (1, 2, 13)


def test_an_archive_that_was_appended_to_later_stays_the_newest(backend: Backend) -> None:
    later = backend.append("mia", records(0, 6)).archived_as
    backend.set_times("mia", later, 1 << 62)
    backend.append("mia", records(6, 7))
    assert backend.append("mia", records(7, 12)).archived_as is not None
    assert backend.append("mia", records(1, 2)).stored == 0
    assert backend.append("mia", records(8, 9)).stored == 1
