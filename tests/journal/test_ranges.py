"""Reading a conversation in ranges is the same as reading it whole."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from potofs import ChatMessage, open_journal
from potofs.backends import base
from potofs.backends.base import Reader, Stat
from potofs.backends.filesystem import index
from potofs.journal import ranges, reading, record, summary
from tests.journal.archiving import ArchivingBackend
from tests.journal.generated import TIMESTAMP, messages, mutated
from tests.journal.test_jsontext import same


class Bytes(Reader):
    """An opened conversation of these bytes, which notes how much was asked for at once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.largest = 0

    def stat(self) -> Stat:
        return Stat(1, len(self._data), 0, 0)

    def read(self, offset: int, size: int) -> bytes:
        self.largest = max(self.largest, size)
        return self._data[offset : offset + size]

    def close(self) -> None: ...


_records = messages.map(record.encode).map(bytes.decode)
_pieces = st.one_of(
    _records,
    mutated(_records),
    st.sampled_from(["---\r\n", "---\r", "...\n", "# a\n", "%YAML 1.2\n---\n", "\ufeff", "--- {a: b}\n", "torn", "\n"]),
)
streams = st.lists(_pieces, max_size=4).map(lambda pieces: "".join(pieces).encode())


@given(streams, st.integers(1, 300))
@example(b"%YAML 1.2\n---\nrole: user\ncontent: a\ntimestamp: 2024-01-15\n---\n", 14)
@example(b"role: user\r\ncontent: a\r\n---\r\nrole: user\r\n---\r\n", 27)
@example(b"a\n--- {b: c}\n---\n", 6)
def test_ranges_of_any_size_show_what_the_whole_shows(data: bytes, size: int) -> None:
    whole = list(reading.read(data))
    found = list(ranges.entries(Bytes(data), size))
    assert len(found) == len(whole)
    for one, other in zip(found, whole, strict=True):
        if isinstance(one, ChatMessage) and isinstance(other, ChatMessage):
            assert same(one.to_items(), other.to_items())
        else:
            assert one == other


def test_no_more_is_read_at_once_than_the_longest_record_needs() -> None:
    one = record.encode(ChatMessage("user", "a" * 5000, TIMESTAMP))
    reader = Bytes(one * 200)
    assert len(list(ranges.entries(reader, 1000))) == 200
    assert reader.largest <= 2 * len(one)


def test_a_conversation_that_was_cut_meanwhile_ends_where_it_ends() -> None:
    class Cut(Bytes):
        def stat(self) -> Stat:
            return Stat(1, 10_000, 0, 0)

    one = record.encode(ChatMessage("user", "a", TIMESTAMP))
    assert len(list(ranges.entries(Cut(one * 3), 10))) == 3


def test_the_marks_of_a_user_are_those_of_all_conversations_each_once() -> None:
    backend = ArchivingBackend()
    first, second, third = (record.encode(ChatMessage("user", text, TIMESTAMP)) for text in "abc")
    backend.put_archive("mia", "one", first, 0)
    backend.put_current("mia", second + third, 0)
    expected = list(reading.marks(second + third + first))
    assert list(ranges.marks_of_user(backend, "mia")) == expected
    # Archived while it is being read.
    found = ranges.marks_of_user(backend, "mia")
    begun = [next(found)]
    backend.archive("mia", "two")
    assert sorted(begun + list(found)) == sorted(expected)
    assert list(ranges.marks_of_user(backend, "nobody")) == []


@given(streams, st.integers(1, 300))
@example(b"%YAML 1.2\n---\nrole: user\ncontent: a\ntimestamp: 2024-01-15\n---\n", 14)
def test_pieces_of_any_size_hold_the_messages_that_the_whole_holds(data: bytes, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "PIECE", size)
        assert list(base.marks_of(Bytes(data), reading.marks)) == list(reading.marks(data))
        assert b"".join(base.whole_records(Bytes(data).read, 0, len(data))) == data


def test_no_piece_is_larger_than_the_longest_record_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    one = record.encode(ChatMessage("user", "a" * 5000, TIMESTAMP))
    reader = Bytes(one * 200)
    monkeypatch.setattr(base, "PIECE", 1000)
    assert len(list(base.marks_of(reader, reading.marks))) == 200
    assert reader.largest <= 2 * len(one)
    assert all(len(piece) <= 3 * len(one) for piece in base.whole_records(reader.read, 0, 200 * len(one)))


@pytest.mark.expects_warning("damage at byte")
@pytest.mark.parametrize("behind", [b"", b"role: user\ncontent: b\ntimestamp: 2024-01-16\n", b"role: torn"])
def test_a_long_conversation_is_counted_in_pieces(root: Path, monkeypatch: pytest.MonkeyPatch, behind: bytes) -> None:
    data = b"".join(
        record.encode(ChatMessage("user", f"number {number}", TIMESTAMP, {"tokens": 1})) for number in range(50)
    )
    for module in (base, index, summary):
        monkeypatch.setattr(module, "PIECE", 700)
    with open_journal(f"file://{root}?archiveThreshold=53") as journal:
        journal.create_user("mia")
        (root / "users/mia/dialogs/current.yaml").write_bytes(data + behind)
        counted = 50 + behind.count(b"content")
        assert f"totalMessages: {counted}\n" in journal.user_metadata("mia").decode()
        journal.add_message("mia", ChatMessage("user", "number 49", TIMESTAMP))
        assert len(journal.get_conversation("mia")) == counted
        for number in range(counted, 53):
            assert not journal.get_archived_conversations("mia")
            journal.add_message("mia", ChatMessage("user", f"number {number}", TIMESTAMP))
        assert [archive.message_count for archive in journal.get_archived_conversations("mia")] == [53]
        assert journal.get_stats().total_messages == 53
