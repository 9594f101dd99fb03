"""Compressed archives: gzip that any gunzip reads, and that is read here at random.

A file is one gzip member. Its deflate stream is cut into blocks of the same uncompressed size by full flushes, so that
each block can be inflated by itself. Where they begin is in an extra field of the header (RFC 1952, FEXTRA), which
other programs skip:

    1f 8b 08 04, 00 × 5, ff      gzip, deflate, with extra fields
    length of all extra fields   2 bytes, as all numbers little-endian
    "pf", length of this one     2 + 2 bytes
        version (1)              1
        token                    8   names the file that keeps the archive's number
        size, uncompressed       8   also past 4 GiB, where gzip's own does not reach
        size of a block          4
        CRC-32 of these four     4
        CRC-32 of the table      4
        the table                4 + 4 for each block: its length, compressed, and the CRC-32 of its content
    blocks
    CRC-32, size modulo 2^32     4 + 4

So an archive of 70,000 bytes in blocks of 65,536 has a table of two, and extra fields of 49 bytes. What other programs
made lacks the field, or has several members: how that is read is in `members`.

Damage is an error where it is met, and never an end: what is before it is read, to the last byte. Another program's
archive that is damaged is therefore larger by one byte than what can be read of it: whoever copies as much as it is
said to have meets the error.
"""

import errno
import os
import struct
import zlib
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

from potofs.backends.base import Reader, Stat
from potofs.backends.filesystem.files import NumberOf, inode, open_plain
from potofs.backends.filesystem.members import Damage, Members, known

_MAGIC = b"\x1f\x8b\x08"
_START = _MAGIC + b"\x04" + bytes(5) + b"\xff"
_FIELD = struct.Struct("<H2sH")
_HEAD = struct.Struct("<B8sQI")
_CRC = struct.Struct("<I")
ENTRY = struct.Struct("<II")
TRAILER = struct.Struct("<II")
#: Bytes before the table.
FIXED = len(_START) + _FIELD.size + _HEAD.size + 2 * _CRC.size
TOKEN_SIZE = 8

# A block is at least so large (bytes), and larger where there would be too many for an extra field of 64 KiB.
_BLOCK = 1 << 16
_MOST_BLOCKS = 1 << 12
# Bytes that are read, inflated or compared at once.
_PIECE = 1 << 20
# Raw deflate.
RAW = -zlib.MAX_WBITS


class NotGzip(Exception):
    """It does not begin as a gzip file does."""


class Head(NamedTuple):
    """What a file that was made here says of itself, before the table."""

    token: bytes
    #: Bytes, uncompressed; and of each block but the last.
    size: int
    block: int

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.size // self.block)

    def size_of(self, number: int) -> int:
        """Bytes of a block, uncompressed."""
        return min(self.block, self.size - number * self.block)

    def pack(self) -> bytes:
        """As it is stored, with its checksum."""
        head = _HEAD.pack(1, self.token, self.size, self.block)
        return head + _CRC.pack(zlib.crc32(head))

    def start(self) -> bytes:
        """What gzip's own header is then."""
        size = FIXED - len(_START) - _FIELD.size + ENTRY.size * self.blocks
        return _START + _FIELD.pack(4 + size, b"pf", size)

    @classmethod
    def found_in(cls, start: bytes) -> "Head | None":
        """What the beginning of a file says, whatever gzip's own header is; None if it was not made here."""
        packed = start[len(_START) + _FIELD.size :]
        if len(start) < FIXED:
            return None
        version, *rest = _HEAD.unpack_from(packed)
        head = cls(*rest)
        return head if version == 1 and head.block and packed.startswith(head.pack()) else None


def write(source: Reader, size: int, target: int, token: bytes) -> int:
    """Compresses the first `size` bytes of what is opened into an empty file; returns what it has then (bytes).

    Raises OSError, also if the source is shorter.
    """
    block = _block(size)
    head = Head(token, size, block)
    at = FIXED + ENTRY.size * head.blocks
    engine = zlib.compressobj(wbits=RAW)
    table = b""
    crc = 0
    for offset in range(0, size, block):
        wanted = min(block, size - offset)
        data = source.read(offset, wanted)
        if len(data) < wanted:
            raise OSError(errno.EIO, "the archive is shorter than it was")
        crc = zlib.crc32(data, crc)
        # Not in one go with the next: a full flush forgets what came before.
        done = engine.compress(data)
        done += engine.flush(zlib.Z_FINISH if offset + wanted == size else zlib.Z_FULL_FLUSH)
        table += ENTRY.pack(len(done), zlib.crc32(data))
        at += write_at(target, done, at)
    write_at(target, head.start() + head.pack() + _CRC.pack(zlib.crc32(table)) + table, 0)
    return at + write_at(target, TRAILER.pack(crc, size & 0xFFFFFFFF), at)


def _block(size: int) -> int:
    block = _BLOCK
    while -(-size // block) > _MOST_BLOCKS:
        block *= 2
    return block


def was_begun(descriptor: int, source: Reader) -> bool:
    """Whether a file is what `write` had of a conversation before it came to the header: nothing that is not there.

    Raises OSError.
    """
    size = source.stat().size
    at, offset, engine = FIXED + ENTRY.size * -(-size // _block(size)), 0, zlib.decompressobj(RAW)
    if os.pread(descriptor, at, 0).strip(b"\0"):
        return False
    while given := os.pread(descriptor, _PIECE, at):
        at += len(given)
        while given:
            if engine.eof:
                return False
            try:
                piece = engine.decompress(given, _PIECE)
            except zlib.error:
                return False
            if piece != source.read(offset, len(piece)):
                return False
            offset += len(piece)
            given = engine.unconsumed_tail or engine.unused_data
    return True


def table_of(descriptor: int, head: Head) -> tuple[list[tuple[int, int]], bool]:
    """The entries of a table, length and CRC-32 of each block, as many as there are; whether they are as written."""
    size = ENTRY.size * head.blocks
    check, table = os.pread(descriptor, _CRC.size, FIXED - _CRC.size), os.pread(descriptor, size, FIXED)
    entries = list(ENTRY.iter_unpack(table[: len(table) // ENTRY.size * ENTRY.size]))
    return entries, len(table) == size and check == _CRC.pack(zlib.crc32(table))


class GzipReader(Reader):
    """A compressed archive, opened; `by_token` says which number a token stands for: if none, its file's counts.

    Raises NotGzip, OSError. What is damaged is EIO, and the error calls the archive as it is `called`.
    """

    blocks = True

    def __init__(
        self,
        path: str,
        by_token: Callable[[bytes], int | None],
        number_of: NumberOf = inode,
        *,
        called: str | None = None,
    ) -> None:
        self._called = called or path
        self._descriptor = open_plain(path, os.O_RDONLY)
        try:
            start = os.pread(self._descriptor, FIXED, 0)
            if not start.startswith(_MAGIC):
                raise NotGzip(path)
            self._head = _head(start)
            # Looked up now: it stays when the archive is restored meanwhile, and the file with the number goes.
            self._number = by_token(self._head.token) if self._head else None
            self._number_of = number_of
            self._content: _Blocks | Members | None = None
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def token(self) -> bytes | None:
        """What names the file that keeps its number; None if another program compressed it."""
        return self._head.token if self._head else None

    def stat(self) -> Stat:
        found = os.fstat(self._descriptor)
        size = self._head.size if self._head else self.readable + (not known(self._descriptor).is_whole)
        return Stat(self._number or self._number_of(found), size, found.st_mtime_ns, found.st_ctime_ns)

    def stored_size(self) -> int:
        """Bytes that it takes up."""
        return os.fstat(self._descriptor).st_size

    @property
    def readable(self) -> int:
        """Bytes before any damage, of what another program made."""
        return known(self._descriptor).size

    def read(self, offset: int, size: int) -> bytes:
        """Fewer also where damage begins; there, and behind it, OSError (EIO)."""
        pieces: list[bytes] = []
        try:
            if self._content is None:
                self._content = _Blocks(self._descriptor, self._head) if self._head else Members(self._descriptor)
            while size > 0 and (piece := self._content.piece(offset, size)):
                pieces.append(piece)
                offset += len(piece)
                size -= len(piece)
        except Damage:
            if not pieces:
                raise self._damaged() from None
        return b"".join(pieces)

    def read_all(self) -> bytes:
        pieces, offset, size = [], 0, self.stat().size
        while piece := self.read(offset, size - offset):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def check_end(self) -> None:
        """Raises OSError (EIO) if another program's file has more than can be read of it, or is cut off.

        What was made here tells by itself, where it is read.
        """
        if self._head is None and self.read(self.stat().size, 1):
            raise self._damaged()

    def verify(self) -> None:
        """Reads it through; raises OSError (EIO) if anything is not as it was written."""
        self.check_end()
        if self._head is None:
            return
        size, offset, crc = self._head.size, 0, 0
        while piece := self.read(offset, _PIECE):
            crc = zlib.crc32(piece, crc)
            offset += len(piece)
        # Only other programs go by these: what was read has been checked block by block.
        length = os.fstat(self._descriptor).st_size - TRAILER.size
        trailer = os.pread(self._descriptor, TRAILER.size, max(0, length))
        start = os.pread(self._descriptor, len(self._head.start()), 0)
        if trailer != TRAILER.pack(crc, size & 0xFFFFFFFF) or start != self._head.start():
            raise self._damaged()
        if size and isinstance(self._content, _Blocks) and self._content.end != length:
            raise self._damaged()

    def fileno(self) -> int:
        """The descriptor that it reads from."""
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    def _damaged(self) -> OSError:
        return OSError(errno.EIO, f"{self._called} is damaged: `potofs fsck --repair` keeps what can be read")


class _Blocks:
    """The content of a file that was made here."""

    def __init__(self, descriptor: int, head: Head) -> None:
        self._descriptor, self._head = descriptor, head
        entries, is_right = table_of(descriptor, head)
        if not is_right:
            raise Damage
        self._checks = [entry[1] for entry in entries]
        first = FIXED + ENTRY.size * head.blocks
        self._starts = list(accumulate((entry[0] for entry in entries), initial=first))
        #: Where the last of them ends in the file.
        self.end = self._starts[-1]
        # The block that was read last: reads go on where they stopped. One tuple, for several threads read.
        self._last = (-1, b"")

    def piece(self, offset: int, size: int) -> bytes:
        """Some of the bytes there, none only at the end; raises Damage, OSError."""
        if offset >= self._head.size:
            return b""
        number, start = divmod(offset, self._head.block)
        known, data = self._last
        if known != number:
            data = self._inflated(number)
            self._last = number, data
        return data[start : start + size]

    def _inflated(self, number: int) -> bytes:
        start, end = self._starts[number : number + 2]
        wanted = self._head.size_of(number)
        try:
            data = zlib.decompressobj(RAW).decompress(os.pread(self._descriptor, end - start, start), wanted)
        except zlib.error:
            raise Damage from None
        if len(data) != wanted or zlib.crc32(data) != self._checks[number]:
            raise Damage
        return data


def _head(start: bytes) -> Head | None:
    """What the beginning of a file says; None if it was not made here."""
    if not start.startswith(_START) or start[12:14] != b"pf":
        return None
    return Head.found_in(start)


def write_at(descriptor: int, data: bytes, offset: int) -> int:
    """Writes all of some bytes at a place in a file, and returns how many they are; raises OSError."""
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)
    return done
