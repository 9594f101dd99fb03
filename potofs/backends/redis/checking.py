"""What can be wrong in Redis beside the records, found and mended: entries that are not what their bytes say, what is
derived from them, and bytes that nothing refers to.

What belongs together is read by one script, so that nothing is taken for a fault that is being changed just now; it is
mended by one too, and only if it is still as it was seen. Bytes are never removed unless they are elsewhere as well, or
never came to have a number, so that nobody was told that they are stored.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import redis

from potofs import names
from potofs.backends.base import Fence, Finding, conversation_file
from potofs.backends.redis import scripts
from potofs.backends.redis.changes import Changes, Refusal
from potofs.backends.redis.connection import Link
from potofs.backends.redis.keys import SHARDS, Keys, number, shard_of_user
from potofs.backends.redis.reading import Entry, read_bytes, read_fences
from potofs.backends.redis.wording import named
from potofs.errors import InvalidName, NameTooLong

# How often something is looked at again that is being changed.
_TRIES = 5
# Between looks at a fence that may be being set (seconds).
_PAUSE = 0.05
# Users whose entries are read by one script, and keys that a server looks at for one answer.
_USERS_AT_ONCE = 100
_KEYS_AT_ONCE = 1000
# Bytes without a name that nobody has touched for so long are nobody's: they are not on their way in (seconds).
_IDLE = 60
# Staged bytes are an upload that was given up, and may be removed, after this (seconds).
_GIVEN_UP = 600
# The sums over a shard's users.
_SUMS = ("users", "conversations", "archives", "messages", "bytes")


class _Held(NamedTuple):
    """Something that bytes are kept of."""

    #: current, archive or aside.
    kind: str
    #: As it is spelled in the index; empty for the running conversation.
    name: str
    text: bytes
    entry: Entry

    @property
    def place(self) -> str:
        if self.kind == "aside":
            return f"rejected/{named(self.name)}.yaml"
        return conversation_file(named(self.name) if self.kind == "archive" else None)


class _User(NamedTuple):
    """What is stored of a user."""

    is_listed: bool
    #: Whether its hash says that it was made.
    is_made: bool
    #: The number, time and name of the newest archive, as the hash has them.
    newest: tuple[bytes, ...]
    held: list[_Held]

    def right_newest(self) -> tuple[bytes, ...]:
        archives = [(held.entry.stat, held.name.encode()) for held in self.held if held.kind == "archive"]
        if not archives:
            return (b"", b"", b"")
        stat, name = max(archives, key=lambda archive: (archive[0].mtime_ns, archive[1]))
        return (b"%d" % stat.id, b"%d" % stat.mtime_ns, name)


class _Found(NamedTuple):
    """What the keys of a shard say."""

    bytes: set[int]
    known: set[int]
    users: set[str]
    #: The tokens of uploads.
    staged: set[str]


class Checks:
    """The checks of one journal. When messages were said is compared for what users' checks have read before."""

    def __init__(self, link: Link, keys: Keys, changes: Changes) -> None:
        self._link = link
        self._keys = keys
        self._changes = changes
        # The first and the last time at which something was said in a shard, of what was read.
        self._said: dict[int, tuple[int, int]] = {}

    def user(self, user: str, repair: bool) -> Iterator[Finding]:
        """What is wrong with a user."""
        judged: set[int] = set()
        found = self._user(user)
        if found.is_listed != found.is_made or (found.held and not found.is_listed):
            what = "what is noted of the user is gone" if found.is_listed else "is not in the list of users"
            yield Finding(user, "user", what, self._mended(user, repair, "user"))
        for _ in range(_TRIES):
            moved = False
            for held in found.held:
                if held.entry.stat.id not in judged:
                    findings = self._of_held(user, held, repair)
                    if findings is None:
                        moved = True
                    else:
                        judged.add(held.entry.stat.id)
                        yield from findings
            found = self._user(user)
            if not moved:
                break
        if found.newest != found.right_newest():
            what = "another archive is the newest than what is noted"
            yield Finding(user, "archived/", what, self._mended(user, repair, "newest"))

    def place(self, repair: bool) -> Iterator[Finding]:
        """What is wrong with what is not one user's, and with users that are not in the list."""
        yield from self._fences()
        for shard, found in self._scanned().items():
            for user in sorted(found.users - self._listed(shard)):
                yield from self.user(user, repair)
            yield from self._orphans(shard, found, repair)
            yield from self._uploads(shard, found, repair)
            yield from self._sums(shard, found, repair)

    # Of a user

    def _of_held(self, user: str, held: _Held, repair: bool) -> list[Finding] | None:
        """What is wrong with bytes and what is noted of them; None if they are called something else by now."""
        conversation = held.entry.stat.id
        index = self._keys.asides(user) if held.kind == "aside" else self._keys.archives(user)
        bytes_key, known_key = self._keys.bytes(conversation), self._keys.known(conversation)
        findings: list[Finding] = []
        for _ in range(_TRIES):
            answer: Sequence[Any] = self._link.script(
                scripts.look(), (self._keys.user(user), index, bytes_key, known_key), (held.kind, held.name)
            )[0]
            text, there, known = answer
            entry = Entry.parse(text) if text else None
            if entry is None or entry.stat.id != conversation:
                return None
            if entry.stat.size and not there:
                what = f"all its {entry.stat.size} bytes are gone, and there is nothing to mend it with"
                return [Finding(user, held.place, what)]
            if held.kind == "aside":
                count, first, last = 0, "", ""
                fingerprints: set[bytes] = set()
            else:
                data = read_bytes(self._link, bytes_key, there)
                if len(data) < there:
                    continue
                count, first, last, marks = self._changes.figures(data)
                fingerprints = {b"", *marks}
                self._widen(shard_of_user(user), first, last)
            findings = []
            if (entry.stat.size, entry.messages) != (there, count):
                noted = _amount(entry.stat.size, entry.messages, held.kind)
                what = f"{noted} are noted, and there are {_amount(there, count, held.kind)}"
                mending = (held.kind, held.name, text, there, count, first, last)
                if repair and not self._do(user, mending, (bytes_key, known_key), index):
                    # It has gone on.
                    findings = [Finding(user, held.place, what)]
                    continue
                findings.append(Finding(user, held.place, what, repair))
            if known and set(known) != fingerprints:
                if repair:
                    # Made again when they are wanted.
                    self._link.command("DEL", known_key)
                findings.append(Finding(user, held.place, "the fingerprints kept are not its messages'", repair))
            break
        return findings

    def _mended(self, user: str, repair: bool, kind: str) -> bool:
        if repair:
            nobody = number(0, shard_of_user(user))
            self._do(user, (kind, "", "", "", "", "", ""), (self._keys.bytes(nobody), self._keys.known(nobody)))
        return repair

    def _do(
        self, user: str, arguments: Sequence[str | bytes | int], keys: Sequence[str], index: str | None = None
    ) -> bool:
        """Mends something; False if it has changed since it was looked at."""
        try:
            self._changes.do("mend", user, lambda _: (keys, arguments), index=index)
        except Refusal:
            return False
        return True

    # Of a shard

    def _fences(self) -> Iterator[Finding]:
        """Shards whose fences differ: whoever set one was killed, and only some users' changes are refused."""
        for _ in range(_TRIES):
            fences = Counter(read_fences(self._link, self._keys))
            if len(fences) == 1:
                return
            time.sleep(_PAUSE)
        shards = ", ".join(f"{fence.state} (epoch {fence.epoch}) in {count}" for fence, count in fences.items())
        yield Finding(None, "fence", f"it is not the same in all shards: {shards}. Set it again")

    def _orphans(self, shard: int, found: _Found, repair: bool) -> Iterator[Finding]:
        """Bytes and fingerprints that nothing refers to."""
        loose, known = found.bytes, found.known
        # What has got its name since, or had another user's while they were being read, is found by a second look.
        for _ in range(2):
            if not (loose or known):
                return
            users = self._listed(shard) | found.users
            numbers = {held.entry.stat.id for user in self._users(shard, users).values() for held in user.held}
            loose, known = loose - numbers, known - numbers
        for conversation in sorted(known):
            key = self._keys.known(conversation)
            if self._link.command("EXISTS", key):
                if repair:
                    self._link.command("DEL", key)
                yield Finding(None, key, "fingerprints of no conversation", repair)
        for conversation in sorted(loose):
            key = self._keys.bytes(conversation)
            idle = self._idle(key)
            if idle is None:
                what = "nothing refers to it; whether it is on its way in cannot be told under an LFU policy"
                yield Finding(None, key, f"{what}. Remove it with UNLINK once nobody writes")
            elif idle >= _IDLE:
                if repair and self._is_elsewhere(shard, key):
                    self._link.command("UNLINK", key)
                    yield Finding(None, key, "bytes that nothing refers to", True)
                else:
                    what = "bytes that nothing refers to, of a process that was killed. Look at them with GETRANGE"
                    yield Finding(None, key, f"{what}, and remove them with UNLINK")

    def _uploads(self, shard: int, found: _Found, repair: bool) -> Iterator[Finding]:
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

        return self._link.run(do)

    def _is_elsewhere(self, shard: int, key: str) -> bool:
        """Whether something of a user has the same bytes."""
        data = read_bytes(self._link, key)
        users = self._users(shard, self._listed(shard)).values()
        for held in (held for user in users for held in user.held):
            stat = held.entry.stat
            if stat.size == len(data) and read_bytes(self._link, self._keys.bytes(stat.id)) == data:
                return True
        return False

    def _sums(self, shard: int, found: _Found, repair: bool) -> Iterator[Finding]:
        key = self._keys.shard(shard)
        finding: Finding | None = None
        for _ in range(_TRIES):
            before = self._link.command("HMGET", key, "changes", "last_number", "first", "last", *_SUMS)
            listed = self._listed(shard)
            users = self._users(shard, listed | found.users).values()
            if self._link.command("HGET", key, "changes") != before[0]:
                continue
            held = [held for user in users for held in user.held]
            entries = [one.entry for one in held if one.kind != "aside"]
            running = sum(one.kind == "current" for one in held)
            sums = (
                len(listed),
                running,
                len(entries) - running,
                sum(entry.messages for entry in entries),
                sum(entry.stat.size for entry in entries),
            )
            wrong: dict[str, tuple[bytes | None, int]] = {
                field: (was, value)
                for field, was, value in zip(_SUMS, before[4:], sums, strict=True)
                if int(was or 0) != value
            }
            first, last = before[2:4]
            if said := self._said.get(shard):
                if not first or int(first) > said[0]:
                    wrong["first"] = (first, said[0])
                if not last or int(last) < said[1]:
                    wrong["last"] = (last, said[1])
            numbers = {one.entry.stat.id for one in held} | found.bytes
            last_number = max((conversation // SHARDS for conversation in numbers), default=0)
            if int(before[1] or 0) < last_number:
                wrong["last_number"] = (before[1], last_number)
            if not wrong:
                return
            said_of = ", ".join(f"{field} {int(was or 0)} for {value}" for field, (was, value) in wrong.items())
            finding = Finding(None, key, f"the sums are wrong: {said_of}")
            if not repair or self._recounted(shard, before[0] or b"", last_number, wrong):
                yield finding._replace(repaired=repair)
                return
        if finding:
            yield finding

    def _recounted(
        self, shard: int, changes: bytes, last_number: int, wrong: dict[str, tuple[bytes | None, int]]
    ) -> bool:
        key = self._keys.shard(shard)
        fields = {field: value for field, (_, value) in wrong.items() if field != "last_number"}
        pairs = [part for field, value in fields.items() for part in (field, value)]
        match self._link.script(scripts.recount(), (key,), (changes, last_number, *pairs))[0]:
            case [b"fenced", fence]:
                msgspec.json.decode(fence, type=Fence).check()
            case [b"done"]:
                # No replica is waited for: what is derived can be made again.
                return True
        return False

    # Reading

    def _user(self, user: str) -> _User:
        return self._users(shard_of_user(user), [user])[user]

    def _users(self, shard: int, users: Iterable[str]) -> dict[str, _User]:
        """What is stored of users of a shard; each by itself is as it was at one moment."""
        found: dict[str, _User] = {}
        everyone = list(users)
        for first in range(0, len(everyone), _USERS_AT_ONCE):
            some = everyone[first : first + _USERS_AT_ONCE]
            keys = [make(user) for user in some for make in (self._keys.user, self._keys.archives, self._keys.asides)]
            answers: Sequence[Any] = self._link.script(
                scripts.entries(), (self._keys.users(shard), *keys), [names.encode(user) for user in some]
            )[0]
            for user, (is_listed, is_made, current, *newest, archives, asides) in zip(some, answers, strict=True):
                held = [_Held("current", "", current, Entry.parse(current))] if current else []
                for kind, index in (("archive", archives), ("aside", asides)):
                    for name, text in zip(index[::2], index[1::2], strict=True):
                        held.append(_Held(kind, name.decode(), text, Entry.parse(text)))
                found[user] = _User(bool(is_listed), bool(is_made), tuple(newest), held)
        return found

    def _listed(self, shard: int) -> set[str]:
        """The users in a shard's list."""
        return {names.decode(name.decode()) for name in self._link.command("SMEMBERS", self._keys.users(shard))}

    def _scanned(self) -> dict[int, _Found]:
        """What there are keys of, of every shard."""
        found: defaultdict[int, _Found] = defaultdict(lambda: _Found(set(), set(), set(), set()))

        def scan(client: Any) -> None:
            for key in client.scan_iter(self._keys.pattern, _KEYS_AT_ONCE):
                match self._keys.parts(key):
                    case (shard, "bytes" | "known" as kind, text) if text.isdecimal() and int(text) % SHARDS == shard:
                        getattr(found[shard], kind).add(int(text))
                    case (shard, "staged", token):
                        found[shard].staged.add(token)
                    case (shard, "user" | "archives" | "asides", spelled):
                        with suppress(InvalidName, NameTooLong):
                            found[shard].users.add(self._keys.user_of(spelled))

        self._link.on_each(scan)
        return {shard: found[shard] for shard in range(SHARDS)}

    def _widen(self, shard: int, first: str, last: str) -> None:
        if first:
            so_far = self._said.get(shard, (int(first), int(last)))
            self._said[shard] = min(so_far[0], int(first)), max(so_far[1], int(last))


def _amount(size: int, count: int, kind: str) -> str:
    return f"{size} bytes" if kind == "aside" else f"{size} bytes and {count} messages"
