"""What becomes of a conversation's bytes that are not all messages.

A damaged document is taken out whole, its terminator with it. One form of damage holds messages: programs that write
`stringify(message) + '---\\n'`, as the design document's sample does, glue the terminator on to the last value,

    role: user
    content: Hello
    timestamp: "2024-01-15T10:30:00.000Z"---
    role: assistant

so that YAML sees one document up to the next line that is a marker. It is cut where a line ends in `---` and the next
does not go on with what is before (it is not indented), and wherever what is cut off is a whole message then. Another
form lacks the terminators between messages altogether. It is cut before each line that begins with `role:` (in a text
of several lines that would be indented), if all that comes of it are whole messages, and no key could be of either.

Nothing else is guessed: bytes of which that makes no message are taken out like other damage.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from potofs.backends.base import seam
from potofs.config import MAX_MESSAGE_BYTES
from potofs.errors import InvalidMessage
from potofs.journal import reading, stream, yamldoc
from potofs.journal.message import ChatMessage

# The end of a line with a marker glued to it, where a new document could begin.
_GLUED = re.compile(rb"(?<=[^\r\n])---[ \t]*(?:(\r\n|\r|\n)(?![ \t\r\n])|\Z)")
# The beginning of a line that can only be a message's first, where each of them begins with its role.
_ROLE = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|(?<=[\r\n]))role:(?=[ \t\r\n])")
# What every message has, in any notation that people use.
_KEYS = (b"role", b"content", b"timestamp")
# More than a marker's line has (bytes), but for blanks that nobody writes.
_LAST = 64
_BOM = b"\xef\xbb\xbf"
# So many ends of lines may look like a glued marker inside of one message.
_MOST_CUTS = 64
# How many bytes are looked at in vain before the search is given up: so many, and so many times the damaged ones. What
# only looks like glued messages would else be read again for each of its lines.
_IN_VAIN, _TIMES_IN_VAIN = 1 << 16, 8


class Apart(NamedTuple):
    """The messages in a damaged document, and what kept them from being read."""

    #: Each with its record, whole now.
    records: list[tuple[bytes, ChatMessage]]
    #: Whether terminators were glued on; else they were missing.
    glued: bool


class Mended(NamedTuple):
    """A conversation without its damage."""

    data: bytes
    #: What was damaged, as it was, in its order.
    aside: bytes


def mend(data: bytes, apart: Callable[[bytes], Apart]) -> Mended | None:
    """The bytes without damage, and the damage; None if the messages between would not read as they do now.

    `apart` is `take_apart`, which may remember what it was asked.
    """
    kept: list[bytes] = []
    aside: list[bytes] = []
    expected: list[ChatMessage] = []
    at, last = 0, b""

    def keep(piece: bytes) -> None:
        nonlocal last
        if piece:
            kept.append(piece)
            last = (last + piece[-_LAST:])[-_LAST:]

    for document in stream.documents(data):
        found = reading.entry(data, document)
        if isinstance(found, ChatMessage):
            expected.append(found)
            continue
        keep(data[at : document.start])
        damaged = data[document.start : document.stop]
        aside.append(damaged)
        for record, message in apart(damaged).records:
            keep(b"" if _ends(last) else seam(last))
            keep(record)
            expected.append(message)
        if damaged.removeprefix(_BOM).startswith(b"---") and not _ends(last):
            # Its marker was the end of what stands before it, too.
            keep(seam(last))
        at = document.stop
    keep(data[at:])
    mended = b"".join(kept)
    # As text, for there are numbers that are not equal to themselves.
    if list(map(repr, reading.read(mended))) != list(map(repr, expected)):
        return None
    return Mended(mended, b"".join(aside))


def _ends(last: bytes) -> bool:
    """Whether a record may follow."""
    line = last[max(last.rfind(b"\n", 0, -1), last.rfind(b"\r", 0, -2)) + 1 :]
    return not last or stream.ends_in_marker(line)


def take_apart(damaged: bytes) -> Apart:
    """The messages that a damaged document holds; none if there is nothing to go by."""
    if unglued := list(_unglued(damaged)):
        return Apart(unglued, glued=True)
    return Apart(_unseparated(damaged), glued=False)


def _unglued(damaged: bytes) -> Iterator[tuple[bytes, ChatMessage]]:
    """The messages in a damaged document whose terminators were glued on, each with its record, whole now."""
    cuts = list(_GLUED.finditer(damaged))
    complete = _Complete(damaged)
    left = _IN_VAIN + _TIMES_IN_VAIN * len(damaged)
    start, first = 0, 0
    while first < len(cuts):
        earliest = complete.behind(start)
        if earliest is None:
            return
        for number, cut in enumerate(cuts[first : first + _MOST_CUTS], first):
            if cut.start() - start > MAX_MESSAGE_BYTES:
                break
            if cut.start() < earliest:
                continue
            line_end = cut[1] or b"\n"
            text = damaged[start : cut.start()] + line_end
            message = _message(text)
            if message is not None:
                yield text + b"---" + line_end, message
                first = number
                break
            left -= len(text)
            if left < 0:
                return
            # The line that is cut is another one if the message goes on.
            if _is_hopeless(damaged[start : _line_start(damaged, start, cut.start())]):
                break
        # Else there is no message from here on to any cut: what begins behind the first of them may be one.
        start = cuts[first].end()
        first += 1


class _Complete:
    """Where bytes have had every key of a message; asked about ever later beginnings, each byte is looked at once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._found = [-1 for _ in _KEYS]

    def behind(self, start: int) -> int | None:
        """Before where no message ends that begins at `start`; None if none does at all."""
        for number, key in enumerate(_KEYS):
            if self._found[number] < start:
                self._found[number] = self._data.find(key, start)
                if self._found[number] < 0:
                    return None
        return max(self._found)


def _is_hopeless(lines: bytes) -> bool:
    if not lines:
        return False
    try:
        reading.refuse_hopeless(lines)
    except InvalidMessage:
        return True
    return False


def _line_start(data: bytes, start: int, at: int) -> int:
    return max(data.rfind(b"\n", start, at), data.rfind(b"\r", start, at), start - 1) + 1


def _unseparated(damaged: bytes) -> list[tuple[bytes, ChatMessage]]:
    """The messages in a damaged document that have no terminators between them, each with its record; all or none."""
    # With its terminator it is one document; anything else is not what was damaged here.
    documents = list(stream.documents(damaged))
    if len(documents) != 1:
        return []
    text = damaged[documents[0].start : documents[0].end]
    starts = [found.start() for found in _ROLE.finditer(text)]
    if len(starts) < 2 or text[-1:] not in b"\r\n" or not stream.is_blank(text[: starts[0]]):
        return []
    found: list[tuple[bytes, ChatMessage]] = []
    before: list[str] = []
    for start, end in pairwise([0, *starts[1:], len(text)]):
        part = text[start:end]
        message = _message(part)
        if message is None:
            return []
        keys = list(yamldoc.load(reading.text_of(part)).items)
        # A last key that the next message does not have may be the first of that one.
        if before and before[-1].encode() not in _KEYS and before[-1] not in keys:
            return []
        before = keys
        line_end = b"\r\n" if part.endswith(b"\r\n") else part[-1:]
        found.append((part + b"---" + line_end, message))
    return found


def _message(text: bytes) -> ChatMessage | None:
    if stream.has_marker(text, 3) or stream.says_nothing(text):
        return None
    try:
        message = reading.parse(text)
    except InvalidMessage:
        return None
    return message if message.timestamp else None
