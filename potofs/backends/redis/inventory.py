"""What a check reads of a journal: users with all that is kept of them, what is noted of bytes, which keys there are.

What belongs together is read by one script, so that nothing is taken for a fault that is being changed just now. What
is damaged is told apart here, and never raises.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Self

from potofs import names
from potofs.backends.base import Stat, conversation_file
from potofs.backends.redis import scripts
from potofs.backends.redis.connection import Link
from potofs.backends.redis.keys import SHARDS, Keys, shard_of_user
from potofs.backends.redis.reading import Entry, is_number
from potofs.backends.redis.wording import named
from potofs.errors import Damaged, InvalidName, NameTooLong

#: What names in keys and indexes may not be.
NO_NAME = (InvalidName, NameTooLong, UnicodeDecodeError)

# Users whose entries are read by one script, and keys that a server looks at for one answer.
_USERS_AT_ONCE = 100
_KEYS_AT_ONCE = 1000


class Held(NamedTuple):
    """Something that bytes are kept of."""

    #: current, archive or aside.
    kind: str
    #: As it is spelled in the index; empty for the running conversation.
    name: str
    text: bytes
    entry: Entry

    @property
    def place(self) -> str:
        return place_of(self.kind, self.name)


class Torn(NamedTuple):
    """A field of an index that is not as the scripts write it."""

    #: archive or aside.
    kind: str
    name: bytes
    text: bytes


class User(NamedTuple):
    """What is stored of a user."""

    is_listed: bool
    #: Whether its hash says that it was made.
    is_made: bool
    #: The number, time and name of the newest archive, as the hash has them.
    newest: tuple[bytes, ...]
    held: list[Held]
    torn: list[Torn]
    #: Fields of its hash that are no numbers, or not of this shard.
    junk: dict[str, bytes]

    @property
    def is_whole(self) -> bool:
        """Whether nothing about it says that an entry was lost, or is damaged."""
        is_there = self.is_made or not (self.is_listed or self.held)
        return is_there and not self.torn and not self.junk and self.newest == self.right_newest()

    def right_newest(self) -> tuple[bytes, ...]:
        archives = [(held.entry.stat, held.name.encode()) for held in self.held if held.kind == "archive"]
        if not archives:
            return (b"", b"", b"")
        stat, name = max(archives, key=lambda archive: (archive[0].mtime_ns, archive[1]))
        return (b"%d" % stat.id, b"%d" % stat.mtime_ns, name)


class Note(NamedTuple):
    """Whose the bytes under a number are, as it is noted in their shard (begin.lua)."""

    text: bytes
    user: str
    #: current, archive or aside.
    kind: str
    #: As it is spelled in the index; empty for the running conversation.
    name: str

    @classmethod
    def parse(cls, text: bytes, shard: int) -> Self | None:
        """None if it names no user of the shard, or nothing that there is."""
        try:
            spelled, kind, name = text.decode().split("\n")
            user = names.decode(spelled)
            if shard_of_user(user) != shard or kind not in ("current", "archive", "aside"):
                return None
            if kind != "current":
                named(name)
        except (InvalidName, NameTooLong, ValueError):
            return None
        return cls(text, user, kind, name)

    @staticmethod
    def of(user: str, held: Held) -> bytes:
        """What has to be noted of something."""
        return "\n".join((names.encode(user), held.kind, held.name)).encode()


class Found(NamedTuple):
    """What the keys of a shard say."""

    bytes: set[int]
    known: set[int]
    users: set[str]
    #: The tokens of uploads.
    staged: set[str]
    #: Keys of another type than they have to be, and which.
    mistyped: dict[str, str]
    #: Keys that nobody asks for, and why.
    astray: dict[str, str]


class Inventory:
    """What there is in one journal."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def user(self, user: str) -> User:
        return self.users(shard_of_user(user), [user])[user]

    def users(self, shard: int, users: Iterable[str]) -> dict[str, User]:
        """What is stored of users of a shard; each by itself is as it was at one moment."""
        found: dict[str, User] = {}
        everyone = list(users)
        for first in range(0, len(everyone), _USERS_AT_ONCE):
            some = everyone[first : first + _USERS_AT_ONCE]
            keys = [make(user) for user in some for make in (self._keys.user, self._keys.archives, self._keys.asides)]
            answers: Sequence[Any] = self._link.script(
                scripts.entries(), (self._keys.users(shard), *keys), [names.encode(user) for user in some]
            )[0]
            found |= {user: _user(shard, answer) for user, answer in zip(some, answers, strict=True)}
        return found

    def listed(self, shard: int) -> tuple[set[str], list[bytes]]:
        """The users in a shard's list, and what else is in it."""
        try:
            members: set[bytes] = self._link.command("SMEMBERS", self._keys.users(shard))
        except Damaged:
            return set(), []
        users, others = set(), []
        for member in members:
            try:
                user = names.decode(member.decode())
                is_here = shard_of_user(user) == shard
            except NO_NAME:
                is_here = False
            if is_here:
                users.add(user)
            else:
                others.append(member)
        return users, sorted(others)

    def notes_of(self, shard: int, numbers: Sequence[int]) -> list[bytes]:
        """What a shard notes of the bytes under some numbers; empty where it notes nothing."""
        if not numbers:
            return []
        try:
            found = self._link.command("HMGET", self._keys.shard(shard), *[f"of:{number}" for number in numbers])
        except Damaged:
            return [b""] * len(numbers)
        return [text or b"" for text in found]

    def notes(self, shard: int) -> dict[int, bytes]:
        """What a shard notes of the bytes under each number."""
        try:
            fields: dict[bytes, bytes] = self._link.command("HGETALL", self._keys.shard(shard))
        except Damaged:
            return {}
        return notes_in(fields)

    def scanned(self) -> dict[int, Found]:
        """What there are keys of, of every shard."""
        found: defaultdict[int, Found] = defaultdict(lambda: Found(set(), set(), set(), set(), {}, {}))

        def scan(client: Any) -> None:
            for keys in _in_pieces(client.scan_iter(self._keys.pattern, _KEYS_AT_ONCE), _KEYS_AT_ONCE):
                with client.pipeline(transaction=False) as pipeline:
                    for key in keys:
                        pipeline.type(key)
                    for key, kind in zip(keys, pipeline.execute(), strict=True):
                        self._sort(key, kind.decode(), found)

        self._link.on_each(scan)
        return {shard: found[shard] for shard in range(SHARDS)}

    def _sort(self, key: bytes, type_: str, found: dict[int, Found]) -> None:
        parts = self._keys.parts(key)
        if parts is None:
            return
        shard, kind, rest = parts
        text = key.decode(errors="backslashreplace")
        wanted = self._keys.type_of(text)
        # Gone since it was listed.
        if type_ == "none":
            return
        is_right = wanted in (None, type_)
        if not is_right:
            found[shard].mistyped[text] = type_
        match kind:
            case "bytes" | "known":
                if not (rest.isascii() and rest.isdecimal()) or int(rest) % SHARDS != shard:
                    found[shard].astray[text] = "no conversation of this shard has that number"
                elif is_right:
                    getattr(found[shard], kind).add(int(rest))
            case "staged" if is_right:
                found[shard].staged.add(rest)
            case "user" | "archives" | "asides":
                try:
                    user = self._keys.user_of(rest)
                    where = shard_of_user(user)
                except NO_NAME:
                    found[shard].astray[text] = "no user has that name"
                else:
                    if where == shard:
                        found[shard].users.add(user)
                    else:
                        right = getattr(self._keys, kind)(user)
                        found[shard].astray[text] = f"what is read of user {user!r} is {right}"


def place_of(kind: str, name: str) -> str:
    """What something is called in a finding: as the mount does."""
    if kind == "aside":
        return f"rejected/{named(name)}.yaml"
    return conversation_file(named(name) if kind == "archive" else None)


def notes_in(fields: dict[bytes, bytes]) -> dict[int, bytes]:
    """The notes of whose bytes are, among the fields of a shard."""
    found = {field.removeprefix(b"of:"): value for field, value in fields.items() if field.startswith(b"of:")}
    return {int(number): value for number, value in found.items() if number.isdigit()}


def _user(shard: int, answer: Sequence[Any]) -> User:
    is_listed, changed, *newest, current, mtime, ctime, size, count, archives, asides = answer
    fields = {"changed": changed, "current": current, "mtime": mtime, "ctime": ctime, "size": size, "count": count}
    fields |= dict(zip(("newest", "newest_mtime"), newest, strict=False))
    junk = {field: value for field, value in fields.items() if value and not is_number(value)}
    for field in ("current", "newest", "size", "count"):
        if field not in junk and fields[field].startswith(b"-"):
            junk[field] = fields[field]
    if current and "current" not in junk and int(current) % SHARDS != shard:
        junk["current"] = current
    held: list[Held] = []
    torn: list[Torn] = []
    if current and "current" not in junk:
        parts = [current, *(value if is_number(value) else b"0" for value in (mtime, ctime, size, count))]
        number, *times, bytes_, messages = map(int, parts)
        held.append(Held("current", "", b" ".join(parts), Entry(Stat(number, bytes_, *times), messages)))
    for kind, index in (("archive", archives), ("aside", asides)):
        for name, text in zip(index[::2], index[1::2], strict=True):
            try:
                named(name.decode())
                entry = Entry.parse(text)
                if entry.stat.id % SHARDS != shard:
                    raise Damaged("its bytes would be another user's")
                held.append(Held(kind, name.decode(), text, entry))
            except (Damaged, *NO_NAME):
                torn.append(Torn(kind, name, text))
    return User(bool(is_listed), bool(changed), tuple(newest), held, torn, junk)


def _in_pieces(keys: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    rest = iter(keys)
    while piece := list(islice(rest, size)):
        yield piece
