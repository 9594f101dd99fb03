"""Messages as a table, written and read row by row by Python's csv module."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from potofs.backends.base import Record
from potofs.errors import InvalidMessage
from potofs.journal import admission, jsontext
from potofs.journal.message import ChatMessage

COLUMNS = ("role", "content", "timestamp", "metadata", "extra")
_NEEDED = frozenset(COLUMNS[:3])
# The module's own limit, 128 KiB a field, is less than one message may have. It is one for the whole process, so it is
# only ever raised.
_FIELD_MAX = 1 << 30
# What the columns of a row are tried with, to see which one of them is wrong.
_TIME = "2024-01-15T10:30:00.000Z"


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
    """The records of a table; raises InvalidMessage for the first mistake, with the line and the column's name.

    Each message needs its timestamp: without one, a second import would not know it again.
    """
    rows = _rows(pieces)
    header_line, header = next(rows, (1, []))
    _check_header(header_line, header)
    for line, row in rows:
        if len(row) != len(header):
            raise InvalidMessage(f"there are {len(row)} fields, and {len(header)} columns", line=line)
        yield _record(dict(zip(header, row, strict=True)), line)


def _rows(pieces: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line where it begins."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_MAX))
    reader = csv.reader(_lines(pieces), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InvalidMessage(f"not CSV, in the row that begins here: {error}", line=line) from None
        if row is None:
            return
        if row:
            yield line, row


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines, each with its LF; what else ends a line in Python does not in CSV."""
    waiting: list[str] = []
    for piece in pieces:
        *ended, rest = piece.split("\n")
        for line in ended:
            yield f"{''.join(waiting)}{line}\n"
            waiting.clear()
        waiting.append(rest)
    if last := "".join(waiting):
        yield last


def _check_header(line: int, header: list[str]) -> None:
    for number, column in enumerate(header, 1):
        if column not in COLUMNS or header.index(column) != number - 1:
            what = "stands twice" if column in COLUMNS else "is unknown"
            raise InvalidMessage(
                f"the column {column!r:.40} {what}: the first row names the columns, {', '.join(COLUMNS)}",
                line=line,
                column=number,
            )
    if missing := sorted(_NEEDED - set(header)):
        raise InvalidMessage(f"the first row has to name the columns: {', '.join(missing)} is missing", line=line)


def _record(row: dict[str, str], line: int) -> Record:
    try:
        return admission.from_message(
            ChatMessage(
                row["role"], row["content"], _time(row), _mapping(row, "metadata"), _mapping(row, "extra") or {}
            )
        )
    except InvalidMessage as mistake:
        # Each column by itself: the first that is no good is the one, unless only all of them together are.
        for column in COLUMNS:
            try:
                admission.from_message(_ALONE[column](row))
            except InvalidMessage as error:
                raise InvalidMessage(error.reason, line=line, column=column) from None
        raise InvalidMessage(mistake.reason, line=line) from None


_ALONE: dict[str, Callable[[dict[str, str]], ChatMessage]] = {
    "role": lambda row: ChatMessage(row["role"], "", _TIME),
    "content": lambda row: ChatMessage("user", row["content"], _TIME),
    "timestamp": lambda row: ChatMessage("user", "", _time(row)),
    "metadata": lambda row: ChatMessage("user", "", _TIME, _mapping(row, "metadata")),
    "extra": lambda row: ChatMessage("user", "", _TIME, None, _mapping(row, "extra") or {}),
}


def _time(row: dict[str, str]) -> str:
    if not row["timestamp"]:
        raise InvalidMessage("a timestamp is missing")
    return row["timestamp"]


def _mapping(row: dict[str, str], column: str) -> dict[str, Any] | None:
    """The mapping in a field; None if it is empty."""
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = jsontext.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidMessage(f"not JSON: {error.msg} at character {error.pos + 1} of the field") from None
    if not isinstance(value, dict):
        raise InvalidMessage("this has to be a JSON object")
    return value
