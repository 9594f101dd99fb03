"""Keys that are not what they have to be: of another type than their name says, or under a name that nobody asks for.

potofs writes none; somebody else did, or a name was typed wrong. What is in them is not read, and never thrown away: a
key of another type gets another name, so that its own is free for what belongs there.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from potofs.backends.base import Finding
from potofs.backends.redis import scripts
from potofs.backends.redis.connection import Link
from potofs.backends.redis.fences import fence_of
from potofs.backends.redis.inventory import Found
from potofs.backends.redis.keys import FORMAT, Keys


class Misfits:
    """Such keys of one journal."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def among(self, user: str, shard: int, keys: Sequence[str], repair: bool) -> tuple[list[Finding], set[str]]:
        """Those of another type among a user's keys; and which of them are there still."""
        types = self._link.batch([("TYPE", key) for key in keys]) if keys else []
        wrong = {
            key: kind.decode()
            for key, kind in zip(keys, types, strict=True)
            if kind.decode() not in ("none", self._keys.type_of(key))
        }
        findings = [self._mistyped(user, shard, key, kind, repair) for key, kind in wrong.items()]
        return findings, {finding.place for finding in findings if not finding.repaired}

    def of_shard(self, shard: int, found: Found, others: Iterable[bytes], repair: bool) -> Iterator[Finding]:
        """Those of a shard; `others`: what is in its list of users and is none of them."""
        for key, kind in sorted(found.mistyped.items()):
            yield self._mistyped(None, shard, key, kind, repair)
        for key, why in sorted(found.astray.items()):
            yield Finding(None, key, f"nobody asks for this key: {why}. Look at it, and RENAME it or remove it")
        key = self._keys.users(shard)
        for member in others:
            if repair:
                # It holds nothing: whatever is of a user lies under keys that say so.
                self._link.command("SREM", key, member)
            yield Finding(None, key, f"{_shown(member)} is in the list and is no user of this shard", repair)

    def of_journal(self, repair: bool) -> Iterator[Finding]:
        """What is wrong with the keys that are no shard's."""
        key = self._keys.journal
        for one in (key, self._keys.cleanup_log):
            kind = self._link.command("TYPE", one).decode()
            if kind not in ("none", self._keys.type_of(one)):
                # In a cluster it has a slot of its own, which no other name has.
                yield Finding(None, one, f"{self._said(one, kind)}. RENAME it, and run `potofs fsck --repair` again")
            elif one == key and (found := self._link.command("HGET", key, "format")) != b"%d" % FORMAT:
                if repair:
                    self._link.command("HSET", key, "format", FORMAT)
                said = "is not there" if found is None else f"is {_shown(found)}"
                yield Finding(None, key, f"the format of the journal {said}", repair)

    def _mistyped(self, user: str | None, shard: int, key: str, kind: str, repair: bool) -> Finding:
        what = self._said(key, kind)
        if not repair:
            return Finding(user, key, what)
        new = self._keys.damaged(key, os.urandom(6).hex())
        answer: Sequence[Any] = self._link.script(scripts.put_by(), (self._keys.shard(shard), key, new), (kind,))[0]
        match answer:
            case [b"fenced", fence]:
                fence_of(self._keys.shard(shard), fence).check()
            case [b"done"]:
                return Finding(user, key, f"{what}. It is {new} now: look at it, and remove it with UNLINK", True)
        return Finding(user, key, f"{what}. It is being changed: look again")

    def _said(self, key: str, kind: str) -> str:
        return f"a {kind} is under this key, which has to be a {self._keys.type_of(key)}"


def _shown(value: bytes) -> str:
    return repr(value.decode(errors="backslashreplace")[:80])
