"""What other programs compressed: any number of gzip members, read from the beginning on.

Nothing says where in the file a byte of the content is, nor truly how many there are: what a file says of its size is
modulo 2^32, and only of its last member. So whoever goes back reads it again, and its size is found by reading it once.
"""

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

# Bytes that are read or inflated at once.
_PIECE = 1 << 20
# A gzip member.
_MEMBER = 16 + zlib.MAX_WBITS
# Sizes that are remembered.
_REMEMBERED = 4096


class Damage(Exception):
    """What follows is not as it was written: damaged, cut off, or behind the end and no gzip."""


class Members:
    """The content of a file that another program made: read from the beginning on, and again to go back."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._rewind()

    def _rewind(self) -> None:
        self._pieces = inflated(self._descriptor)
        self._start, self._piece, self._is_damaged = 0, b"", False

    def piece(self, offset: int, size: int) -> bytes:
        """Some of the bytes there, none only at the end; raises Damage, OSError."""
        with self._lock:
            if offset < self._start:
                self._rewind()
            while offset >= self._start + len(self._piece):
                following = next(self._pieces, b"")
                if following is None or self._is_damaged:
                    self._is_damaged = True
                    raise Damage
                if not following:
                    return b""
                self._start += len(self._piece)
                self._piece = following
            return self._piece[offset - self._start :][:size]


def inflated(descriptor: int) -> Iterator[bytes | None]:
    """The content of all members of an opened file, in pieces; None last if it goes on with damage. Raises OSError."""
    at, given, engine, is_between = 0, b"", zlib.decompressobj(_MEMBER), True
    while True:
        if engine.eof:
            given, engine, is_between = engine.unused_data, zlib.decompressobj(_MEMBER), True
        if is_between:
            # As gzip does: another member may follow, perhaps behind padding.
            given = given.lstrip(b"\0")
        if not given:
            given = os.pread(descriptor, _PIECE, at)
            at += len(given)
            if given:
                continue
            if not is_between:
                yield None
            return
        is_between = False
        before = engine.copy()
        try:
            piece = engine.decompress(given, _PIECE)
        except zlib.error:
            # What was inflated before it is lost with it, a whole archive where only the checksum is wrong.
            yield from _up_to_error(before, given)
            yield None
            return
        given = engine.unconsumed_tail
        if piece:
            yield piece


def _up_to_error(engine: "zlib._Decompress", given: bytes) -> Iterator[bytes]:
    """All that comes of some bytes before an error that is among them: in ever smaller steps, the last of one byte."""
    step, most = len(given), _PIECE
    while True:
        before = engine.copy()
        try:
            piece = engine.decompress(given[:step], most)
        except zlib.error:
            engine = before
            if step > 1:
                step //= 2
            elif most > 1:
                most //= 2
            else:
                return
            continue
        given = engine.unconsumed_tail + given[step:]
        if piece:
            yield piece
        elif not given:
            return


class Known(NamedTuple):
    """What was found by reading a file through that another program made."""

    #: Bytes before any damage.
    size: int
    is_whole: bool


_sizes: "OrderedDict[tuple[int, ...], Known]" = OrderedDict()
_sizes_guard = threading.Lock()


def known(descriptor: int) -> Known:
    """The uncompressed size of a file that another program made: what it says of itself is modulo 2^32, and only of
    its last member. So it is read through, once."""
    found = os.fstat(descriptor)
    file = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    with _sizes_guard:
        if file in _sizes:
            return _sizes[file]
    size, is_whole = 0, True
    for piece in inflated(descriptor):
        size, is_whole = size + len(piece or b""), piece is not None
    answer = Known(size, is_whole)
    with _sizes_guard:
        _sizes[file] = answer
        if len(_sizes) > _REMEMBERED:
            _sizes.popitem(last=False)
    return answer
