"""Bytes, fingerprints and uploads that nothing refers to.

Bytes get their number by the script that names them. So those with a number and without a name are not on their way in:
they have lost their entry, however lately. Their shard notes whose they are, and a repair gives them back: as what they
were, or under another name if that is taken; at once where it meets damage of their user's, else when it looks through
all keys. What is not noted, by an older potofs for example, stays where it is. Only an upload, under a name of its own,
may be under way; nobody was told yet that it is stored.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import redis

from potofs import times
from potofs.backends.base import Finding
from potofs.backends.redis.changes import NO_FIGURES, Changes, Figures, Refusal, Seen, text_of
from potofs.backends.redis.connection import Argument, Link
from potofs.backends.redis.inventory import Found, Inventory, Note, Torn, User, place_of
from potofs.backends.redis.keys import Keys, nobody, shard_of_user
from potofs.backends.redis.reading import read_bytes

# An upload that nobody has touched for so long has ended (seconds).
_IDLE = 60
# Staged bytes are an upload that was given up, and may be removed, after this (seconds).
_GIVEN_UP = 600


class Leftovers:
    """What nothing refers to in one journal."""

    def __init__(self, link: Link, keys: Keys, changes: Changes, inventory: Inventory) -> None:
        self._link = link
        self._keys = keys
        self._changes = changes
        self._inventory = inventory

    def of_shard(self, shard: int, found: Found, repair: bool) -> Iterator[Finding]:
        """What is left over in a shard, by its keys that were found before."""
        yield from self._unnamed(shard, found, repair)
        yield from self._uploads(shard, found, repair)

    def _unnamed(self, shard: int, found: Found, repair: bool) -> Iterator[Finding]:
        """Bytes and fingerprints without an entry."""
        loose, known = found.bytes, found.known
        # The bytes were there before the entries are read, and keep their user for life: so one look is enough, and
        # what has none in it was removed meanwhile or has lost its entry. A second one costs little.
        for _ in range(2):
            if not (loose or known):
                return
            users = self._inventory.listed(shard)[0] | found.users
            everyone = self._inventory.users(shard, users).values()
            numbers = {held.entry.stat.id for user in everyone for held in user.held}
            loose, known = loose - numbers, known - numbers
        notes = self._inventory.notes(shard) if loose else {}
        for conversation in sorted(loose):
            note = Note.parse(notes.get(conversation, b""), shard)
            if self._link.command("EXISTS", self._keys.bytes(conversation)):
                yield self._given_back(conversation, note, repair) if note else self._of_nobody(shard, conversation)
        for conversation in sorted(known - loose):
            key = self._keys.known(conversation)
            if self._link.command("EXISTS", key):
                if repair:
                    self._link.command("UNLINK", key)
                yield Finding(None, key, "fingerprints of no conversation", repair)

    def _of_nobody(self, shard: int, conversation: int) -> Finding:
        key = self._keys.bytes(conversation)
        what = "bytes that nothing refers to, and it is not noted whose they are"
        if twin := self._twin(shard, key):
            what = f"{what}; {twin} has the same"
        return Finding(None, key, f"{what}. Look at them with GETRANGE, append what is somebody's, then UNLINK them")

    def _twin(self, shard: int, key: str) -> str:
        """What has the same bytes, for a person to judge by; empty if nothing has."""
        data = read_bytes(self._link, key)
        for user, found in self._inventory.users(shard, self._inventory.listed(shard)[0]).items():
            for held in found.held:
                stat = held.entry.stat
                if stat.size == len(data) and read_bytes(self._link, self._keys.bytes(stat.id)) == data:
                    return f"{held.place} of user {user!r}"
        return ""

    def of_user(self, user: str, found: User, kinds: Collection[str]) -> list[Finding]:
        """Gives a user back what is noted as theirs, and is not among what was `found` of them."""
        if not kinds:
            return []
        shard = shard_of_user(user)
        held = {one.entry.stat.id for one in found.held}
        findings = []
        # Of two that are noted as running the later one is.
        for conversation, text in sorted(self._inventory.notes(shard).items(), reverse=True):
            note = Note.parse(text, shard)
            if note and note.user == user and note.kind in kinds and conversation not in held:
                key = self._keys.bytes(conversation)
                if self._link.command("TYPE", key) == b"string":
                    findings.append(self._given_back(conversation, note, repair=True))
        return findings

    def given_back(self, conversation: int, note: Note, what: str, *, torn: Torn | None = None) -> Finding:
        """Gives bytes back to whose they are, in the place of an entry that is `torn`; says so behind `what`."""
        place = place_of(note.kind, note.name)
        data = read_bytes(self._link, self._keys.bytes(conversation))
        figures = self._changes.figures(data) if note.kind != "aside" else NO_FIGURES
        kind, name = note.kind, note.name
        while True:
            try:
                given = self._change(conversation, note, kind, name, len(data), figures, torn)
            except Refusal as refusal:
                if refusal.reason == "exists":
                    # Another conversation runs by now.
                    kind, name = "archive", times.compact(int(figures.last or time.time_ns()))
                    continue
                return Finding(note.user, place, f"{what}; it is being changed: look again")
            where = place_of(kind, given)
            return Finding(note.user, place, what if where == place else f"{what}; it is {where} now", True)

    def _given_back(self, conversation: int, note: Note, repair: bool) -> Finding:
        key = self._keys.bytes(conversation)
        size = self._link.command("STRLEN", key)
        what = f"nothing refers to it, and its {size} bytes are there, in {key}"
        if repair:
            return self.given_back(conversation, note, what)
        return Finding(note.user, place_of(note.kind, note.name), what)

    def _change(
        self, conversation: int, note: Note, kind: str, name: str, size: int, figures: Figures, torn: Torn | None
    ) -> str:
        shard = shard_of_user(note.user)

        def wanted(seen: Seen) -> tuple[Sequence[Argument], Sequence[Argument]]:
            newest = self._keys.known(seen.newest or nobody(shard))
            said = (figures.messages, figures.first, figures.last)
            return (self._keys.bytes(conversation), self._keys.known(conversation), newest), (
                *(kind, note.text, conversation, size, name, figures.last, *said),
                text_of(seen.newest),
                *((torn.name, torn.text) if torn else ()),
            )

        index = self._keys.asides(note.user) if kind == "aside" else None
        return self._changes.do("give_back", note.user, wanted, index=index)

    def _uploads(self, shard: int, found: Found, repair: bool) -> Iterator[Finding]:
        """Bytes of uploads that processes were killed in."""
        for token in sorted(found.staged):
            key = self._keys.staged(shard, token)
            idle = self._idle(key)
            what = "an upload that was begun and never acknowledged"
            if idle is None:
                what = f"{what}; whether it goes on cannot be told under an LFU policy"
                yield Finding(None, key, f"{what}. Remove it with UNLINK once nobody writes")
            elif idle >= _IDLE:
                removable = idle >= _GIVEN_UP
                if repair and removable:
                    self._link.command("UNLINK", key)
                until = "it may be removed" if removable else f"it may be removed once it is {_GIVEN_UP} s old"
                yield Finding(None, key, f"{what}: {until}", repair and removable)

    def _idle(self, key: str) -> int | None:
        """For how long nobody has read or written a key (seconds), -1 if it is gone; None if that is not noted."""

        def do(client: Any) -> int | None:
            try:
                idle = client.object("IDLETIME", key)
            except redis.ResponseError as error:
                if "LFU" in str(error):
                    return None if client.exists(key) else -1
                if "no such key" in str(error):
                    return -1
                raise
            return -1 if idle is None else int(idle)

        return self._link.run(do, (key,))
