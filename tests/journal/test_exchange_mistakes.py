"""Import of what is wrong, or large: the place is named, nothing of it is stored, and memory does not grow."""

import errno
import json
import tracemalloc
from collections.abc import Iterator

import pytest

from potofs import ChatMessage, DialogueJournal
from potofs.backends.base import Backend, Record
from potofs.errors import InvalidMessage
from potofs.journal import record
from potofs.journal.exchange import FORMATS, Format, intake
from potofs.journal.exchange.spool import Spool
from tests.journal.test_exchange import ANSWER, HELLO, memory

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
            "line 2, column 2: message 2: the key 'role' stands twice",
        ),
        (f'[{_GOOD},\n {{"$numberDouble": "NaN"}}]', "line 2, column 2: message 2: a message has to be an object"),
        (
            f'[{_GOOD},\n {{"role": "user", "content": "a"}}]',
            "line 2, column 2: message 2: the key timestamp is missing",
        ),
        (f"[{_GOOD},\n {_GOOD.replace('user', 'robot')}]", "line 2, column 2: message 2: role 'robot' is unknown"),
        (f"[{_GOOD},\n {_GOOD.replace('Mia', chr(92) + 'ud800')}]", "line 2, column 2: message 2: a lone surrogate"),
        (f"[{_GOOD},\n {_GOOD.replace('name', '<<')}]", "line 2, column 2: message 2: the key <<"),
        (
            f"[{_GOOD},\n {_GOOD.replace('2}', '[' * 99_999 + ']' * 99_999 + '}')}]",
            "line 2, column 2: message 2: a value",
        ),
        (
            f"[{_GOOD},\n {_GOOD.replace('2}', '[' * 70 + ']' * 70 + '}')}]",
            "line 2, column 2: message 2: a value is nested",
        ),
    ],
)
def test_a_mistake_in_json_is_named_with_line_and_column_and_nothing_is_stored(text: str, error: str) -> None:
    _refused(text, "json", error)


_HEAD = "role,content,timestamp,metadata,extra\n"
_ROW = "user,a,2024-01-15,,\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1: the first row has to name the columns: content, role, timestamp is missing"),
        ("role,content\n", "line 1: the first row has to name the columns: timestamp is missing"),
        ("role,content,time\n", "line 1, column 3: the column 'time' is unknown"),
        ("role,content,role\n", "line 1, column 3: the column 'role' stands twice"),
        (f"{_HEAD}{_ROW}user,a,2024-01-15\n", "line 3: there are 3 fields, and 5 columns"),
        (f'{_HEAD}user,"a\nb",2024-01-15,,\nuser\n', "line 4: there are 1 fields, and 5 columns"),
        (f'{_HEAD}{_ROW}user,"a\nb', "line 3: not CSV, in the row that begins here: unexpected end of data"),
        (f'{_HEAD}{_ROW}user,"a"b,2024-01-15,,\n', "line 3: not CSV, in the row that begins here: ',' expected after"),
        (f"{_HEAD}{_ROW}user,a\rb,2024-01-15,,\n", "line 3: not CSV, in the row that begins here: new-line character"),
        (f"{_HEAD}{_ROW}robot,a,2024-01-15,,\n", "line 3, column role: role 'robot' is unknown"),
        (f"{_HEAD}{_ROW}user,\ud800,2024-01-15,,\n", "line 3, column content: content has a lone surrogate"),
        (f"{_HEAD}{_ROW}user,a,,,\n", "line 3, column timestamp: a timestamp is missing"),
        (f"{_HEAD}{_ROW}user,a,noon,,\n", "line 3, column timestamp: timestamp 'noon' is not a time"),
        (f"{_HEAD}{_ROW}user,a,2024-01-15,[],\n", "line 3, column metadata: this has to be a JSON object"),
        (f"{_HEAD}{_ROW}user,a,2024-01-15,{{,\n", "line 3, column metadata: not JSON: Expecting property name"),
        (f'{_HEAD}{_ROW}user,a,2024-01-15,,"{{""<<"": 1}}"\n', "line 3, column extra: the key <<"),
        (f'{_HEAD}{_ROW}user,a,2024-01-15,,"{{""role"": 1}}"\n', "line 3, column extra: extra is for other keys"),
    ],
)
def test_a_mistake_in_csv_is_named_with_line_and_column_and_nothing_is_stored(text: str, error: str) -> None:
    _refused(text, "csv", error)


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
