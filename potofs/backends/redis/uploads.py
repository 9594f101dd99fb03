"""Bringing whole bytes: in pieces under a key of their own, then by one script under a number and a name."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from potofs.backends.redis.changes import Changes, Figures, Refusal, Seen, text_of
from potofs.backends.redis.connection import Argument, Link
from potofs.backends.redis.keys import SHARDS, Keys, nobody, shard_of_user
from potofs.backends.redis.wording import too_large
from potofs.errors import PotofsError, Unreachable

# Bytes that go to a server in one command.
_PIECE = 4 << 20
# What a string in Redis can hold (bytes).
_LARGEST = 512 << 20


class Uploads:
    """Such bytes for one journal; `where` is what its place is called in errors."""

    def __init__(self, link: Link, keys: Keys, changes: Changes, where: str) -> None:
        self._link = link
        self._keys = keys
        self._changes = changes
        self._where = where

    def put(self, kind: str, user: str, name: str, data: bytes, mtime_ns: int | None, figures: Figures) -> str:
        """Brings whole bytes and then, in one change, gives them a number and a name; returns the name."""
        none = nobody(shard_of_user(user))
        mtime = "" if mtime_ns is None else mtime_ns

        def wanted(seen: Seen) -> tuple[Sequence[Argument], Sequence[Argument]]:
            conversation = seen.new or none
            of_new = (self._keys.bytes(conversation), self._keys.known(conversation))
            keys = (staged, *of_new, self._keys.known(seen.newest or none))
            count, first, last, fingerprints = figures
            arguments = (kind, conversation, len(data), name, mtime, count, first, last, text_of(seen.newest))
            return keys, (*arguments, conversation // SHARDS, *fingerprints)

        is_aside = kind == "aside"
        index = self._keys.asides(user) if is_aside else None
        with self.staged(user, data) as staged:
            # What was refused is kept whatever the fence is, or it would be lost.
            return self._changes.do("put", user, wanted, index=index, fenced=not is_aside)

    @contextmanager
    def staged(self, user: str, data: bytes) -> Iterator[str]:
        """A key with these bytes, for a script to give them a number; whatever goes wrong, it is removed.

        Not yet under a number: if a master was replaced since it was counted, that might be another's already.
        """
        if len(data) > _LARGEST:
            raise too_large(user)
        key = self._keys.staged(shard_of_user(user), os.urandom(12).hex())
        try:
            if not data:
                # So that there is something under its number.
                self._link.command("SET", key, b"")
            for offset in range(0, len(data), _PIECE):
                # Not APPEND: done twice, this leaves the same.
                self._link.command("SETRANGE", key, offset, data[offset : offset + _PIECE])
            yield key
        except BaseException as error:
            # If the change is done, whoever is told, they are not under this key any more.
            with suppress(OSError, PotofsError):
                self._link.command("UNLINK", key)
            if isinstance(error, Refusal) and error.reason == "missing":
                raise Unreachable(f"{self._where}: another master has taken over while this was stored") from None
            raise
