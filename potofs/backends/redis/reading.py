"""Reading a conversation's bytes by its number, whatever it is called meanwhile."""

import re
from typing import NamedTuple, Self

from potofs.backends.base import Reader, Stat
from potofs.backends.redis.connection import Link
from potofs.backends.redis.keys import Keys
from potofs.errors import Damaged, Stale

# Bytes in one answer: a server sends nothing else meanwhile.
_PIECE = 4 << 20
# An entry of an index, as the scripts take it apart; and a number in a hash.
_ENTRY = re.compile(rb"(\d+) (-?\d+) (-?\d+) (\d+) (\d+)")
_NUMBER = re.compile(rb"-?\d+")


def read_bytes(link: Link, key: str, size: int | None = None, *, offset: int = 0) -> bytes:
    """At most `size` bytes of a string from `offset` on, or all that it has; empty if it is not there."""
    pieces = []
    while size is None or size > 0:
        wanted = _PIECE if size is None else min(size, _PIECE)
        piece: bytes = link.command("GETRANGE", key, offset, offset + wanted - 1)
        pieces.append(piece)
        offset += len(piece)
        if len(piece) < wanted:
            break
        if size is not None:
            size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def damaged(key: str, field: str) -> Damaged:
    return Damaged(f"{field!r} in the Redis key {key} is damaged: run `potofs fsck --repair`")


def is_number(value: bytes) -> bool:
    """Whether a field of a hash is a number as the scripts write it."""
    return bool(_NUMBER.fullmatch(value))


def whole(key: str, field: str, value: bytes | None) -> int:
    """The number in a field of a hash, 0 if there is none; raises Damaged."""
    if not value:
        return 0
    if not is_number(value):
        raise damaged(key, field)
    return int(value)


class Entry(NamedTuple):
    """An entry of an index, as the scripts write it."""

    stat: Stat
    #: Messages in it.
    messages: int

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Raises Damaged."""
        found = _ENTRY.fullmatch(text)
        if not found:
            raise Damaged(f"an entry of an index in Redis is damaged: {text[:80]!r}; run `potofs fsck --repair`")
        conversation, mtime, ctime, size, messages = map(int, found.groups())
        return cls(Stat(conversation, size, mtime, ctime), messages)

    @staticmethod
    def number(text: bytes) -> int | None:
        """The number of the conversation in an entry; None if the entry is damaged."""
        found = _ENTRY.fullmatch(text)
        return int(found[1]) if found else None


class ConversationReader(Reader):
    """A conversation, found by its number under the name that it had, or another."""

    def __init__(self, link: Link, keys: Keys, user: str, name: str | None, stat: Stat) -> None:
        self._link = link
        self._keys = keys
        self._user = user
        # As it is spelled in the index; None for the running conversation.
        self._name = name
        self._stat = stat
        self._bytes = keys.bytes(stat.id)

    def stat(self) -> Stat:
        running, entry = self._link.batch(
            [
                ("HMGET", self._keys.user(self._user), *RUNNING),
                ("HGET", self._keys.archives(self._user), self._name or ""),
            ]
        )
        found = running_stat(self._keys.user(self._user), running)
        if found is None or found.id != self._stat.id:
            found = Entry.parse(entry).stat if entry else None
        if found is None or found.id != self._stat.id:
            found = self._renamed()
        self._stat = found
        return found

    def read(self, offset: int, size: int) -> bytes:
        return self._still_there(read_bytes(self._link, self._bytes, size, offset=offset), offset, size)

    def read_all(self) -> bytes:
        return self._still_there(read_bytes(self._link, self._bytes), 0, self._stat.size)

    def close(self) -> None: ...

    def _still_there(self, data: bytes, offset: int, size: int) -> bytes:
        """What was read; raises Stale if it is short because the bytes have gone (`rewrite.lua`): they go whole."""
        if len(data) < min(size, self._stat.size - offset) and not self._link.command("EXISTS", self._bytes):
            raise Stale(f"user {self._user!r}: the conversation was mended, or its bytes are lost")
        return data

    def _renamed(self) -> Stat:
        for name, text in self._link.command("HGETALL", self._keys.archives(self._user)).items():
            stat = Entry.parse(text).stat
            if stat.id == self._stat.id:
                self._name = name.decode()
                return stat
        return self._stat  # On its way from one name to another just now.


#: The fields of a user that say of the running conversation what `running_stat` takes apart.
RUNNING = ("current", "size", "mtime", "ctime")


def running_stat(key: str, values: list[bytes | None]) -> Stat | None:
    """What a user's hash says of the running conversation; None if there is none. Raises Damaged."""
    if not values[0]:
        return None
    current, size, mtime, ctime = (whole(key, field, value) for field, value in zip(RUNNING, values, strict=True))
    return Stat(current, size, mtime, ctime)
