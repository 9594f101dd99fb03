"""Messages as a JSON array, written and read piece by piece."""

import re
from collections.abc import Iterable, Iterator

from potofs.backends.base import Record
from potofs.errors import InvalidMessage
from potofs.journal import admission
from potofs.journal.exchange import mistakes
from potofs.journal.exchange.text import Place
from potofs.journal.message import ChatMessage

# Characters that a message may take with all the escapes and white space that anybody would think of.
_LARGEST = 1 << 24
_SPACE = re.compile(r"[ \t\r\n]*+")
_MARK = re.compile(r'["{}\[\]]')
# What goes on inside a string, up to its end or a backslash whose other half is missing.
_IN_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)


def write(messages: Iterable[ChatMessage]) -> Iterator[str]:
    """The array of messages, one a line."""
    before = "[\n"
    for message in messages:
        yield before + message.to_json()
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def read(pieces: Iterable[str]) -> Iterator[Record]:
    """The records of an array of messages; raises InvalidMessage with line and column for the first mistake.

    Each message needs its timestamp: without one, a second import would not know it again.
    """
    for number, (place, text) in enumerate(_objects(pieces), 1):
        try:
            message = ChatMessage.from_json(text)
            mistakes.needs_time(message.timestamp)
            yield admission.from_message(message)
        except InvalidMessage as error:
            where, why = place.behind(error), error.reason
            if error.line is None:
                at, why = mistakes.in_message(text, 0, error)
                where = place.after(text[:at])
            raise where.error(f"message {number}: {why}") from None


def _objects(pieces: Iterable[str]) -> Iterator[tuple[Place, str]]:
    """The objects that an array is made of, as text, each with its place."""
    scanner = _Scanner(pieces)
    if scanner.peek() != "[":
        raise scanner.place.error("a JSON array of messages has to begin with [")
    scanner.take(1)
    separator = scanner.peek()
    if separator == "]":
        scanner.take(1)
    while separator != "]":
        if scanner.peek() != "{":
            raise scanner.place.error("a message was expected here, and that is an object")
        place = scanner.place
        yield place, scanner.object()
        separator = scanner.peek()
        if separator not in {",", "]"}:
            what = "a comma or ]" if separator else "the end of the array"
            raise scanner.place.error(f"{what} is missing")
        scanner.take(1)
    if scanner.peek():
        raise scanner.place.error("something follows the array")


class _Scanner:
    """Text that comes in pieces, of which no more is held than what is being looked at."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._text = ""
        # How much of the text was taken, and the place in the file where the rest begins.
        self._taken = 0
        self.place = Place()

    def peek(self) -> str:
        """The next character that is no white space; nothing at the end."""
        while True:
            found = _SPACE.match(self._text, self._taken)
            assert found is not None  # it matches nothing, too
            self.take(found.end() - self._taken)
            if self._taken < len(self._text):
                return self._text[self._taken]
            if not self._more():
                return ""

    def take(self, length: int) -> str:
        """So many characters, of those that are here."""
        text = self._text[self._taken : self._taken + length]
        self._taken += length
        self.place = self.place.after(text)
        return text

    def object(self) -> str:
        """The object that begins here, up to the brace that closes it; whether it is JSON shows later."""
        at, depth, in_string = self._taken, 0, False
        while True:
            if in_string:
                found = _IN_STRING.match(self._text, at)
                assert found is not None  # it matches nothing, too
                at = found.end()
                if at < len(self._text) and self._text[at] == '"':
                    at, in_string = at + 1, False
                    continue
            else:
                found = _MARK.search(self._text, at)
                if found:
                    at = found.end()
                    in_string = found[0] == '"'
                    depth += (found[0] in "{[") - (found[0] in "}]")
                    if not depth:
                        return self.take(at - self._taken)
                    continue
                at = len(self._text)
            at -= self._taken
            # Without a limit, one quotation mark too few would have us keep the whole file.
            if at > _LARGEST:
                raise self.place.error("the message that begins here is far too large, or has no end")
            if not self._more():
                raise self.place.error("the message that begins here has no end")

    def _more(self) -> bool:
        """Brings in the next piece; False at the end."""
        piece = next(self._pieces, "")
        self._text = self._text[self._taken :] + piece
        self._taken = 0
        return bool(piece)
