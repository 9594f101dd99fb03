"""Reading a conversation in ranges is the same as reading it whole."""

from hypothesis import example, given
from hypothesis import strategies as st

from potofs import ChatMessage
from potofs.backends.base import Reader, Stat
from potofs.journal import ranges, reading, record
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
