"""What a long conversation holds, kept beside it, so that a new process need not read it all before its first append.

The file (`.current.idx` in the user's folder) is derived: it may be removed at any time, and is believed only where the
bytes that it accounts for last are where it says. It is a row of chunks, one for every few hundred messages:

    "pfi1", id of the conversation (8), bytes accounted for before and after this chunk (8 + 8),
    messages up to here (8), times of the first and the last of them (8 + 8),
    number and size of fingerprints (4 + 2), size of the bytes that were seen last (2);
    those bytes, the fingerprints; CRC-32 of all before (4)

All numbers are little-endian. Used under the user's lock. After an archival it is of another conversation, until that
is restored or the next one is long enough.
"""

import os
import struct
import zlib
from typing import NamedTuple

from potofs.backends.base import Fingerprint
from potofs.backends.filesystem import files
from potofs.backends.filesystem.layout import FILE_MODE

_MAGIC = b"pfi1"
_HEAD = struct.Struct("<4s6qIHH")
_CRC = struct.Struct("<I")


class Kept(NamedTuple):
    """What the bytes of a conversation hold up to a record's end."""

    #: The conversation's id.
    id: int
    #: Bytes that are accounted for.
    covered: int
    messages: int
    first_ns: int
    last_ns: int
    #: The last of those bytes.
    seen: bytes


class Sidecar:
    """One file; each call opens it anew."""

    def __init__(self, path: str) -> None:
        self._path = path
        # How large it was when it was read or written here last; if it is not now, another server has written.
        self._size = -1

    @property
    def is_whole(self) -> bool:
        """Whether everything in it was good when it was read last."""
        return self._size >= 0

    def load(self, conversation: int) -> tuple[Kept, set[Fingerprint]] | None:
        """What is kept of a conversation, not yet compared with its bytes; None if nothing is. Raises OSError."""
        try:
            with files.FileReader(self._path) as reader:
                data = reader.read_all()
        except FileNotFoundError:
            return None
        kept, given, at = None, set[Fingerprint](), 0
        while len(data) >= at + _HEAD.size:
            magic, number, start, covered, messages, first, last, count, size, seen = _HEAD.unpack_from(data, at)
            prints = at + _HEAD.size + seen
            end = prints + count * size
            if (magic, number, start) != (_MAGIC, conversation, kept.covered if kept else 0):
                break
            # Cut off by a process that was killed, or damaged: what came before is good.
            if data[end : end + _CRC.size] != _CRC.pack(zlib.crc32(data[at:end])):
                break
            given.update(data[place : place + size] for place in range(prints, end, size))
            kept = Kept(number, covered, messages, first, last, data[at + _HEAD.size : prints])
            at = end + _CRC.size
        self._size = at if at == len(data) else -1
        return (kept, given) if kept else None

    def is_of_another(self) -> bool:
        """Whether it is good, whichever conversation it is of: a copy of that has another number. Raises OSError."""
        with files.FileReader(self._path) as reader:
            head = reader.read(0, _HEAD.size)
        return len(head) == _HEAD.size and self.load(_HEAD.unpack(head)[1]) is not None and self.is_whole

    def add(self, start: int, kept: Kept, new: list[Fingerprint]) -> bool:
        """Adds what came since `start` bytes; False if another server has, or it is of another conversation."""
        if self._size < 0 or files.size(self._path) != self._size:
            return False
        self._write(_chunk(start, kept, new), os.O_APPEND)
        return True

    def replace(self, kept: Kept, given: list[Fingerprint]) -> None:
        """Begins anew with all that was given; raises OSError."""
        self._write(_chunk(0, kept, given), os.O_TRUNC)

    def _write(self, chunk: bytes, how: int) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | how, FILE_MODE)
        try:
            self._size = -1
            files.append_whole(descriptor, chunk)
            self._size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)


def _chunk(start: int, kept: Kept, new: list[Fingerprint]) -> bytes:
    size = len(new[0]) if new else 0
    figures = kept.covered, kept.messages, kept.first_ns, kept.last_ns
    head = _HEAD.pack(_MAGIC, kept.id, start, *figures, len(new), size, len(kept.seen))
    data = b"".join([head, kept.seen, *new])
    return data + _CRC.pack(zlib.crc32(data))
