"""Where documents begin and end."""

import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from potofs.journal import record, stream
from potofs.journal.message import ChatMessage
from tests.journal.generated import as_json, by_bun, messages
from tests.journal.test_record_properties import quick, through_json

BOM = b"\xef\xbb\xbf"


def split(data: bytes) -> list[bytes]:
    return [data[document.start : document.end] for document in stream.documents(data)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n \t\r\n", []),
        (b"---\n", []),
        (b"---\n---\n...\n---", []),
        (b"# only a comment\n---\n", []),
        (b"a: 1\n---\n", [b"a: 1\n"]),
        (b"a: 1\n---\nb: 2\n---\n", [b"a: 1\n", b"b: 2\n"]),
        (b"---\na: 1\n---\nb: 2\n", [b"a: 1\n", b"b: 2\n"]),
        (b"a: 1\n...\nb: 2\n...\n", [b"a: 1\n", b"b: 2\n"]),
        (b"a: 1\n...\n---\nb: 2\n...\n---\n", [b"a: 1\n", b"b: 2\n"]),
        (b"a: 1\n---", [b"a: 1\n"]),
        (b"a: 1\n--- \t\nb: 2\n--- # end\n", [b"a: 1\n", b"b: 2\n"]),
        (b"--- {a: 1}\n--- {b: 2}\n---\n", [b"--- {a: 1}\n", b"--- {b: 2}\n"]),
        (b"--- {a: 1}\n", [b"--- {a: 1}\n"]),
        (b"---\ta: 1\n", [b"---\ta: 1\n"]),
        (b"# c\na: 1\n---\n# d\n\nb: 2\n---\n", [b"# c\na: 1\n", b"# d\n\nb: 2\n"]),
        (b"a: 1\r\n---\r\nb: 2\r\n---\r\n", [b"a: 1\r\n", b"b: 2\r\n"]),
        (b"a: 1\r---\rb: 2\r---\r", [b"a: 1\r", b"b: 2\r"]),
        (BOM + b"a: 1\n---\n" + BOM + b"b: 2\n", [BOM + b"a: 1\n", BOM + b"b: 2\n"]),
        (BOM + b"---\na: 1\n", [b"a: 1\n"]),
        (BOM + b"# c\n---\na: 1\n", [b"a: 1\n"]),
        (b"a: 1\n" + BOM + b"---\nb: 2\n", [b"a: 1\n", b"b: 2\n"]),
        (b"%YAML 1.2\n---\na: 1\n---\n", [b"%YAML 1.2\n---\na: 1\n"]),
        (
            b"# c\n%YAML 1.2\n# d\n%TAG ! x\n\n---\na: 1\n---\nb: 2\n",
            [b"# c\n%YAML 1.2\n# d\n%TAG ! x\n\n---\na: 1\n", b"b: 2\n"],
        ),
        (b"%garbage\n---\na: 1\n---\n", [b"%garbage\n", b"a: 1\n"]),
        (b"%YAML 1.2\na: 1\n---\nb: 2\n---\n", [b"%YAML 1.2\na: 1\n", b"b: 2\n"]),
        (b"a: 1\n----\n---a\n....\n ---\n---\n", [b"a: 1\n----\n---a\n....\n ---\n"]),
        (b"---# no marker\n", [b"---# no marker\n"]),
        (b"a: 1---\nb: 2\n---\n", [b"a: 1---\nb: 2\n"]),
    ],
    ids=ascii,
)
def test_documents_are_split_as_yaml_says(data: bytes, expected: list[bytes]) -> None:
    assert split(data) == expected


def test_only_a_document_without_a_marker_behind_it_is_unterminated() -> None:
    assert [document.terminated for document in stream.documents(b"a: 1\n---\nb: 2\n")] == [True, False]
    assert [document.terminated for document in stream.documents(b"a: 1\n---\nb: 2\n---")] == [True, True]
    assert [document.terminated for document in stream.documents(b"--- {a: 1}\n--- {b: 2}\n")] == [True, False]


def test_a_document_on_the_line_of_a_marker_begins_there() -> None:
    first, second = stream.documents(b"--- {a: 1}\n--- {b: 2}\n---\n")
    assert first == (0, 11, 11, True)
    assert second == (11, 22, 26, True)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n" * 5000 + b"a: 1\r\n---\r\n",
        b"# " * 5000 + b"\na: 1\n---\n",
        b"#\n" * 5000 + b"a: 1\n---\n",
        b" " * 5000 + b"a: 1\n---\n",
    ],
    ids=["line breaks", "hashes", "comments", "blanks"],
)
def test_what_says_nothing_is_stepped_over_in_linear_time(data: bytes) -> None:
    """With two ways to match the same text, the search would take longer than anybody lives."""
    assert len(split(data)) == 1
    assert not stream.is_blank(data)
    assert not stream.says_nothing(data)
    assert not stream.begins_with_directive(data)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"---\n", b" \n---\n...\n", b"---", BOM + b"---\r\n", b"---\r---\r"])
def test_markers_and_white_space_say_nothing(data: bytes) -> None:
    assert stream.says_nothing(data)


@pytest.mark.parametrize("data", [b"#\n", b"a", b"----\n", b"--- #\n", b"---\n-"])
def test_even_a_comment_says_something(data: bytes) -> None:
    assert not stream.says_nothing(data)


@pytest.mark.parametrize("line", [b"---\n", b"...\n", b"--- \t\r\n", b"--- # that's it\n", b"---\r", b"---\n\n"])
def test_a_marker_alone_on_its_line_ends_a_record(line: bytes) -> None:
    assert stream.ends_in_marker(line)


@pytest.mark.parametrize("line", [b"---", b"--- a\n", b" ---\n", b"----\n", b"---#\n", b"a---\n"])
def test_another_line_does_not(line: bytes) -> None:
    assert not stream.ends_in_marker(line)


fragments = st.sampled_from(
    [
        b"---",
        b"...",
        b"\n---\n",
        b"\n",
        b"\r\n",
        b"\r",
        b" ",
        b"\t",
        b"#",
        b"# c\n",
        b"%",
        b"%YAML 1.2\n",
        b"%TAG ! x\n",
        BOM,
        b"-",
        b"a",
        b"a: 1\n",
        b"  b",
        b"{",
        b"}\n",
        "é".encode(),
        b"\n--- ",
        b"\n...\n",
    ]
)
streams = st.lists(fragments, max_size=16).map(b"".join)
plain_fragments = st.sampled_from(
    [b"\n---\n", b"---\n", b"\n", b"\n---", b"a", b" ", b"\t", b"a: 1\n", b" # c", b"- ", b"%", b"-"]
)
plain_streams = st.lists(plain_fragments, max_size=16).map(b"".join)


@settings(quick, max_examples=1000)
@given(plain_streams | streams)
def test_the_quick_splitter_agrees_with_the_general_one(data: bytes) -> None:
    assert list(stream.documents(data)) == list(stream._documents(data))


@settings(quick, max_examples=500)
@given(streams)
def test_documents_follow_each_other_and_leave_out_nothing_that_says_something(data: bytes) -> None:
    at = 0
    for document in stream.documents(data):
        assert at <= document.start < document.end <= document.stop
        assert stream.is_blank(data[document.stop : document.stop])
        assert not stream.is_blank(data[document.start : document.end])
        at = document.stop
        assert document.terminated or document.end == document.stop == len(data)


@settings(quick, max_examples=500)
@given(streams)
def test_a_document_taken_out_of_its_stream_is_still_that_one_document(data: bytes) -> None:
    at = 0
    for document in stream.documents(data):
        alone = list(stream.documents(data[at : document.stop]))
        assert [(at + one.start, at + one.end) for one in alone] == [(document.start, document.end)]
        at = document.stop


@quick
@given(st.lists(messages, min_size=1, max_size=4))
def test_concatenated_records_are_split_as_pyyaml_splits_them(batch: list[ChatMessage]) -> None:
    data = b"".join(map(record.encode, batch))
    assert b"---\n".join([*split(data), b""]) == data
    # The last terminator begins one more document, an empty one.
    assert list(yaml.load_all(data, yaml.CSafeLoader)) == [*map(as_json, batch), None]


@settings(quick, max_examples=3, phases=[Phase.generate])
@given(st.lists(st.lists(messages, min_size=1, max_size=3), min_size=25, max_size=25))
def test_concatenated_records_are_split_as_bun_splits_them(batches: list[list[ChatMessage]]) -> None:
    streams = [b"".join(map(record.encode, batch)).decode() for batch in batches]
    for batch, parsed in zip(batches, by_bun(streams), strict=True):
        assert through_json(parsed) == through_json({"value": [*map(as_json, batch), None]})


def test_streams_of_other_writers_are_split_as_bun_splits_them() -> None:
    streams = [
        "---\na: 1\n---\nb: 2\n",
        "a: 1\n...\n---\nb: 2\n",
        "--- {a: 1}\n--- {b: 2}\n",
        "# c\na: 1\n--- # d\nb: 2\n",
        "a: 1\r\n---\r\nb: 2\r\n",
        "%YAML 1.2\n---\na: 1\n---\nb: 2\n",
        "a: |\n  x\n   ---\n---\nb: 2\n",
    ]
    for text, parsed in zip(streams, by_bun(streams), strict=True):
        assert len(split(text.encode())) == len(parsed["value"]) == 2, text
