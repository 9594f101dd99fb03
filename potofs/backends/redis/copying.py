"""Bringing whole bytes, in pieces, and then doing one change with them.

They lie under a random name until the change: if a master was replaced since a number was counted for them, it might be
another's already.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from potofs.backends.base import RECORD_END, Stat, seam
from potofs.backends.redis.changes import Changes, Figures, Refusal, Seen, text_of
from potofs.backends.redis.connection import NOT_ASKED, Argument, Link
from potofs.backends.redis.keys import SHARDS, Keys, nobody, shard_of_user
from potofs.backends.redis.reading import read_bytes
from potofs.backends.redis.wording import too_large
from potofs.backends.waiting import insisting
from potofs.errors import PotofsError, Unreachable

# Bytes that go to a server in one command.
_PIECE = 4 << 20
# What a string in Redis can hold (bytes).
_LARGEST = 512 << 20
# Fingerprints that go with what is added: a few milliseconds at most. More are learned from the bytes.
_KNOWN_AT_ONCE = 1000


class Copies:
    """Bytes that come whole, of one journal; thread-safe. `server` is what errors call it.

    Every method raises what `Changes.do` does, and Unreachable if a master was replaced meanwhile.
    """

    def __init__(self, link: Link, keys: Keys, changes: Changes, server: str) -> None:
        self._link, self._keys, self._changes, self._server = link, keys, changes, server

    def put(self, kind: str, user: str, name: str, data: bytes, mtime_ns: int | None, figures: Figures) -> str:
        """Gives bytes a number and a name, as `put.lua` has it for the kind; returns the name."""
        nothing = nobody(shard_of_user(user))
        mtime = "" if mtime_ns is None else mtime_ns

        def wanted(seen: Seen) -> tuple[Sequence[Argument], Sequence[Argument]]:
            conversation = seen.new or nothing
            of_new = (self._keys.bytes(conversation), self._keys.known(conversation))
            keys = (staged, *of_new, self._keys.known(seen.newest or nothing))
            count, first, last, _ = figures
            arguments = (kind, conversation, len(data), name, mtime, count, first, last, text_of(seen.newest))
            return keys, (*arguments, conversation // SHARDS)

        index = self._keys.asides(user) if kind.endswith("aside") else None
        with self._staged(user, data) as staged:
            # What was refused is kept whatever the fence is, or it would be lost.
            done = self._changes.do("put", user, wanted, index=index, fenced=kind != "aside")
        name, _, conversation = done.partition("\n")
        if kind == "current":
            # It will be asked for, and is at hand. An archive's are asked for if it is the newest when something comes.
            with suppress(OSError, PotofsError):
                self._changes.learn(int(conversation), len(data), figures.fingerprints)
        return name

    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        """Adds bytes to a conversation of this user; False if it is not the running one any more, or has gone on.

        Raises OSError with EFBIG if it would be too large.
        """
        if seen.size + len(data) > _LARGEST:
            raise too_large(user)
        keys = (self._keys.bytes(seen.id), self._keys.known(seen.id))
        # Behind a record's end, what is there need not be read again.
        is_whole = not seam(
            read_bytes(self._link, keys[0], len(RECORD_END), offset=max(0, seen.size - len(RECORD_END)))
        )
        before = b"" if is_whole else read_bytes(self._link, keys[0], seen.size)
        count, first, last, fingerprints = self._changes.figures(before + data)
        known = fingerprints if is_whole and len(fingerprints) <= _KNOWN_AT_ONCE else []

        def wanted(_: Seen) -> tuple[Sequence[Argument], Sequence[Argument]]:
            arguments = (seen.id, seen.size, len(data), mtime_ns, int(is_whole), count, first, last)
            return (staged, *keys), (*arguments, len(fingerprints), *known)

        try:
            with self._staged(user, data) as staged:
                self._changes.do("extend", user, wanted)
        except Refusal as refusal:
            if refusal.reason != "changed":
                raise
            return False
        return True

    def rewrite(self, user: str, name: str, seen: Stat, data: bytes, mtime_ns: int | None) -> bool:
        """Puts bytes in the place of a conversation's, as it is spelled; False if it is not as it was seen any more.

        It keeps its time with `mtime_ns` None.
        """
        if seen.id % SHARDS != shard_of_user(user):
            return False  # It never was this user's.
        count, first, last, _ = self._changes.figures(data)
        old = (self._keys.bytes(seen.id), self._keys.known(seen.id))
        mtime = "" if mtime_ns is None else mtime_ns

        def wanted(known: Seen) -> tuple[Sequence[Argument], Sequence[Argument]]:
            conversation = known.new or nobody(shard_of_user(user))
            keys = (staged, self._keys.bytes(conversation), self._keys.known(conversation), *old)
            arguments = (name, seen.id, seen.size, conversation, len(data), count, first, last)
            return keys, (*arguments, conversation // SHARDS, mtime)

        try:
            with self._staged(user, data) as staged:
                self._changes.do("rewrite", user, wanted)
        except Refusal:
            return False
        return True

    @contextmanager
    def _staged(self, user: str, data: bytes) -> Iterator[str]:
        """A key with these bytes, for a script to take; whatever goes wrong, it is removed."""
        if len(data) > _LARGEST:
            raise too_large(user)
        key = self._keys.staged(shard_of_user(user), os.urandom(12).hex())
        is_sent = False
        try:
            if not data:
                # So that there is something to be taken.
                self._link.command("SET", key, b"")
            for offset in range(0, len(data), _PIECE):
                # Not APPEND: done twice, this leaves the same.
                self._link.command("SETRANGE", key, offset, data[offset : offset + _PIECE])
                is_sent = True
            yield key
        except BaseException as error:
            # If the change is done, whoever is told, they are not under this key any more.
            if is_sent or not isinstance(error, NOT_ASKED):
                # Also if that is a second deadline: what is sent may be done once the server goes on.
                with suppress(OSError, PotofsError), insisting():
                    self._link.command("UNLINK", key)
            if isinstance(error, Refusal) and error.reason == "missing":
                raise Unreachable(f"{self._server}: another master has taken over while this was stored") from None
            raise
