"""How a pipe of records becomes messages: stored as they come, up to the first mistake.

Unlike whoever writes into the mount, whoever fills a pipe still has what is refused, and reads the reason: so nothing
is set aside, and the reason names the place.
"""

from collections.abc import Callable, Iterable, Sequence

from potofs.backends.base import Record
from potofs.errors import InvalidMessage
from potofs.journal import admission, arguments, stream


def append_pieces(append: Callable[[Sequence[Record]], object], pieces: Iterable[bytes]) -> None:
    """Appends the records of a pipe, those of each piece at once; the last may lack its terminator.

    Raises InvalidMessage with the line, and the column where somebody knows it, for the first that is no message: what
    stands before it is stored, and nothing from there on.
    """
    pipe = Pipe(append)
    for piece in pieces:
        pipe.take(piece)
    pipe.end()


class Pipe:
    """The same for whoever brings the pieces one by one; after an error it takes no more."""

    def __init__(self, append: Callable[[Sequence[Record]], object]) -> None:
        self._append = append
        self._waiting = b""
        # Where what waits begins.
        self._line = 1

    def take(self, piece: bytes) -> None:
        """Stores the records that a piece ends."""
        if not isinstance(piece, bytes):
            raise arguments.wrong_type("a piece", piece, "bytes")
        if piece:
            self._store(self._waiting + piece, is_end=False)

    def end(self) -> None:
        """Stores the last record, if it lacks its terminator."""
        self._store(self._waiting, is_end=True)

    def _store(self, waiting: bytes, *, is_end: bool) -> None:
        records, taken, mistake = _records(waiting, is_end=is_end)
        if records:
            self._append(records)
        self._line += waiting.count(b"\n", 0, taken)
        self._waiting = waiting = waiting[taken:]
        if mistake is not None:
            # Of the record, blank lines before it included; without one, where it begins to say something.
            inside = mistake.line or 1 + waiting[: len(waiting) - len(waiting.lstrip())].count(b"\n")
            raise InvalidMessage(
                f"{mistake.reason} (what stands before this record is stored, nothing from there on)",
                line=self._line + inside - 1,
                column=mistake.column,
            )


def _records(data: bytes, *, is_end: bool) -> tuple[list[Record], int, InvalidMessage | None]:
    """The records that are whole, how many bytes they take, and what is wrong with what follows them."""
    records: list[Record] = []
    taken = 0
    try:
        for document in stream.ended(data):
            records.append(admission.from_bytes(admission.sized(data[taken : document.stop])))
            taken = document.stop
        rest = admission.sized(data[taken:])
        if is_end and not stream.says_nothing(rest):
            records.append(admission.from_tail(rest))
            taken = len(data)
    except InvalidMessage as mistake:
        return records, taken, mistake
    return records, taken, None
