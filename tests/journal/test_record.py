"""The record format, byte for byte as its description shows it."""

from enum import IntEnum
from typing import Any

import pytest

from potofs.errors import InvalidMessage
from potofs.journal import record
from potofs.journal.message import ChatMessage
from potofs.journal.record import decode, encode
from tests.journal.generated import TIMESTAMP, by_libyaml

END = f'\ntimestamp: "{TIMESTAMP}"\n'


def written(content: str) -> str:
    """How a content is written, from behind its key to the end of its last line."""
    text = encode(ChatMessage("user", content, TIMESTAMP)).decode()
    assert text.startswith("role: user\ncontent: ")
    assert text.endswith(END + "---\n")
    return text.removeprefix("role: user\ncontent: ").removesuffix(END + "---\n")


def test_a_record_has_its_keys_in_order_and_ends_in_the_terminator() -> None:
    message = ChatMessage(
        "user", "Hello, how are you today?", TIMESTAMP, {"model": "gpt-4", "tokens": 15}, {"id": "m1", "tags": ["a"]}
    )
    assert encode(message) == (
        b"role: user\n"
        b"content: Hello, how are you today?\n"
        b'timestamp: "2024-01-15T10:30:00.000Z"\n'
        b"metadata:\n"
        b'  model: "gpt-4"\n'
        b"  tokens: 15\n"
        b'id: "m1"\n'
        b'tags: ["a"]\n'
        b"---\n"
    )


@pytest.mark.parametrize(
    "content",
    ["Hello!", "I'm well: thanks", "Grüße aus Köln 👋", "a #b", "a, b [c] {d}", "yes!", "a:b", "a#b", 'say "hi"', "é"],
)
def test_one_line_that_reads_alike_everywhere_is_plain(content: str) -> None:
    expected = f'"{content}"' if ": " in content or " #" in content else content
    assert written(content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", '""'),
        ("yes", '"yes"'),
        ("NULL", '"NULL"'),
        ("nan", '"nan"'),
        ("12:30", '"12:30"'),
        ("2024-01-15", '"2024-01-15"'),
        ("- a", '"- a"'),
        ("# a", '"# a"'),
        ("---", '"---"'),
        ("key: value", '"key: value"'),
        ("ends in a colon:", '"ends in a colon:"'),
        ("a # b", '"a # b"'),
        (" leading", '" leading"'),
        ("trailing ", '"trailing "'),
        ("a\tb", r'"a\tb"'),
        ('"quoted" \\', r'"\"quoted\" \\"'),
        ("a\rb", r'"a\rb"'),
        ("a\r\nb", r'"a\r\nb"'),
        ("\n", r'"\n"'),
        ("a\n  ", r'"a\n  "'),
        ("nul \0", r'"nul \u0000"'),
        ("a\x7f\x80\x85b", r'"a\u007f\u0080\u0085b"'),
        ("a\u2028\u2029\ufeff\uffffb", r'"a\u2028\u2029\ufeff\uffffb"'),
        ("two\nlines\u0085", r'"two\nlines\u0085"'),
    ],
    ids=ascii,
)
def test_what_could_be_misread_is_in_double_quotes(content: str, expected: str) -> None:
    assert written(content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Two things:\n1. the first", "|-\n  Two things:\n  1. the first"),
        ("one\ntwo\n", "|\n  one\n  two"),
        ("one\n\ntwo\n\n", "|+\n  one\n\n  two\n"),
        ("  indented\nnot", "|2-\n    indented\n  not"),
        ("\nbegins empty", "|2-\n\n  begins empty"),
        ("\tbegins with a tab\n", "|2\n  \tbegins with a tab"),
        ("# no comment\n--- no marker\n...\n", "|\n  # no comment\n  --- no marker\n  ..."),
        ("a\n  \n", "|\n  a\n    "),
    ],
    ids=ascii,
)
def test_several_lines_are_a_literal_block(content: str, expected: str) -> None:
    assert written(content) == expected


def test_what_is_nested_in_metadata_is_written_as_json_on_one_line() -> None:
    metadata = {"tool": {"name": "search", "hits": [1, 2.5, None, True]}, "empty": {}, "a b": "x", "yes": False}
    text = encode(ChatMessage("tool", "x", TIMESTAMP, metadata)).decode()
    assert text.endswith(
        "metadata:\n"
        '  tool: {"name": "search", "hits": [1, 2.5, null, true]}\n'
        "  empty: {}\n"
        '  "a b": "x"\n'
        '  "yes": false\n'
        "---\n"
    )


def test_empty_metadata_is_kept_apart_from_none() -> None:
    assert b"metadata: {}\n" in encode(ChatMessage("user", "x", TIMESTAMP, {}))
    assert b"metadata" not in encode(ChatMessage("user", "x", TIMESTAMP))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e16, "1.0e+16"),
        (1.5e-7, "1.5e-07"),
        (float("inf"), ".inf"),
        (float("-inf"), "-.inf"),
        (float("nan"), ".nan"),
        (-0.0, "-0.0"),
        ((1, 2), "[1, 2]"),
    ],
)
def test_numbers_are_written_so_that_yaml_1_1_takes_them_for_numbers(value: Any, expected: str) -> None:
    assert f"  a: {expected}\n".encode() in encode(ChatMessage("user", "x", TIMESTAMP, {"a": value}))


def test_a_subclass_of_a_number_is_written_as_the_number() -> None:
    class Grade(IntEnum):
        GOOD = 3

        def __repr__(self) -> str:
            return "good"

        __str__ = __repr__

    class Loud(float):
        """As numpy.float64 does."""

        def __repr__(self) -> str:
            return f"Loud({float(self)})"

    text = encode(ChatMessage("user", "x", TIMESTAMP, {"grade": Grade.GOOD, "score": Loud(0.5)}))
    assert b"  grade: 3\n  score: 0.5\n" in text


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_metadata_is_nested_as_deep_as_it_can_be_read_back_and_no_deeper() -> None:
    message = ChatMessage("user", "x", TIMESTAMP, {"a": nested(63)}, {"b": nested(64)})
    assert by_libyaml(encode(message).removesuffix(record.TERMINATOR).decode()) == message
    cyclic: dict[str, Any] = {}
    cyclic["again"] = cyclic
    too_deep: list[tuple[dict[str, Any] | None, dict[str, Any]]] = [
        ({"a": nested(64)}, {}),
        (None, {"b": nested(65)}),
        (cyclic, {}),
    ]
    for metadata, extra in too_deep:
        with pytest.raises(InvalidMessage, match="nested deeper than 64"):
            encode(ChatMessage("user", "x", TIMESTAMP, metadata, extra))


def test_a_key_is_as_long_as_yaml_takes_it_and_no_longer() -> None:
    message = ChatMessage("user", "x", TIMESTAMP, {"k" * 1022: {"l" * 1022: 1}}, {"m" * 201: 2})
    assert by_libyaml(encode(message).removesuffix(record.TERMINATOR).decode()) == message
    too_long: list[dict[str, Any]] = [{"k" * 1023: 1}, {"a": {"k" * 1023: 1}}, {"\n" * 600: 1}]
    for metadata in too_long:
        with pytest.raises(InvalidMessage, match="too long"):
            encode(ChatMessage("user", "x", TIMESTAMP, metadata))


def test_the_merge_key_of_yaml_1_1_is_refused() -> None:
    several: list[dict[str, Any]] = [{"<<": 1}, {"a": {"<<": {}}}, {"a": [{"<<": []}]}]
    for metadata in several:
        with pytest.raises(InvalidMessage, match="the key <<"):
            encode(ChatMessage("user", "x", TIMESTAMP, metadata))


@pytest.mark.parametrize(
    "value", [b"bytes", {1, 2}, object(), {1: "a"}, [{None: 1}], 10**5000], ids=lambda value: type(value).__name__
)
def test_a_value_that_json_does_not_have_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessage, match=r"JSON's types|has to be text|digits"):
        encode(ChatMessage("user", "x", TIMESTAMP, {"a": value}))


def test_a_record_needs_a_timestamp() -> None:
    with pytest.raises(InvalidMessage, match="needs a timestamp"):
        encode(ChatMessage("user", "x"))


@pytest.mark.parametrize(
    "document",
    [
        "role: user\ncontent: x\n",
        f"role: user\ncontent: a: b{END}",
        f"role: user\ncontent: a #b{END}",
        f"role: user\ncontent: 12{END}",
        f"role: user\ncontent: 'x'{END}",
        f"role: user\ncontent: x{END}# a comment\n",
        f"content: x\nrole: user{END}",
        f"role: user\r\ncontent: x{END}",
        f'role: user\ncontent: "\\ud83d\\ude00"{END}',
        f"role: user\ncontent: x{END}metadata:\n  a: 1\n  a: 2\n",
        f"role: user\ncontent: x{END}metadata:\n  a: 0x1F\n",
        f"role: user\ncontent: x{END}metadata:\n  {'k' * 2000}: 1\n",
        f"role: user\ncontent: |\n    deeper\n  than that{END}",
        f"role: user\ncontent: a\u0085b{END}",
    ],
    ids=ascii,
)
def test_another_form_than_ours_is_left_to_the_general_way(document: str) -> None:
    assert decode(document) is None


def test_our_own_form_is_read_back() -> None:
    metadata = {"model": "gpt-4", "tokens": -15, "score": 0.25, "ok": True, "none": None, "esc": 'a\n"\\'}
    for content in ("Hello", "yes", "a\nb", "a\nb\n", "a\n\n\n", "  a\n", "\n\nb", ""):
        message = ChatMessage("assistant", content, TIMESTAMP, metadata)
        assert decode(encode(message).removesuffix(record.TERMINATOR).decode()) == message


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="not a time"):
        decode('role: user\ncontent: x\ntimestamp: "2024-13-01"\n')


@pytest.mark.parametrize(
    "document",
    [
        'role: user\ncontent: "' + "a" * 5000 + END,
        'role: user\ncontent: "' + "\\n" * 5000 + END,
        "role: user\ncontent: x" + END + "metadata:\n" + '  a: "b"\n' * 500 + '  a: "' + "b" * 5000 + "\n",
        "role: user\ncontent: |\n  x\n" + "\n" * 5000,
    ],
    ids=["quote", "escapes", "metadata", "literal"],
)
def test_a_missing_end_shows_at_once_however_long_the_text(document: str) -> None:
    """With two ways to match the same text, the search would take longer than anybody lives."""
    assert decode(document) is None
