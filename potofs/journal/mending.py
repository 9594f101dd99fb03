"""What becomes of a conversation's bytes that are not all messages.

A damaged document is taken out whole, its terminator with it. One form of damage holds messages: programs that write
`stringify(message) + '---\\n'`, as the design document's sample does, glue the terminator on to the last value,

    role: user
    content: Hello
    timestamp: "2024-01-15T10:30:00.000Z"---
    role: assistant

so that YAML sees one document up to the next line that is a marker. It is cut where a line ends in `---` and the next
does not go on with what is before (it is not indented), and wherever what is cut off is a whole message then. Nothing
else is guessed: bytes of which that makes no message are taken out like other damage.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from potofs.backends.base import seam
from potofs.config import MAX_MESSAGE_BYTES
from potofs.errors import InvalidMessage
from potofs.journal import reading, stream
from potofs.journal.message import ChatMessage

# The end of a line with a marker glued to it, where a new document could begin.
_GLUED = re.compile(rb"(?<=[^\r\n])---[ \t]*(?:(\r\n|\r|\n)(?![ \t\r\n])|\Z)")
# More than a marker's line has (bytes), but for blanks that nobody writes.
_LAST = 64
_BOM = b"\xef\xbb\xbf"
# So many ends of lines may look like a glued marker inside of one message.
_MOST_CUTS = 64


class Mended(NamedTuple):
    """A conversation without its damage."""

    data: bytes
    #: What was damaged, as it was, in its order.
    aside: bytes


def mend(data: bytes) -> Mended | None:
    """The bytes without damage, and the damage; None if the messages between would not read as they do now."""
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
        for record, message in _unglued(damaged):
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


def glued(damaged: bytes) -> int:
    """How many messages a damaged document holds whose terminators were glued on."""
    return sum(1 for _ in _unglued(damaged))


def _unglued(damaged: bytes) -> Iterator[tuple[bytes, ChatMessage]]:
    """The messages in a damaged document whose terminators were glued on, each with its record, whole now."""
    cuts = list(_GLUED.finditer(damaged))
    start, first = 0, 0
    while first < len(cuts):
        for number, cut in enumerate(cuts[first : first + _MOST_CUTS], first):
            if cut.start() - start > MAX_MESSAGE_BYTES:
                break
            line_end = cut[1] or b"\n"
            text = damaged[start : cut.start()] + line_end
            message = _message(text)
            if message is not None:
                yield text + b"---" + line_end, message
                first = number
                break
        # Else there is no message from here on to any cut: what begins behind the first of them may be one.
        start = cuts[first].end()
        first += 1


def _message(text: bytes) -> ChatMessage | None:
    if stream.has_marker(text, 3) or stream.says_nothing(text):
        return None
    try:
        message = reading.parse(text)
    except InvalidMessage:
        return None
    return message if message.timestamp else None
