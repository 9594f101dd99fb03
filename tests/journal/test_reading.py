"""Reading is tolerant of every form of YAML, and exact about what is damaged."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from potofs.errors import InvalidMessage
from potofs.journal import reading, record, stream
from potofs.journal.message import ChatMessage, mark
from potofs.journal.reading import Damage, parse, read
from tests.journal.generated import TIMESTAMP, messages, mutated
from tests.journal.test_record_properties import document_of, quick

# The conversation file of the design document.
SAMPLE = b"""\
role: user
content: Hello, how are you today?
timestamp: "2024-01-15T10:30:00.000Z"
metadata:
  model: "gpt-4"
  tokens: 15
  processingTime: 1200
---
role: assistant
content: Hello! I'm doing well, thank you for asking. How can I help you today?
timestamp: "2024-01-15T10:30:02.500Z"
metadata:
  model: "gpt-4"
  tokens: 25
  processingTime: 1800
---
role: user
content: Can you help me with a coding problem?
timestamp: "2024-01-15T10:31:00.000Z"
metadata:
  model: "gpt-4"
  tokens: 12
  processingTime: 950
---
role: assistant
content: Of course! I'd be happy to help you with a coding problem. What programming language are you working with, \
and what specific issue are you facing?
timestamp: "2024-01-15T10:31:03.200Z"
metadata:
  model: "gpt-4"
  tokens: 35
  processingTime: 2100
"""
HELLO = ChatMessage("user", "hello", TIMESTAMP)
RECORD = record.encode(HELLO)


def test_the_design_documents_own_sample_reads_as_four_messages() -> None:
    entries = list(read(SAMPLE))
    assert [entry.role for entry in entries if isinstance(entry, ChatMessage)] == ["user", "assistant"] * 2
    last = entries[-1]
    assert isinstance(last, ChatMessage)
    assert last.content.endswith("what specific issue are you facing?")
    assert last.metadata == {"model": "gpt-4", "tokens": 35, "processingTime": 2100}


@pytest.mark.parametrize(
    "document",
    [
        "{role: user, content: hello, timestamp: 2024-01-15T10:30:00.000Z}",
        '{"role": "user", "content": "hello", "timestamp": "2024-01-15T10:30:00.000Z"}\n',
        '{"role":"user","content":"hello","timestamp":"2024-01-15T10:30:00.000Z"}',
        '\r\n {"role"\t: "user",\r\n"content": "hello",\n  "timestamp": "2024-01-15T10:30:00.000Z",}',
        "--- {role: user, content: hello, timestamp: 2024-01-15T10:30:00.000Z}\n",
        "role: user\ncontent: hello\ntimestamp: 2024-01-15T10:30:00.000Z\n",
        "timestamp: '2024-01-15T10:30:00.000Z'\n\n# c\ncontent: >-\n  hello\nrole: \"user\"   # who\n",
        "role: user\r\ncontent: hello\r\ntimestamp: 2024-01-15T10:30:00.000Z\r\n",
        "role: user\rcontent: hello\rtimestamp: 2024-01-15T10:30:00.000Z\r",
        "\ufeffrole: user\ncontent: hello\ntimestamp: 2024-01-15T10:30:00.000Z\n",
        '\ufeff{"role": "user", "content": "hello", "timestamp": "2024-01-15T10:30:00.000Z"}',
        "  role: user\n  content: hello\n  timestamp: 2024-01-15T10:30:00.000Z\n",
        "? role\n: user\n? content\n: hello\n? timestamp\n: 2024-01-15T10:30:00.000Z\n",
        "role: user\ncontent: hello\ntimestamp: 2024-01-15T10:30:00.000Z\nmetadata:\n",
        "role: user\ncontent: hello\ntimestamp: 2024-01-15T10:30:00.000Z\nmetadata: ~\n",
        "%YAML 1.2\n---\nrole: user\ncontent: hello\ntimestamp: 2024-01-15T10:30:00.000Z\n",
    ],
    ids=ascii,
)
def test_every_form_of_yaml_reads_as_the_same_message(document: str) -> None:
    assert parse(document.encode()) == HELLO


@pytest.mark.parametrize("style", ["content: {}", "{{content: {}, role: user}}", '{{"content": {}, "role": "user"}}'])
@pytest.mark.parametrize(
    "text", ["yes", "12:30", "2024-01-15", "null", "~", "1e3", "0x1F", "true", "-0", "1.50", "007", ".inf", "1_000"]
)
def test_content_is_always_the_text_that_was_written(style: str, text: str) -> None:
    document = style.format(text)
    document = document if document.startswith("{") else f"role: user\n{document}\n"
    assert parse(document.encode()).content == text


def test_an_empty_content_is_empty() -> None:
    assert parse(b"role: user\ncontent:\n").content == ""
    assert parse(b"{role: user, content: }").content == ""


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", "yes"),
        ("No", "No"),
        ("12:30", "12:30"),
        ("2024-01-15", "2024-01-15"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-012", -12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("+1.", 1.0),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("1" * 4300, int("1" * 4300)),
        ("1" * 4301, "1" * 4301),
        ("'12'", "12"),
        ('"true"', "true"),
        ("[1, a, [~]]", [1, "a", [None]]),
        ("{a: {b: 0.5}}", {"a": {"b": 0.5}}),
        ('"a\\u0085\\x7f\\U0001F44B"', "a\x85\x7f👋"),
        ("a\u2028b", "a\u2028b"),
        ('"\x7f \\ue000 \\uE001"', "\x7f \ue000 \ue001"),
    ],
    ids=lambda value: f"{value!a:.30}" if isinstance(value, str) else "",
)
def test_other_scalars_follow_the_core_schema_of_yaml_1_2(written: str, value: object) -> None:
    message = parse(f"role: user\ncontent: x\nmetadata:\n  a: {written}\nmore: {written}\n".encode())
    assert message.metadata == {"a": value}
    assert message.extra == {"more": value}
    assert type(message.extra["more"]) is type(value)


def test_unknown_keys_are_kept() -> None:
    for document in (
        b'role: user\nid: 7\ncontent: x\nname: "M"\ntags: [a]\n',
        b'{"role": "user", "id": 7, "content": "x", "name": "M", "tags": ["a"]}',
    ):
        assert parse(document).extra == {"id": 7, "name": "M", "tags": ["a"]}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("role: &a user\ncontent: x\n", "the anchor &a"),
        ("&a\nrole: user\ncontent: x\n", "the anchor &a"),
        ("role: user\ncontent: x\nmetadata: {a: &b [1], c: *b}\n", "the anchor &b"),
        ("role: user\ncontent: *a\n", "the alias \\*a"),
        ("{role: user, content: x, a: [*a]}", "the alias \\*a"),
        ("role: user\ncontent: !!str x\n", "the tag tag:yaml.org,2002:str"),
        ("!m {role: user, content: x}", "the tag !m"),
        ("role: user\ncontent: x\n!k key: 1\n", "the tag !k"),
        ("role: user\ncontent: x\ncontent: y\n", "line 3, column 1: the key 'content' stands twice"),
        ("{role: user, content: x, role: user}", "the key 'role' stands twice"),
        ('{"role": "user", "content": "x", "content": "x"}', "the key 'content' stands twice"),
        ('{"role": "user", "content": "x", "a": {"b": 1, "\\u0062": 1}}', "the key 'b' stands twice"),
        (f'role: user\ncontent: x\ntimestamp: "{TIMESTAMP}"\nmetadata:\n  a: 1\n  a: 1\n', "the key 'a' stands twice"),
        ("role: user\n", "the key content is missing"),
        ('{"content": "x"}', "the key role is missing"),
        ("role: robot\ncontent: x\n", "role 'robot' is unknown"),
        ("role: user\ncontent: [x]\n", "content has to be text, not a sequence"),
        ('{"role": "user", "content": {"a": 1}}', "content has to be text, not a mapping"),
        ("role: user\ncontent: x\ntimestamp: soon\n", "timestamp 'soon' is not a time"),
        ('{"role": "user", "content": "x", "timestamp": null}', "timestamp 'null' is not a time"),
        ("role: user\ncontent: x\nmetadata: 5\n", "metadata has to be a mapping, not a scalar"),
        ('{"role": "user", "content": "x", "metadata": [1]}', "metadata has to be a mapping, not a sequence"),
        ("role: user\ncontent: x\n[a]: b\n", "a key has to be text"),
        ("hello\n", "not a mapping"),
        ("- role: user\n", "not a mapping"),
        ("", "nothing but comments"),
        ("role: user\ncontent: 'x\n", "end of stream"),
        ("role: user\ncontent: a: b\n", "line 2, column 11: mapping values are not allowed"),
        ("role: user\ncontent: a\x00b\n", "control characters are not allowed"),
        ('{"role": "user", "content": "\\ud83d"}', "lone surrogate U\\+D83D"),
        ("role: user\ncontent: x\na: " + "[" * 65 + "]" * 65, "nested deeper than 64"),
        ('{"role": "user", "content": "x", "a": ' + "[" * 900 + "]" * 900 + "}", "nested deeper than 64"),
        ("role: user\ncontent: x\na: " + "[" * 9000, "maximum nesting depth"),
    ],
    ids=lambda text: f"{text!a:.50}",
)
def test_what_is_no_message_is_refused_with_the_reason(document: str, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        parse(document.encode())


def test_what_is_not_utf_8_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidMessage, match="at byte 20: not UTF-8"):
        parse(b"role: user\ncontent: \xff\n")


def test_a_lone_surrogate_deep_in_json_is_refused_as_everywhere() -> None:
    with pytest.raises(InvalidMessage, match="lone surrogate U\\+DC00"):
        parse(b'{"role": "user", "content": "x", "metadata": {"a": ["\\udc00"]}}')
    paired = parse(b'{"role": "user", "content": "x", "metadata": {"a": ["\\ud83d\\udc4b"]}}')
    assert paired.metadata == {"a": ["👋"]}


def test_a_document_without_a_timestamp_is_a_message_to_append_but_damage_where_it_is_stored() -> None:
    assert parse(b"role: user\ncontent: x\n").timestamp == ""
    assert list(read(b"role: user\ncontent: x\n---\n")) == [Damage(0, 26, "the key timestamp is missing", torn=False)]


def test_a_terminator_glued_to_a_record_is_reported_as_the_damage_it_is() -> None:
    """What a serializer that ends without a newline makes of `stringify(message) + '---\\n'`."""
    glued = b"".join(
        f'role: user\ncontent: "{content}"\ntimestamp: "{TIMESTAMP}"---\n'.encode() for content in ("one", "two")
    )
    _, damage, _ = read(RECORD + glued + b"---\n" + RECORD)
    assert isinstance(damage, Damage)
    assert (damage.offset, damage.length, damage.torn) == (len(RECORD), len(glued) + 4, False)
    plain = f"role: user\ncontent: one\ntimestamp: {TIMESTAMP}\nid: a---\nrole: user\ncontent: two\n---\n".encode()
    (damage,) = read(plain)
    assert isinstance(damage, Damage)
    assert "stands twice; a missing line break before --- looks like this, too" in damage.reason


def test_damage_has_its_offset_in_the_conversation() -> None:
    data = RECORD + b"garbage\n---\n" + RECORD
    first, damage, last = read(data, base=1000)
    assert first == last == HELLO
    assert isinstance(damage, Damage)
    assert (damage.offset, damage.length, damage.torn) == (1000 + len(RECORD), 12, False)


@pytest.mark.parametrize(
    "tail", [b"r", b"role: user\n", b"role: user\ncontent: x\n", RECORD[:-5], b"\xff\n", b'{"role"']
)
def test_a_torn_tail_is_reported_with_its_offset(tail: bytes) -> None:
    first, damage = read(RECORD + tail)
    assert first == HELLO
    assert isinstance(damage, Damage)
    assert (damage.offset, damage.length, damage.torn) == (len(RECORD), len(tail), True)


@pytest.mark.parametrize("end", [b"", b"---", b"---\n", b"...\n", b"\n", b"# c\n"])
def test_a_whole_message_that_ends_in_a_newline_needs_no_terminator(end: bytes) -> None:
    assert list(read(RECORD + RECORD[:-4] + end)) == [HELLO, HELLO]


@quick
@given(messages, st.integers(0, 10**6))
def test_a_record_cut_anywhere_is_a_torn_tail_or_a_message_that_was_written(message: ChatMessage, cut: int) -> None:
    encoded = record.encode(message)
    entries = list(read(RECORD + encoded[: cut % len(encoded)]))
    assert entries[0] == HELLO
    for entry in entries[1:]:
        if isinstance(entry, Damage):
            assert (entry.offset, entry.torn) == (len(RECORD), True)
        else:
            # Whole keys behind the timestamp may be missing; what was said is not changed.
            assert mark(entry) == mark(message)


# One piece of damage: it says something, has no marker in it, and does not begin with directives, whose document would
# be the next one.
_garbage = st.one_of(
    st.binary(min_size=1, max_size=40),
    mutated(messages.map(document_of)).map(str.encode),
    st.sampled_from(
        [b"\xff", b'content: "unclosed', b"{", b"%garbage\n", b"a: &b", b"|\n", b"'", b"# c\n- x\n", b"\r\nx\r"]
    ),
).filter(lambda data: not stream.is_blank(data) and not stream.has_marker(data, 0))


@settings(quick, max_examples=200)
@given(st.lists(messages | _garbage, min_size=1, max_size=6), st.integers(0, 10**6))
def test_damage_does_not_hide_its_neighbours(parts: list[ChatMessage | bytes], base: int) -> None:
    assume(not any(isinstance(part, bytes) and (b"%YAML" in part or b"%TAG" in part) for part in parts))
    data = b""
    entries: list[ChatMessage | Damage] = []
    for part in parts:
        at = len(data)
        if isinstance(part, ChatMessage):
            data += record.encode(part)
            entries.append(part)
        else:
            data += part + b"\n---\n"
            # It may happen to be a message after all; then that is what is expected.
            alone = list(read(part + b"\n---\n", base + at))
            assert len(alone) == 1
            entries += alone
            if isinstance(alone[0], Damage):
                assert base + at <= alone[0].offset < base + len(data) == alone[0].offset + alone[0].length
    assert list(map(repr, read(data, base))) == list(map(repr, entries))


@quick
@given(st.lists(messages, max_size=4))
def test_fingerprints_are_those_of_the_messages(batch: list[ChatMessage]) -> None:
    data = b"".join(map(record.encode, batch)) + b"torn"
    assert list(reading.messages(data)) == batch
    assert list(reading.marks(data)) == list(map(mark, batch))


@quick
@given(st.binary(max_size=80) | mutated(messages.map(document_of)).map(str.encode))
def test_any_bytes_are_messages_or_damage_and_never_an_error(data: bytes) -> None:
    for entry in read(data):
        assert isinstance(entry, ChatMessage | Damage)
        if isinstance(entry, Damage):
            assert entry.reason
            assert data[entry.offset : entry.offset + entry.length]


@quick
@given(mutated(messages.map(document_of)))
def test_a_message_that_was_read_can_be_written_again(document: str) -> None:
    for entry in read(document.encode() + b"\n---\n"):
        if isinstance(entry, Damage):
            continue
        refused = ""
        try:
            written = record.encode(entry).removesuffix(record.TERMINATOR)
        except InvalidMessage as error:
            refused = str(error)
        else:
            assert repr(parse(written)) == repr(entry)
        # But for two keys: the merge key, and one that is too long when it is quoted.
        assert not refused or refused.startswith("the key ")


@pytest.mark.parametrize("indent", [None, 2])
def test_json_of_any_program_is_read(indent: int | None) -> None:
    items = {"role": "tool", "content": "Grüße 👋\n", "timestamp": TIMESTAMP, "metadata": {"a": [1, {"👋": None}]}}
    for ascii_only in (True, False):
        document = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode()
        assert parse(document) == ChatMessage("tool", "Grüße 👋\n", TIMESTAMP, {"a": [1, {"👋": None}]})
