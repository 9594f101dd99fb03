"""Import of what is wrong, or large: the place is named, nothing of it is stored, and memory does not grow."""

import errno
import json
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potofs import ChatMessage, DialogueJournal
from potofs.backends.base import Backend, Record
from potofs.errors import InvalidMessage
from potofs.journal import record
from potofs.journal.exchange import FORMATS, Format, intake
from potofs.journal.exchange.spool import Spool
from tests.journal.test_exchange import ANSWER, HELLO, memory
from tests.journal.test_record_properties import quick

_GOOD = HELLO.to_json()


def _nested(depth: int) -> str:
    return _GOOD.replace("2}", f"{'[' * depth}{']' * depth}}}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1, column 1: a JSON array of messages has to begin with ["),
        (_GOOD, "line 1, column 1: a JSON array"),
        ("\n\n  [", "line 3, column 4: a message was expected here"),
        (f"[{_GOOD},\n  ]", "line 2, column 3: a message was expected here"),
        (f"[{_GOOD},\n 7]", "line 2, column 2: a message was expected here"),
        (f"[{_GOOD}\n {_GOOD}]", "line 2, column 2: a comma or ] is missing"),
        (f"[\n{_GOOD}\n", "line 3, column 1: the end of the array is missing"),
        (f"[\n{_GOOD},\n{_GOOD[:-4]}", "line 3, column 1: the message that begins here has no end"),
        ('[{"a": "\\', "line 1, column 2: the message that begins here has no end"),
        (f"[{_GOOD}]\nx", "line 2, column 1: something follows the array"),
        (f'[{_GOOD},\n {{"role": "user"\n,  "content" "a"}}]', "line 3, column 14: message 2: Expecting ':' delimiter"),
        (f'[{_GOOD},\n {{"role" "user"}}]', "line 2, column 10: message 2: Expecting ':' delimiter"),
        (f'[{_GOOD},\n {{"role": ]}}]', "line 2, column 11: message 2: Expecting value"),
        (
            f'[{_GOOD},\n {{"role": "user", "role": "user"}}]',
            "line 2, column 19: message 2: the key 'role' stands twice",
        ),
        (f'[{_GOOD},\n {{"$numberDouble": "NaN"}}]', "line 2, column 2: message 2: a message has to be an object"),
        (
            f'[{_GOOD},\n {{"role": "user", "content": "a"}}]',
            "line 2, column 2: message 2: the key timestamp is missing",
        ),
        (f"[{_GOOD},\n {_GOOD.replace('user', 'robot')}]", "line 2, column 11: message 2: role 'robot' is unknown"),
        (f"[{_GOOD},\n {_GOOD.replace('Mia', chr(92) + 'ud800')}]", "line 2, column 130: message 2: a lone surrogate"),
        (f"[{_GOOD},\n {_GOOD.replace('name', '<<')}]", "line 2, column 122: message 2: the key <<"),
        (
            f"[{_GOOD},\n {_GOOD.replace('2}', '[' * 99_999 + ']' * 99_999 + '}')}]",
            "line 2, column 181: message 2: a value is nested too deep",
        ),
        (
            f"[{_GOOD},\n {_GOOD.replace('2}', '[' * 70 + ']' * 70 + '}')}]",
            "line 2, column 181: message 2: a value is nested deeper",
        ),
    ],
)
def test_a_mistake_in_json_is_named_with_line_and_column_and_nothing_is_stored(text: str, error: str) -> None:
    _refused(text, "json", error)


_WELL = '"role": "user", "content": "a", "timestamp": "2024-01-15"'


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('{"role": ¦"robot", "content": "a", "timestamp": "2024-01-15"}', "role 'robot' is unknown"),
        ('{"timestamp": "2024-01-15", "content": "a",\n"role":\n\t¦7}', "role 7 is unknown"),
        ('{"role": "user",\n  "content" :  ¦null, "timestamp": "2024-01-15"}', "content has to be text, not NoneType"),
        ('{"role": "user", "content": ¦{"a": 1}, "timestamp": "2024-01-15"}', "content has to be text, not dict"),
        ('{"role": "user", "content": ¦"é\\ud800", "timestamp": "2024-01-15"}', "content has a lone surrogate U+D800"),
        ('{"role": "user", "content": "a", "timestamp": ¦""}', "the key timestamp is missing or empty"),
        ('{"role": "user", "content": "a", "timestamp": ¦"noon"}', "timestamp 'noon' is not a time"),
        ('{"role": "user", "content": "a", "timestamp": ¦1705314600}', "timestamp has to be text, not int"),
        ('{"timestamp": ¦"noon", "role": "robot"}', "timestamp 'noon' is not a time"),
        (f'{{{_WELL}, "metadata": ¦[1, 2]}}', "metadata has to be a mapping, not list"),
        (f'{{{_WELL},\n "metadata": {{\n  "a": 1,\n  "b": [1, {{¦"<<": 2}}]\n}}}}', "the key << means something else"),
        (f'{{{_WELL}, "metadata": {{"a": 1, "b": 2, ¦"a": 3}}}}', "the key 'a' stands twice"),
        (f'{{{_WELL}, "metadata": {{"a": [0, ¦NaN]}}}}', 'NaN is no JSON: write {"$numberDouble": "NaN"}'),
        (f'{{{_WELL}, "x": {{"a": [[], ¦{"9" * 5000}]}}}}', "a number has more digits than can be read"),
        (f'{{{_WELL}, "x": {{"a": ["ok", ¦"\\udc00"]}}}}', "a lone surrogate U+DC00 is no text"),
        (f'{{{_WELL}, "x": {{"ok": 1,\n ¦"\\udc00": 1}}}}', "a lone surrogate U+DC00 is no text"),
        (f'{{{_WELL}, ¦"<<": {{"a": 1}}}}', "the key << means something else"),
        (f'{{{_WELL}, "x": 1, ¦"x": 1}}', "the key 'x' stands twice"),
        ('¦{"role": "user", "content": "a"}', "the key timestamp is missing"),
        ("¦{}", "the key role is missing"),
        (f'{{{_WELL}, "x": [1,\n¦,2]}}', "Expecting value"),
        (f'{{{_WELL}, "x": "a¦\n"}}', "Invalid control character at"),
    ],
)
@pytest.mark.parametrize("before", ["[", "[\n  ", f"[{_GOOD},\r\n\t", f"\ufeff [\n\n{_GOOD},é"[:-1]])
def test_what_is_wrong_in_a_message_is_named_with_its_own_line_and_column(
    before: str, message: str, reason: str
) -> None:
    marked = f"{before}{message},\n{_GOOD}]"
    number = 2 if _GOOD in before else 1
    _refused(marked.replace("¦", ""), "json", f"{_place(marked)}message {number}: {reason}")


def _place(marked: str) -> str:
    """Line and column of the mark, as an error begins with them."""
    before = marked[: marked.index("¦")].removeprefix("\ufeff")
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}: "


def test_a_message_without_an_end_is_not_waited_for() -> None:
    """One quotation mark is missing, and all of a large file is text."""
    given = 0

    def pieces() -> Iterator[str]:
        nonlocal given
        yield '[{"role": "user", "content": "a}'
        while True:
            given += 1 << 20
            yield "a" * (1 << 20)

    with memory() as journal, pytest.raises(InvalidMessage, match="line 1, column 2: the message that begins here is"):
        journal.import_pieces("mia", pieces(), "json")
    assert given < 1 << 25


@quick
@given(st.data())
def test_whatever_is_wrong_its_place_is_in_the_file(data: st.DataObject) -> None:
    """Characters taken out of a good file, or put into it."""
    text = f'[{_GOOD},\n{{{_WELL}, "metadata": {{"a": [1, {{"b": null}}]}}}}]'
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        put = data.draw(
            st.sampled_from(["", "{", "}", "[", "]", '"', ",", ":", "\\", "\n", "é", "NaN", "<<", "9" * 5000])
        )
        text = text[:at] + put + text[at + data.draw(st.integers(0, 2)) :]
    found = None
    with memory() as journal:
        try:
            journal.import_conversation("mia", text, "json")
        except InvalidMessage as error:
            found = error
    if found is not None:
        lines = text.split("\n")
        assert found.line is not None
        assert found.column is not None
        assert 1 <= found.line <= len(lines)
        assert 1 <= found.column <= len(lines[found.line - 1]) + 1


_HEAD = "role,content,timestamp,metadata,extra\n"
_ROW = "user,a,2024-01-15,,\n"


@pytest.mark.parametrize(
    ("marked", "reason"),
    [
        ("¦", "the first row has to name the columns: role, content and timestamp are missing"),
        ("role,metadata¦\n", "the first row has to name the columns: content and timestamp are missing"),
        ("role,content¦\n", "the first row has to name the columns: timestamp is missing"),
        ("\r\nrole,content,¦time\r\n", "the column 'time' is unknown"),
        ('"role",content,¦role\n', "the column 'role' stands twice"),
        (f"{_HEAD}{_ROW}user,a,2024-01-15¦\r\n", "there are 3 fields, and 5 columns"),
        (f'{_HEAD}user,"a\nb",2024-01-15,,\nuser¦\n', "there are 1 fields, and 5 columns"),
        (f'{_HEAD}user,"a\nb",2024-01-15,,,¦1,\n', "there are 7 fields, and 5 columns"),
        (f'{_HEAD}{_ROW}user,¦"a\nb', "not CSV: the field that begins here has no closing quotation mark"),
        (f'{_HEAD}{_ROW}user,"a\n,b",¦"c,\n,,', "not CSV: the field that begins here has no closing quotation mark"),
        (f'{_HEAD}{_ROW}user,"a"¦b,2024-01-15,,\n', "not CSV: behind a closing quotation mark a comma or"),
        (f'{_HEAD}{_ROW}"user","a\n"",b"¦ ,2024-01-15,,\n', "not CSV: behind a closing quotation mark a comma or"),
        (f"{_HEAD}{_ROW}user,a¦\rb,2024-01-15,,\n", "not CSV: a carriage return has to stand inside quotation marks"),
        (f"{_HEAD}{_ROW}¦robot,a,2024-01-15,,\n", "role 'robot' is unknown"),
        (f"{_HEAD}{_ROW}user,¦\ud800,2024-01-15,,\n", "content has a lone surrogate"),
        (f"{_HEAD}{_ROW}user,a,¦,,\n", "timestamp: a timestamp is missing"),
        (f'{_HEAD}{_ROW}user,"é\r\n""b",¦noon,,\n', "timestamp 'noon' is not a time"),
        (f'{_HEAD}{_ROW}"user",a,¦"noon",,\n', "timestamp 'noon' is not a time"),
        (f"{_HEAD}{_ROW}user,a,¦noon,[,[\n", "timestamp 'noon' is not a time"),
        (f"{_HEAD}{_ROW}user,a,2024-01-15,¦[],\n", "metadata has to be a mapping, not list"),
        (f"{_HEAD}{_ROW}user,a,2024-01-15,¦null,\n", "metadata: this has to be a JSON object"),
        (f"{_HEAD}{_ROW}user,a,2024-01-15,{{¦,\n", "metadata: not JSON: Expecting property name"),
        (f'{_HEAD}{_ROW}user,a,2024-01-15,"{{""a""\n:""b"",\n""c"" ¦}}",\n', "metadata: not JSON: Expecting ':'"),
        (f'{_HEAD}{_ROW}user,a,2024-01-15,,"{{""x"":1, ¦""<<"": 1}}"\n', "extra: the key <<"),
        (f'{_HEAD}{_ROW}user,a,2024-01-15,,"{{""x"":[""y"", ¦NaN]}}"\n', "extra: NaN is no JSON"),
        (f'{_HEAD}{_ROW}user,a,2024-01-15,,"{{""x"":1, ¦""x"":1}}"\n', "extra: the key 'x' stands twice"),
        (f'{_HEAD}{_ROW}user,a,2024-01-15,,"{{¦""role"": 1}}"\n', "extra is for other keys"),
        (f'{_HEAD}{_ROW}user,a,2024-01-15,"{{""a"":1}}"¦', "the last row has no end: get the whole file"),
    ],
)
def test_a_mistake_in_csv_is_named_with_line_and_column_and_nothing_is_stored(marked: str, reason: str) -> None:
    _refused(marked.replace("¦", ""), "csv", f"{_place(marked)}{reason}")


def test_a_csv_file_that_was_cut_off_is_refused_wherever_that_was() -> None:
    with memory() as journal:
        journal.add_message("mia", HELLO)
        text = journal.export_conversation("mia", "csv")
        head = text.index("\n") + 1
        for cut in range(len(text)):
            if cut == head:
                continue  # A table without rows is one.
            with pytest.raises(InvalidMessage, match=r"^line \d+, column \d+: "):
                journal.import_conversation("noah", text[:cut], "csv")
        assert list(journal.users()) == ["mia"]


def test_a_row_without_an_end_is_not_waited_for() -> None:
    """One quotation mark too much, and all of a large file is one field; or it has no lines."""
    given = 0

    def pieces(row: str, more: str) -> Iterator[str]:
        nonlocal given
        yield _HEAD + row
        while True:
            given += len(more)
            yield more

    with memory() as journal:
        with pytest.raises(
            InvalidMessage, match="line 2, column 6: not CSV: the field that begins here has no closing"
        ):
            journal.import_pieces("mia", pieces('user,"', "a\n" * (1 << 19)), "csv")
        with pytest.raises(InvalidMessage, match="line 2, column 1: the line that begins here is far too long"):
            journal.import_pieces("mia", pieces("user,", "a," * (1 << 19)), "csv")
    assert given < 1 << 27


def _refused(text: str, form: Format, error: str) -> None:
    with memory() as journal:
        journal.add_message("noah", ANSWER)
        for user in ("mia", "noah"):
            with pytest.raises(InvalidMessage) as caught:
                journal.import_pieces(user, iter(text), form)
            assert str(caught.value).startswith(error)
        assert list(journal.users()) == ["noah"]
        assert journal.get_conversation("noah") == [ANSWER]


# Bytes and memory


@pytest.mark.parametrize("form", FORMATS)
def test_bytes_that_are_no_utf_8_are_named_with_their_place(form: Format) -> None:
    good = {"json": f"[{_GOOD},\n", "csv": f"{_HEAD}{_ROW}"}[form].encode()
    with memory() as journal:
        for bad in (b"  \xff", b"  \xc3"):
            with pytest.raises(InvalidMessage) as caught:
                journal.import_pieces("mia", [good[:7], good[7:], bad[:1], bad[1:]], form)
            place = "line 2, column 3: " if form == "json" else "line 3, column 3: "
            assert str(caught.value).startswith(f"{place}not UTF-8: ")
        assert list(journal.users()) == []


@pytest.mark.parametrize("form", FORMATS)
def test_memory_does_not_grow_with_the_conversation(
    journal: DialogueJournal, form: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 MB out and in again, a record of a tenth of a megabyte at a time."""
    one = [
        record.encode(ChatMessage("user", "é" * 50_000, f"2024-01-15T10:{index // 60:02d}:{index % 60:02d}Z"))
        for index in range(400)
    ]
    journal.backend.put_current("mia", b"".join(one), 0)
    del one
    monkeypatch.setattr(intake, "_AT_ONCE", 1 << 20)
    stored: list[int] = []

    def count(backend: Backend, user: str, batch: list[Record]) -> int:
        # What the backend does with what it is given is its own.
        stored.append(len(batch))
        return len(batch)

    monkeypatch.setattr(intake, "_store", count)
    tracemalloc.start()
    try:
        assert journal.import_pieces("noah", _in_bytes(journal.export_pieces("mia", form)), form) == 400
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(stored) == 400
    assert len(stored) > 30
    assert peak < 12 << 20


def _in_bytes(pieces: Iterator[str]) -> Iterator[bytes]:
    return (piece.encode() for piece in pieces)


def test_a_temporary_file_that_is_full_is_an_error_of_the_system_and_nothing_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Small(Spool):
        def __init__(self) -> None:
            super().__init__()
            self._database.execute("PRAGMA max_page_count = 20")

    monkeypatch.setattr(intake, "Spool", Small)
    with memory() as journal:
        large = json.dumps([{**HELLO.to_items(), "content": "a" * 200_000}])
        with pytest.raises(OSError, match="the temporary file of an import") as caught:
            journal.import_conversation("mia", large, "json")
        assert caught.value.errno == errno.ENOSPC
        assert list(journal.users()) == []
