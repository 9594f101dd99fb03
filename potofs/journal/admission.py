"""What may be appended as it was typed, and what potofs adds to it: a timestamp, a terminator, and nothing else."""

import re
from collections.abc import Iterator

from potofs import times
from potofs.backends.base import RECORD_END, Record
from potofs.config import MAX_MESSAGE_BYTES
from potofs.errors import InvalidMessage, MessageTooLarge
from potofs.journal import reading, record, stream, values, yamldoc
from potofs.journal.message import ChatMessage, mark

# What YAML 1.1 merges mappings with, and what stands for a default value there.
_MERGE = "<<"
_DEFAULT = "="
# What YAML 1.1 takes for a date, whether there is such a day or not.
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?(?:$|[Tt \t])")


def from_message(message: ChatMessage) -> Record:
    """The record of a message made by a program; raises InvalidMessage, MessageTooLarge."""
    stamped = message
    if not message.timestamp:
        stamped = ChatMessage(message.role, message.content, times.now(), message.metadata, message.extra)
    return Record(sized(record.encode(stamped)), mark(stamped), retry=bool(message.timestamp))


def from_bytes(data: bytes, timestamp: str = "") -> Record:
    """The record of a document as somebody appended it, with or without its terminator.

    The bytes stay as they are; `timestamp`, by default the present time, is added if there is none. Raises
    InvalidMessage if this is not one whole valid message, or if it would not read the same everywhere.
    """
    found = list(stream.documents(data))
    if len(found) != 1:
        raise InvalidMessage(f"one message was expected, and here are {len(found)}")
    document = found[0]
    text = data[document.start : document.end]
    message = reading.parse(text)
    # Also what stands around the document, comments say: a reader of the whole stream stumbles over it as well. The
    # line feed of a carriage return at the end may be on its way.
    around = (data[: document.start], text, data[document.end :].removesuffix(b"\r"))
    _refuse_ambiguous("".join(map(reading.text_of, around)))
    if stream.begins_with_directive(text):
        raise InvalidMessage("a %YAML or %TAG line cannot stand inside a conversation: leave it out")
    if record.decode(reading.text_of(text)) is None and not text.lstrip().startswith(b"{"):
        _refuse_misread(yamldoc.load(reading.text_of(text)).items)
    retry = bool(message.timestamp)
    if not retry:
        text, message = _stamped(text, message, timestamp or times.now())
    whole = data[: document.start] + text + data[document.end :]
    if not whole.endswith(RECORD_END):
        if whole.endswith(b"\n---"):
            whole += b"\n"
        else:
            whole += RECORD_END[1:] if whole.endswith(b"\n") else RECORD_END
    return Record(whole, mark(message), retry)


def from_tail(data: bytes, timestamp: str = "") -> Record:
    """The record of what somebody left without a terminator; raises as `from_bytes`, and if it is cut off."""
    if data[-1:] not in (b"\r", b"\n") and not data.endswith(b"\n---"):
        raise InvalidMessage("the last line is not finished: end it with a newline")
    if not any(True for _ in stream.documents(data)):
        raise InvalidMessage("nothing but comments: a message has the keys role and content")
    return from_bytes(data, timestamp)


def sized(data: bytes, limit: int = MAX_MESSAGE_BYTES) -> bytes:
    """The same bytes; raises MessageTooLarge if they are more than one message may have."""
    if len(data) > limit:
        raise MessageTooLarge(f"a message of more than {limit} bytes: say it in several")
    return data


def _refuse_ambiguous(text: str) -> None:
    lines = text.replace("\r\n", "\n")
    found = values.first_ambiguous(lines)
    if found is None:
        return
    code = ord(found[0])
    line, column = yamldoc.place_of(lines, found.start())
    raise InvalidMessage(
        f'the character U+{code:04X} is not read alike everywhere: write it as "\\u{code:04x}" in double quotes',
        line=line,
        column=column,
    )


def _refuse_misread(node: yamldoc.Node) -> None:
    """Raises InvalidMessage for what readers of YAML 1.1 take for something else, and then fail on."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == _MERGE:
                raise InvalidMessage(f"the key {key} means something else in YAML 1.1: call it otherwise")
            _refuse_misread(value)
    elif isinstance(node, list):
        for value in node:
            _refuse_misread(value)
    elif node.plain and (
        node.text in (_MERGE, _DEFAULT) or (_DATE.match(node.text) and times.nanoseconds(node.text) is None)
    ):
        raise InvalidMessage(f"{node.text:.40} is not read alike everywhere: write it in double quotes")


def _stamped(text: bytes, message: ChatMessage, timestamp: str) -> tuple[bytes, ChatMessage]:
    """A document without a timestamp, and the same with one."""
    source = reading.text_of(text)
    order_mark = text.removesuffix(source.encode())
    expected = ChatMessage(message.role, message.content, timestamp, message.metadata, message.extra)
    for candidate in _with_timestamp(source, timestamp):
        stamped = order_mark + candidate.encode()
        try:
            if reading.parse(stamped) == expected:
                return stamped, expected
        except InvalidMessage:
            continue
    raise InvalidMessage("the key timestamp is missing, and there is no place to add it: write it yourself")


def _with_timestamp(source: str, timestamp: str) -> Iterator[str]:
    """The places where a timestamp may be added to a document, the best first."""
    brace = len(source) - len(source.lstrip(" \t\r\n"))
    mapping = None if source[brace : brace + 1] == "{" else yamldoc.load(source)
    if mapping is None or mapping.flow:
        # Behind the opening brace: before the closing one there may be a comma already.
        inside = (brace if mapping is None else mapping.start) + 1
        yield f'{source[:inside]}"timestamp": {values.quoted(timestamp)}, {source[inside:]}'
        return
    line = record.timestamp_line(timestamp)
    newline = "\r\n" if "\r\n" in source else "\n"
    indentation = " " * mapping.column
    whole = source if source.endswith("\n") else source + newline
    # Last, where people look for it; but a comment or a quoted line at the end may be in the way.
    yield f"{whole}{indentation}{line}{newline}"
    yield f"{source[: mapping.start]}{line}{newline}{indentation}{source[mapping.start :]}"
