"""Pieces of text: decoded, cut and joined to a handy size, and where in a file one is."""

import codecs
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from potofs.errors import InvalidMessage
from potofs.journal import arguments

# Characters of a piece, more or less.
_PIECE = 1 << 16


class Place(NamedTuple):
    """A place in a file, counted from 1."""

    line: int = 1
    #: In characters.
    column: int = 1

    def after(self, text: str) -> "Place":
        """The place behind a text that begins here."""
        newlines = text.count("\n")
        if newlines:
            return Place(self.line + newlines, len(text) - text.rfind("\n"))
        return Place(self.line, self.column + len(text))

    def behind(self, error: InvalidMessage) -> "Place":
        """The place of a mistake in a text that begins here, this one if nobody knows it better."""
        if error.line is None or error.column is None:
            return self
        return Place(self.line + error.line - 1, error.column + (self.column - 1 if error.line == 1 else 0))

    def error(self, reason: str) -> InvalidMessage:
        """The error that something is wrong here."""
        return InvalidMessage(reason, line=self.line, column=self.column)


def joined(texts: Iterable[str]) -> Iterator[str]:
    """The same text in fewer pieces, none of them empty."""
    waiting: list[str] = []
    size = 0
    for text in texts:
        waiting.append(text)
        size += len(text)
        if size >= _PIECE:
            yield "".join(waiting)
            waiting.clear()
            size = 0
    if size:
        yield "".join(waiting)


def decoded(pieces: Iterable[bytes | str]) -> Iterator[str]:
    """Text out of pieces of UTF-8, cut anywhere, or of text; a byte order mark at the beginning is dropped.

    Raises InvalidMessage with the place where it is no UTF-8.
    """
    first = True
    for text in joined(_decoded(pieces)):
        yield text.removeprefix("\ufeff") if first else text
        first = False


def _decoded(pieces: Iterable[bytes | str]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    place = Place()
    try:
        for piece in pieces:
            if not isinstance(piece, bytes | str):
                raise arguments.wrong_type("a piece", piece, "bytes or text")
            text = piece if isinstance(piece, str) else decoder.decode(piece)
            yield text
            place = place.after(text)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        raise place.after(before).error(f"not UTF-8: {error.reason}") from None
