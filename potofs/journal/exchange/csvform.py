"""Messages as a table, written and read row by row by Python's csv module."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from potofs.backends.base import Record
from potofs.errors import InvalidMessage
from potofs.journal import admission, jsontext
from potofs.journal.exchange import mistakes
from potofs.journal.exchange.mistakes import Mistake
from potofs.journal.exchange.text import Place
from potofs.journal.message import ChatMessage

COLUMNS = ("role", "content", "timestamp", "metadata", "extra")
_NEEDED = COLUMNS[:3]
# The module's own limit, 128 KiB a field, is less than one message may have. It is one for the whole process, so it is
# only ever raised. Without any, one quotation mark too few would have us keep the whole file.
_FIELD_MAX = 1 << 24
_LINE_MAX = 1 << 26
# A field as it stands in the file; nothing, where one begins that is none.
_FIELD = re.compile(r'"(?:[^"]|"")*+"|[^",\r\n][^,\r\n]*+|')


def write(messages: Iterable[ChatMessage]) -> Iterator[str]:
    """The table, its header first; each row ends in CR LF."""
    row = io.StringIO()
    writer = csv.writer(row)
    writer.writerow(COLUMNS)
    yield row.getvalue()
    for message in messages:
        row.seek(0)
        row.truncate()
        metadata = "" if message.metadata is None else jsontext.dumps(message.metadata)
        extra = jsontext.dumps(message.extra) if message.extra else ""
        writer.writerow((message.role, message.content, message.timestamp, metadata, extra))
        yield row.getvalue()


def read(pieces: Iterable[str]) -> Iterator[Record]:
    """The records of a table; raises InvalidMessage with line and column for the first mistake.

    Each message needs its timestamp: without one, a second import would not know it again. And each row needs its
    line's end: without one, nobody knows whether a file that was cut off went on.
    """
    rows = _rows(pieces)
    header = next(rows, _Row(1, "", []))
    _check_header(header)
    for row in rows:
        if len(row.fields) != len(header.fields):
            # At what is too much, or where something is missing.
            place = row.place_of(len(header.fields)) if len(row.fields) > len(header.fields) else row.end
            raise place.error(f"there are {len(row.fields)} fields, and {len(header.fields)} columns")
        yield _record(row, header.fields)


class _Row(NamedTuple):
    """A row: the line where it begins, how it stands in the file, and what that says."""

    line: int
    text: str
    fields: list[str]

    def place_of(self, number: int, offset: int = 0) -> Place:
        """Where a field of it begins (counted from 0), or a character of what is in the field."""
        at = _starts(self.text)[number]
        if offset and self.text.startswith('"', at):
            # A quotation mark inside stands there twice.
            offset += 1 + self.fields[number].count('"', 0, offset)
        return Place(self.line).after(self.text[: at + offset])

    @property
    def end(self) -> Place:
        """Where its last line ends."""
        return Place(self.line).after(self.text.rstrip("\r\n"))


def _rows(pieces: Iterable[str]) -> Iterator[_Row]:
    """The rows that are not empty."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_MAX))
    # The lines of the row that is being read.
    lines: list[str] = []

    def kept() -> Iterator[str]:
        for line in _lines(pieces):
            lines.append(line)
            yield line

    reader = csv.reader(kept(), strict=True)
    while True:
        number = reader.line_num + 1
        lines.clear()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise _no_csv(number, "".join(lines), error) from None
        if fields is None:
            return
        if fields:
            row = _Row(number, "".join(lines), fields)
            if not row.text.endswith("\n"):
                raise row.end.error("the last row has no end: get the whole file, or if it is whole, end its last line")
            yield row


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines, each with its LF; what else ends a line in Python does not in CSV."""
    waiting: list[str] = []
    number, size = 1, 0
    for piece in pieces:
        *ended, rest = piece.split("\n")
        for line in ended:
            yield f"{''.join(waiting)}{line}\n"
            waiting.clear()
            number, size = number + 1, 0
        waiting.append(rest)
        size += len(rest)
        if size > _LINE_MAX:
            raise Place(number).error("the line that begins here is far too long for a row")
    if last := "".join(waiting):
        yield last


def _starts(text: str) -> list[int]:
    """Where the fields of a row begin, as far as it is CSV."""
    starts = [0]
    while text.startswith(",", end := _end_of_field(text, starts[-1])):
        starts.append(end + 1)
    return starts


def _end_of_field(text: str, at: int) -> int:
    found = _FIELD.match(text, at)
    assert found is not None  # it matches nothing, too
    return found.end()


def _no_csv(line: int, text: str, error: csv.Error) -> InvalidMessage:
    """What is wrong with a row that the csv module does not take; it does not say where."""
    at = _end_of_field(text, _starts(text)[-1])
    match text[at : at + 1]:
        case '"':
            what = "the field that begins here has no closing quotation mark, or is far too large"
        case "\r":
            what = "a carriage return has to stand inside quotation marks, or before the line's end"
        case "" | "\n":
            what = str(error)
        case _:
            what = "behind a closing quotation mark a comma or the line's end was expected"
    return Place(line).after(text[:at]).error(f"not CSV: {what}")


def _check_header(header: _Row) -> None:
    for number, column in enumerate(header.fields):
        if column not in COLUMNS or header.fields.index(column) != number:
            what = "stands twice" if column in COLUMNS else "is unknown"
            raise header.place_of(number).error(
                f"the column {column!r:.40} {what}: the first row names the columns, {', '.join(COLUMNS)}"
            )
    if missing := [column for column in _NEEDED if column not in header.fields]:
        *others, last = missing
        what = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        raise header.end.error(f"the first row has to name the columns: {what} missing")


def _record(row: _Row, columns: list[str]) -> Record:
    fields = dict(zip(columns, row.fields, strict=True))
    try:
        return admission.from_message(
            ChatMessage(
                fields["role"],
                fields["content"],
                _time(fields["timestamp"]),
                _mapping(fields.get("metadata", "")),
                _mapping(fields.get("extra", "")) or {},
            )
        )
    except InvalidMessage as mistake:
        # Each field by itself: the first that is no good is the one, unless only all of them together are.
        for number, column in enumerate(columns):
            try:
                _ALONE[column](row.fields[number])
            except InvalidMessage as error:
                at, why = _in_field(column, row.fields[number], error)
                why = why if why.startswith(column) else f"{column}: {why}"
                raise row.place_of(number, at).error(why) from None
        raise Place(row.line).error(mistake.reason) from None


def _time(text: str) -> str:
    if not text:
        raise InvalidMessage("a timestamp is missing")
    return text


def _mapping(text: str) -> dict[str, Any] | None:
    """The mapping in a field; None if it is empty."""
    if not text:
        return None
    try:
        value = jsontext.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidMessage(f"not JSON: {error.msg}") from None
    if not isinstance(value, dict):
        raise InvalidMessage("this has to be a JSON object")
    return value


# What the columns with a mapping are tried with, and what all are.
_MAPPINGS: dict[str, mistakes.Check] = {
    "metadata": lambda value: admission.from_message(ChatMessage("user", "", mistakes.TIME, value)),
    "extra": lambda value: admission.from_message(ChatMessage("user", "", mistakes.TIME, None, value)),
}
_ALONE: dict[str, mistakes.Check] = {
    "role": lambda field: ChatMessage(field, "", mistakes.TIME),
    "content": lambda field: admission.from_message(ChatMessage("user", field, mistakes.TIME)),
    "timestamp": lambda field: ChatMessage("user", "", _time(field)),
    "metadata": lambda field: _MAPPINGS["metadata"](_mapping(field)),
    "extra": lambda field: _MAPPINGS["extra"](_mapping(field) or {}),
}


def _in_field(column: str, field: str, error: InvalidMessage) -> Mistake:
    """Where in a field its mistake is, and what it is; of a mapping, in its JSON."""
    found = None
    if column in _MAPPINGS:
        try:
            found = mistakes.in_value(field, len(field) - len(field.lstrip()), _MAPPINGS[column])
        except json.JSONDecodeError as unreadable:
            return Mistake(unreadable.pos, error.reason)
    return found or Mistake(0, error.reason)
