"""What can be had of a damaged archive that was compressed here: its whole records, and none that is guessed.

A block of the deflate stream needs nothing of those before it (a full flush). So a damaged one costs what is in it and
the records that reach into it. Where blocks begin the table says. If that is damaged too, they are inflated one after
the other: each has a known size uncompressed, and ends in the four bytes of its flush; behind one that is damaged,
the others are known by their checksums.

A block is believed if a checksum confirms it: its own in the table, or gzip's at the end, which is of all of them.
Where there is none, for a block is cut off or nothing is left of the table, what the stream yields is taken, and it is
said that nothing confirms it.
"""

import os
import re
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from potofs.backends.base import seam
from potofs.backends.filesystem.gzipped import ENTRY, FIXED, RAW, TRAILER, Head, table_of

# What a flush ends in; by chance it may be elsewhere, too.
_FLUSH = b"\x00\x00\xff\xff"
# A line that ends a document in any YAML: what is before it is whole, and so is what follows.
_BOUNDARY = re.compile(rb"(?<=[\r\n])(?:---|\.\.\.)(?=[ \t\r\n])")
_REST_OF_LINE = re.compile(rb"[ \t]*(?:\r\n|\r|\n)")
# Ranges that a finding names one by one.
_NAMED = 3

#: Bytes of a conversation, from one offset to before another.
Range = tuple[int, int]


class Salvaged(NamedTuple):
    """What was had of an archive."""

    head: Head
    #: Its bytes, but for those that are lost and the records that reach into them.
    data: bytes
    #: What `data` lacks; and what it has that no checksum confirms.
    lost: list[Range]
    unconfirmed: list[Range]

    @property
    def is_all(self) -> bool:
        """Whether it is the archive as it was."""
        return not self.lost and not self.unconfirmed

    def __str__(self) -> str:
        text = "" if self.lost else f"; all of its {self.head.size} bytes can be recovered"
        if self.lost:
            text = f"; of its {self.head.size} bytes {_named(self.lost)} cannot be recovered"
        if self.unconfirmed:
            text += f"; no checksum confirms {_named(self.unconfirmed)}"
        return text.removeprefix("; ")


def salvage(descriptor: int) -> Salvaged | None:
    """What can be had of an opened file; None if it was not made here, as far as anybody can tell. Raises OSError."""
    head = Head.found_in(os.pread(descriptor, FIXED, 0))
    if head is None:
        return None
    entries, is_right = table_of(descriptor, head)
    stored = _Stored(descriptor, head, entries)
    blocks = list(stored.by_table() if is_right else stored.by_flushes())
    data = b"".join(block.data for block in blocks)
    if len(data) == head.size and stored.trailer() == TRAILER.pack(zlib.crc32(data), head.size & 0xFFFFFFFF):
        blocks = [block._replace(confirmed=True) for block in blocks]
    elif any(block.confirmed for block in blocks):
        # The entries are as they were, so another checksum means other bytes. What was cut off has none.
        blocks = [block for block in blocks if block.confirmed or len(block.data) < head.size_of(block.number)]
    kept = list(_whole_records(_runs(blocks), head.size))
    unconfirmed = [(block.offset, block.offset + len(block.data)) for block in blocks if not block.confirmed]
    lost = _without([(0, head.size)], [piece.range for piece in kept])
    return Salvaged(head, b"".join(piece.data for piece in kept), lost, _without(unconfirmed, lost))


class _Block(NamedTuple):
    number: int
    #: Where it begins in the conversation.
    offset: int
    data: bytes
    confirmed: bool


class _Stored:
    """The deflate stream of a file, in memory, and what the table says of it."""

    def __init__(self, descriptor: int, head: Head, entries: list[tuple[int, int]]) -> None:
        self._head, self._checks, self._lengths = head, [one[1] for one in entries], [one[0] for one in entries]
        first = FIXED + ENTRY.size * head.blocks
        self._packed = _read(descriptor, first, os.fstat(descriptor).st_size - first)
        self._flushes = [found.end() for found in re.finditer(_FLUSH, self._packed)]
        # Where the last block ends, if that is known.
        self._end = len(self._packed)

    def trailer(self) -> bytes:
        """What stands behind the blocks that were found last."""
        return self._packed[self._end : self._end + TRAILER.size]

    def by_table(self) -> Iterator[_Block]:
        """The blocks where a table that is right says that they are."""
        at = 0
        for number, (length, check) in enumerate(zip(self._lengths, self._checks, strict=True)):
            packed = self._packed[at : at + length]
            at += length
            data = _inflated(packed, self._head.size_of(number))
            if len(data) == self._head.size_of(number) and zlib.crc32(data) == check:
                yield self._block(number, data, confirmed=True)
            elif len(packed) < length and 0 < len(data) < self._head.size_of(number):
                # Cut off.
                yield self._block(number, data, confirmed=False)
        self._end = at

    def by_flushes(self) -> Iterator[_Block]:
        """The blocks as they follow one another."""
        at, number = 0, 0
        while number < self._head.blocks:
            data, end = self._whole(at, number)
            if end is None:
                if data:
                    yield self._block(number, data, confirmed=self._is_noted(number, data))
                following = self._next(at, number)
                if following is None:
                    return
                at, number = following
                continue
            yield self._block(number, data, confirmed=self._is_noted(number, data))
            at, number = end, number + 1
        self._end = at

    def _block(self, number: int, data: bytes, *, confirmed: bool) -> _Block:
        return _Block(number, number * self._head.block, data, confirmed)

    def _is_noted(self, number: int, data: bytes) -> bool:
        return number < len(self._checks) and zlib.crc32(data) == self._checks[number]

    def _whole(self, at: int, number: int) -> tuple[bytes, int | None]:
        """The content of a block that begins at some place, and where it ends.

        None if that is not in the file: then what there is of it, or nothing if it is damaged.
        """
        wanted, is_last = self._head.size_of(number), number == self._head.blocks - 1
        engine, data = zlib.decompressobj(RAW), b""
        for end in [*self._flushes[bisect_right(self._flushes, at) :], len(self._packed)]:
            try:
                data += engine.decompress(self._packed[at:end], wanted + 1 - len(data))
            except zlib.error:
                return b"", None
            at = end
            if engine.eof:
                is_whole = is_last and len(data) == wanted
                return (data, end - len(engine.unused_data)) if is_whole else (b"", None)
            if len(data) > wanted:
                return b"", None
            if len(data) == wanted and not is_last and self._packed.endswith(_FLUSH, 0, end):
                return data, end
        return data, None

    def _next(self, at: int, number: int) -> tuple[int, int] | None:
        """Where a block begins that comes after a damaged one, which begins at some place, and its number."""
        # Blocks of the same content have the same checksum: then nobody can tell which one it is.
        seen = Counter(self._checks[number + 1 :])
        for start in self._flushes[bisect_right(self._flushes, at) :]:
            for later in (number + 1, self._head.blocks - 1):
                if later <= number or later >= self._head.blocks:
                    continue
                data, end = self._whole(start, later)
                check = zlib.crc32(data)
                if end is not None and seen[check] == 1:
                    found = self._checks.index(check, number + 1)
                    if self._head.size_of(found) == len(data):
                        return start, found
        return None


def _inflated(packed: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(RAW).decompress(packed, size)
    except zlib.error:
        return b""


def _read(descriptor: int, offset: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.pread(descriptor, size, offset)):
        pieces.append(piece)
        offset, size = offset + len(piece), size - len(piece)
    return b"".join(pieces)


# From blocks to records


class _Piece(NamedTuple):
    range: Range
    data: bytes


def _runs(blocks: list[_Block]) -> Iterator[tuple[int, bytes]]:
    """Blocks that follow one another, together: where they begin, and what is in them."""
    waiting: list[_Block] = []
    for block in blocks:
        if waiting and waiting[-1].offset + len(waiting[-1].data) != block.offset:
            yield waiting[0].offset, b"".join(one.data for one in waiting)
            waiting = []
        waiting.append(block)
    if waiting:
        yield waiting[0].offset, b"".join(one.data for one in waiting)


def _whole_records(runs: Iterator[tuple[int, bytes]], size: int) -> Iterator[_Piece]:
    """What of some runs is not the rest or the beginning of a record that goes on in what is lost.

    Put side by side, two such parts could read as something that nobody has said.
    """
    for offset, data in runs:
        begin, end = 0, len(data)
        boundaries = list(_BOUNDARY.finditer(data))
        if offset:
            begin = _behind(data, boundaries[0]) if boundaries else end
        if offset + len(data) < size:
            end = _behind(data, boundaries[-1]) if boundaries else begin
        if begin < end:
            piece = data[begin:end]
            # Where the next document begins on the marker's own line, the marker is left out, and missing.
            ended = offset + end == size or _ends(data, boundaries[-1])
            yield _Piece((offset + begin, offset + end), piece if ended else piece + seam(piece))


def _behind(data: bytes, boundary: re.Match[bytes]) -> int:
    """Where the next document may begin."""
    rest = _REST_OF_LINE.match(data, boundary.end())
    return rest.end() if rest else boundary.start()


def _ends(data: bytes, boundary: re.Match[bytes]) -> bool:
    return _REST_OF_LINE.match(data, boundary.end()) is not None


def _without(ranges: list[Range], others: list[Range]) -> list[Range]:
    """Ranges without what is in others, too; both in order."""
    left = []
    for start, end in ranges:
        for begin, stop in others:
            if begin >= end or stop <= start:
                continue
            if start < begin:
                left.append((start, begin))
            start = max(start, stop)
        if start < end:
            left.append((start, end))
    return _joined(left)


def _joined(ranges: list[Range]) -> list[Range]:
    joined: list[Range] = []
    for start, end in ranges:
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, end))
    return joined


def _named(ranges: list[Range]) -> str:
    named = [f"{start} to {end - 1}" for start, end in ranges[:_NAMED]]
    if len(ranges) > _NAMED:
        named.append(f"{len(ranges) - _NAMED} more ranges")
    return " and ".join(", ".join(named).rsplit(", ", 1))
