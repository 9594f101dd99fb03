"""However its bytes are cut into writes, a record is stored alike; and no more work is done than there are bytes."""

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from potofs import times
from potofs.errors import InvalidMessage
from potofs.journal import admission, reading, stream
from potofs.journal.message import ChatMessage, mark
from potofs.journal.record import encode, timestamp_line
from tests.journal.generated import TIMESTAMP, as_json, messages, mutated
from tests.journal.test_record_properties import document_of, quick
from tests.journal.writers import Writer

TEXTS = [
    b'role: user\ncontent: |\n  a\n\n  b\ntimestamp: "2024-01-15T10:30:00Z"\nmetadata:\n  a: 1\n---\n',
    '# Grüße\n--- {role: user, content: "👋",\n  timestamp: 2024-01-15}\n'.encode()
    + b"--- {role: user, content: b, timestamp: 2024-01-15}\n---\n",
    b'{"role": "user",\n "content": "\\ud83d\\ude00 \\\\ud83d",\n "timestamp": "2024-01-15"\n}\n...\n---\n',
    "\ufeffrole: user\ncontent: 'a\n\n  b'\ntimestamp: 2024-01-15 # when\n--- # c\n".encode()
    + b"? role\n: tool\n? content\n: >\n x\n? timestamp\n: 2024-01-15\n---\n",
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_cut_in_two_anywhere_is_stored_alike(text: bytes) -> None:
    whole = Writer()
    whole.write(text)
    assert whole.contents
    for cut in range(len(text) + 1):
        writer = Writer()
        writer.write(text[:cut])
        writer.write(text[cut:])
        assert writer.stored == whole.stored, cut
        assert not writer.appender.is_unsettled


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_written_byte_by_byte_is_stored_alike(text: bytes) -> None:
    whole = Writer()
    whole.write(text)
    writer = Writer()
    for byte in text:
        writer.write(bytes([byte]))
    assert writer.stored == whole.stored


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """The data cut at some places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        if start < end:
            yield data[start:end]


cuts = st.lists(st.integers(0, 10**6), max_size=12)


@quick
@given(st.lists(messages, min_size=1, max_size=4), cuts, st.booleans())
def test_records_are_stored_byte_for_byte_however_they_are_cut(
    batch: list[ChatMessage], cuts: list[int], terminated: bool
) -> None:
    data = b"".join(map(encode, batch))
    writer = Writer()
    for piece in pieces(data if terminated else data[:-4], cuts):
        writer.write(piece)
    if not terminated:
        writer.flush()
    writer.close()
    assert writer.stored == data
    assert writer.set_aside == []


@quick
@given(st.lists(messages, min_size=1, max_size=3), cuts)
def test_records_of_a_writer_with_crlf_are_the_same_messages_however_they_are_cut(
    batch: list[ChatMessage], cuts: list[int]
) -> None:
    data = b"".join(map(encode, batch)).replace(b"\n", b"\r\n")
    writer = Writer()
    for piece in pieces(data, cuts):
        writer.write(piece)
    writer.close()
    assert list(reading.messages(writer.stored)) == batch


@quick
@given(messages, st.integers(0, 10**6), st.booleans())
def test_the_beginning_of_a_message_is_never_hopeless(message: ChatMessage, cut: int, stamped: bool) -> None:
    document = document_of(message)
    if not stamped:
        document = document.replace(timestamp_line(message.timestamp) + "\n", "", 1)
    data = document.encode()
    writer = Writer()
    writer.write(data[: cut % (len(data) + 1)])
    assert writer.commits == []


def _as_others_write(message: ChatMessage, style: int, width: int, unicode: bool) -> str:
    """A message as other programs write it: YAML in blocks, in braces or with all of it quoted, JSON."""
    items = as_json(message)
    if style == 0:
        return json.dumps(items, ensure_ascii=not unicode, indent=2)
    return yaml.safe_dump(
        items,
        default_flow_style=style == 1,
        default_style='"' if style == 2 else None,
        allow_unicode=unicode,
        width=width,
        explicit_start=style == 3,
        sort_keys=False,
    )


others = st.builds(_as_others_write, messages, st.integers(0, 4), st.integers(10, 200), st.booleans())


@settings(quick, max_examples=300)
@given(others | mutated(others) | mutated(messages.map(document_of)))
def test_no_beginning_of_what_is_a_message_in_the_end_is_hopeless(document: str) -> None:
    data = document.encode()
    try:
        admission.from_bytes(data)
    except InvalidMessage:
        return
    for end in [at + 1 for at, byte in enumerate(data) if byte == ord("\n")][:40]:
        for part in stream.documents(data[:end]):
            reading.refuse_hopeless(data[part.start : part.end])


@settings(quick, max_examples=300)
@given(mutated(messages.map(lambda message: encode(message).decode())), cuts)
def test_garbled_bytes_are_stored_as_messages_or_set_aside_or_refused(text: str, cuts: list[int]) -> None:
    writer = Writer()
    refused = b""
    for piece in pieces(text.encode(), cuts):
        before = writer.stored
        try:
            writer.write(piece)
        except InvalidMessage:
            assert writer.stored == before
            assert writer.appender.waiting == 0
            refused += piece
    with suppress(InvalidMessage):
        writer.flush()
    writer.close()
    # Whatever is stored is a message, with nothing left of it.
    assert [entry for entry in reading.read(writer.stored) if not isinstance(entry, ChatMessage)] == []
    # And nothing that said something has vanished: bytes were stored, set aside, or their write has failed.
    kept = writer.stored + b"".join(writer.set_aside) + refused
    assert stream.says_nothing(text.encode()) or len(kept) > 0
    if not refused:
        for line in text.encode().split(b"\n"):
            assert line in kept or stream.says_nothing(line)


@quick
@given(st.lists(st.tuples(messages, st.booleans()), min_size=1, max_size=5), cuts)
def test_a_record_between_refused_ones_is_stored_whole_or_refused_whole(
    parts: list[tuple[ChatMessage, bool]], cuts: list[int]
) -> None:
    data = b"".join(encode(message) if good else b"hello: world\n---\n" for message, good in parts)
    writer = Writer()
    for piece in pieces(data, cuts):
        with suppress(InvalidMessage):
            writer.write(piece)
    writer.close()
    given_messages = [message for message, good in parts if good]
    found = list(reading.read(writer.stored))
    assert all(message in given_messages for message in found)
    assert writer.stored == b"".join(encode(message) for message in found if isinstance(message, ChatMessage))


@quick
@given(messages)
def test_a_retry_has_the_fingerprint_of_the_first_try(message: ChatMessage) -> None:
    writer = Writer()
    writer.write(encode(message) * 2)
    assert len(writer.contents) == 2
    assert len({mark(read) for read in reading.messages(writer.stored)}) == 1


@pytest.mark.parametrize(
    ("begins", "piece"),
    [(b"role: user\ncontent: |\n", b"  " + b"x" * 997 + b"\n"), (b"role: user\ncontent: ", b"x" * 1000)],
    ids=["many lines", "one line"],
)
def test_what_waits_is_looked_at_a_number_of_times_that_grows_slowly(
    monkeypatch: pytest.MonkeyPatch, begins: bytes, piece: bytes
) -> None:
    """A record of some hundred kilobytes in many writes: were all that waits parsed each time, it would never end."""
    looked_at = 0
    refuse_hopeless = reading.refuse_hopeless

    def counted(lines: bytes) -> None:
        nonlocal looked_at
        looked_at += len(lines)
        refuse_hopeless(lines)

    monkeypatch.setattr(reading, "refuse_hopeless", counted)
    searched = 0
    has_marker = stream.has_marker

    def counted_search(data: bytes, start: int) -> bool:
        nonlocal searched
        searched += len(data) - start
        return has_marker(data, start)

    monkeypatch.setattr(stream, "has_marker", counted_search)
    writer = Writer()
    writer.write(begins)
    for _ in range(500):
        writer.write(piece)
    size = writer.appender.waiting
    assert size == len(begins) + 500 * 1000
    assert looked_at < 6 * size
    assert searched < 3 * size
    writer.write(b"\n" + timestamp_line(TIMESTAMP).encode() + b"\n---\n")
    assert len(writer.contents[0]) >= 500 * 998


def test_each_record_of_many_in_one_write_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0
    parse = reading.parse

    def counted(document: bytes) -> ChatMessage:
        nonlocal parsed
        parsed += 1
        return parse(document)

    monkeypatch.setattr(reading, "parse", counted)
    writer = Writer()
    writer.write(encode(ChatMessage("user", "x", times.now())) * 1000)
    assert parsed == 1000
    assert len(writer.commits) == 1
