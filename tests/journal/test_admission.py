"""What may be appended as it was typed, and what is added to it."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from potofs import times
from potofs.errors import InvalidMessage, MessageTooLarge
from potofs.journal import admission, reading, record
from potofs.journal.message import ChatMessage, mark
from tests.journal.generated import TIMESTAMP, messages, mutated
from tests.journal.test_record_properties import document_of, quick

NOW = "2024-02-03T04:05:06.789Z"


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The present time, so that bytes can be compared."""
    monkeypatch.setattr(times, "now", lambda: NOW)


@pytest.mark.parametrize(
    "data",
    [
        f"role: user\ncontent: x\ntimestamp: {TIMESTAMP}\n---\n",
        f"# a comment\n\nrole:   'user'\ncontent: >\n  x\ntimestamp: {TIMESTAMP} # when\n# end\n---\n",
        f"---\nrole: user\ncontent: x\ntimestamp: {TIMESTAMP}\n---\n",
        f"--- {{role: user, content: x, timestamp: {TIMESTAMP}}}\n---\n",
        f'{{"timestamp": "{TIMESTAMP}",\r\n"role": "user", "content": "\\ud83d\\udc4b"}}\n---\n',
        f"\ufeffrole: user\ncontent: x\ntimestamp: {TIMESTAMP}\n---\n",
        f"---\n...\n\nrole: user\ncontent: x\ntimestamp: {TIMESTAMP}\n...\n---\n",
    ],
    ids=ascii,
)
def test_a_whole_record_is_kept_byte_for_byte(data: str) -> None:
    admitted = admission.from_bytes(data.encode())
    assert admitted.data == data.encode()
    assert admitted.retry
    (message,) = reading.read(data.encode())
    assert isinstance(message, ChatMessage)
    assert admitted.mark == mark(message)


@pytest.mark.parametrize(
    ("end", "kept"),
    [
        ("\n", "\n---\n"),
        ("", "\n---\n"),
        ("\n---", "\n---\n"),
        ("\n---\n", "\n---\n"),
        ("\n...\n", "\n...\n---\n"),
        ("\n--- # end\n", "\n--- # end\n---\n"),
        ("\r\n---\r\n", "\r\n---\r\n---\n"),
    ],
    ids=ascii,
)
def test_a_missing_terminator_is_added_and_nothing_else(end: str, kept: str) -> None:
    document = f"role: user\ncontent: x\ntimestamp: {TIMESTAMP}"
    assert admission.from_bytes((document + end).encode()).data == (document + kept).encode()


@pytest.mark.parametrize(
    ("document", "stamped"),
    [
        ("role: user\ncontent: x\n", f'role: user\ncontent: x\ntimestamp: "{NOW}"\n'),
        ("role: user\ncontent: x", f'role: user\ncontent: x\ntimestamp: "{NOW}"\n'),
        ("role: user\r\ncontent: x\r\n", f'role: user\r\ncontent: x\r\ntimestamp: "{NOW}"\r\n'),
        ("  role: user\n  content: x\n", f'  role: user\n  content: x\n  timestamp: "{NOW}"\n'),
        ("role: user\ncontent: |\n  x\n", f'role: user\ncontent: |\n  x\ntimestamp: "{NOW}"\n'),
        (
            "role: user\ncontent: x\nmetadata:\n  a: 1\n# c\n",
            f'role: user\ncontent: x\nmetadata:\n  a: 1\n# c\ntimestamp: "{NOW}"\n',
        ),
        ("\ufeffrole: user\ncontent: x\n", f'\ufeffrole: user\ncontent: x\ntimestamp: "{NOW}"\n'),
        ("# c\n{role: user, content: x}\n", f'# c\n{{"timestamp": "{NOW}", role: user, content: x}}\n'),
        ("{role: user, content: x,}", f'{{"timestamp": "{NOW}", role: user, content: x,}}\n'),
        ("--- {role: user, content: x}\n", f'--- {{"timestamp": "{NOW}", role: user, content: x}}\n'),
        ('{"role":"user","content":"x"}\n', f'{{"timestamp": "{NOW}", "role":"user","content":"x"}}\n'),
        ('\ufeff{"role":"user","content":"x"}\n', f'\ufeff{{"timestamp": "{NOW}", "role":"user","content":"x"}}\n'),
        (
            '{\r\n  "role": "user", "content": "\\ud83d\\udc4b"\n}',
            f'{{"timestamp": "{NOW}", \r\n  "role": "user", "content": "\\ud83d\\udc4b"\n}}\n',
        ),
    ],
    ids=ascii,
)
def test_a_missing_timestamp_is_added_in_the_documents_own_style(document: str, stamped: str) -> None:
    admitted = admission.from_bytes(document.encode())
    assert admitted.data.decode() == stamped + "---\n"
    assert not admitted.retry
    (message,) = reading.read(admitted.data)
    assert isinstance(message, ChatMessage)
    assert message.timestamp == NOW
    assert admitted.mark == mark(message)


def test_a_timestamp_goes_before_a_content_that_would_swallow_it() -> None:
    admitted = admission.from_bytes(b"role: user\ncontent: |+\n  x\n\n\n")
    assert [message.content for message in reading.messages(admitted.data)] == ["x\n\n\n"]
    admitted = admission.from_bytes(b"? role\n: user\n? content\n: x\n")
    assert [message.timestamp for message in reading.messages(admitted.data)] == [NOW]


@quick
@given(messages, st.booleans(), st.sampled_from(["", "\n", "\n---", "\n---\n"]))
def test_what_is_admitted_reads_as_what_was_given(message: ChatMessage, stamped: bool, end: str) -> None:
    document = document_of(message).removesuffix("\n")
    if not stamped:
        document = document.replace("\n" + record.timestamp_line(message.timestamp), "", 1)
    # Else the newline that was taken off was the content's own.
    assume(end or not document.endswith("\n"))
    admitted = admission.from_bytes((document + end).encode())
    (read,) = reading.read(admitted.data)
    assert isinstance(read, ChatMessage)
    assert read.content == message.content
    assert (read.timestamp == message.timestamp) is (admitted.retry or message.timestamp == read.timestamp)
    assert (read.role, read.metadata, read.extra) == (message.role, message.metadata, message.extra)
    assert admitted.data.endswith(b"\n---\n")


@quick
@given(mutated(messages.map(document_of)))
def test_what_is_admitted_is_one_message_that_begins_with_the_bytes_given(document: str) -> None:
    data = document.encode()
    try:
        admitted = admission.from_bytes(data)
    except InvalidMessage:
        return
    (message,) = reading.read(admitted.data)
    assert isinstance(message, ChatMessage)
    assert message.timestamp
    assert mark(message) == admitted.mark
    if admitted.retry:
        assert admitted.data.startswith(data)
        assert admitted.data[len(data) :] in (b"", b"\n", b"---\n", b"\n---\n")
    else:
        added = re.compile(re.escape(f'"{NOW}"'.encode()))
        assert len(added.findall(admitted.data)) >= 1


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\x7f", "U+007F"),
        ("\x80", "U+0080"),
        ("\x85", "U+0085"),
        ("\u2028", "U+2028"),
        ("\ufeff", "U+FEFF"),
        ("\uffff", "U+FFFF"),
        ("\r", "U+000D"),
    ],
)
def test_a_character_that_is_not_read_alike_everywhere_is_refused_by_its_name(character: str, name: str) -> None:
    escape = f"\\u{ord(character):04x}"
    for document in (
        f'role: user\ncontent: "a{character}b"\n',
        f'{{"role": "user",\n"content": "a{character}b"}}'
        if character != "\r"
        else f'{{"role": "user",\n{character}"content": "a"}}',
    ):
        with pytest.raises(InvalidMessage) as refused:
            admission.from_bytes(document.encode())
        # Where it stands, in characters.
        column = document.split("\n")[1].index(character) + 1
        assert f"line 2, column {column}: the character {name}" in str(refused.value)
        assert f'write it as "{escape}"' in str(refused.value)
    assert admission.from_bytes(f'role: user\ncontent: "a{escape}b"\n'.encode()).data


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b"])
def test_a_control_character_is_refused_by_its_name(character: str) -> None:
    with pytest.raises(InvalidMessage, match=f"U\\+{ord(character):04X}"):
        admission.from_bytes(f'role: user\ncontent: "a{character}b"\n'.encode())


@pytest.mark.parametrize(
    "document",
    [
        "%YAML 1.2\n---\nrole: user\ncontent: x\n",
        "# c\n%YAML 1.2\n---\nrole: user\ncontent: x\n---\n",
        "\ufeff%TAG ! tag:x,\n---\nrole: user\ncontent: x\n---\n",
    ],
    ids=ascii,
)
def test_directives_are_refused(document: str) -> None:
    with pytest.raises(InvalidMessage, match="%YAML or %TAG"):
        admission.from_bytes(document.encode())


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"", 0), (b"# c\n---\n", 0), (b"role: user\ncontent: x\n---\n" * 2, 2), (b"--- {a: 1}\n--- b\n", 2)],
)
def test_it_has_to_be_exactly_one_document(data: bytes, found: int) -> None:
    with pytest.raises(InvalidMessage, match=f"one message was expected, and here are {found}"):
        admission.from_bytes(data)


@quick
@given(messages)
def test_a_message_with_a_timestamp_may_be_a_second_try(message: ChatMessage) -> None:
    admitted = admission.from_message(message)
    assert admitted == (record.encode(message), mark(message), True)


def test_a_message_without_a_timestamp_gets_the_present_time() -> None:
    stamped = ChatMessage("user", "x", NOW, {"a": 1}, {"b": 2})
    admitted = admission.from_message(ChatMessage("user", "x", "", {"a": 1}, {"b": 2}))
    assert admitted == (record.encode(stamped), mark(stamped), False)


@pytest.mark.parametrize(
    "data",
    [
        b"# \xff comment\n---\nrole: user\ncontent: x\n---\n",
        b"# \x00\nrole: user\ncontent: x\n---\n",
        b"role: user\ncontent: x\n--- # \xff\n",
        b"role: user\ncontent: x\n--- # \x01\n",
        b"role: user\ncontent: 2024-13-45\n---\n",
        b"role: user\ncontent: x\nwhen: 2024-01-01T99:00:00Z\n---\n",
        b"role: user\ncontent: x\nmetadata: {a: [=]}\n---\n",
        b"role: user\ncontent: x\n<<: 5\n---\n",
    ],
)
def test_what_would_break_the_stream_for_other_readers_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        admission.from_bytes(data)


def test_a_message_of_a_program_is_not_larger_than_any_other() -> None:
    with pytest.raises(MessageTooLarge):
        admission.from_message(ChatMessage("user", "x" * (1 << 20)))
