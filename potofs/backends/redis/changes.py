"""How a change is brought to a script: with a token, the right keys, and what the script has to be told first.

A script cannot look up which keys it needs: all of them are given. So it is called with those that this process saw
last, answers which ones it wants if others have made changes since, and is called again; until then nothing was
changed. The token is one for the whole of a change. A script that is repeated, because the connection was cut before
its answer came, finds the token and answers what it did, or says that it cannot tell any more (`begin.lua`).

A change that replicas are waited for may be lost while they are, with its master. The master that follows does not know
the token then, and may have replicas of its own: so it is asked for the token together with them, and if it does not
know that, it is given the script again.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from potofs import names
from potofs.backends.base import RECORD_END, Fingerprint, Mark, Scan, seam
from potofs.backends.redis import scripts
from potofs.backends.redis.connection import Argument, Link
from potofs.backends.redis.fences import fence_of
from potofs.backends.redis.keys import SHARDS, Keys, number, shard_of_user
from potofs.backends.redis.reading import damaged, read_bytes
from potofs.backends.waiting import left_of
from potofs.errors import DeadlineExceeded, NotReplicated

# Users whose conversations' numbers are remembered.
_USERS = 8192
# Fingerprints that a server notes in one script: a few milliseconds at most.
_LEARNED_AT_ONCE = 1000


class Figures(NamedTuple):
    """What a conversation's bytes hold, for a script."""

    messages: int
    #: Decimal, or empty if nobody can tell when anything was said.
    first: str
    last: str
    fingerprints: list[Fingerprint]


NO_FIGURES = Figures(0, "", "", [])


class Seal(NamedTuple):
    """How a conversation that does not end in a record's end goes on."""

    #: The size that it had (bytes).
    size: int
    between: bytes
    #: What it holds then.
    figures: Figures


class Seen(NamedTuple):
    """The conversations of a user, as this process saw them last; 0 for one that there is not."""

    current: int = 0
    newest: int = 0
    #: A number for a new conversation; nobody else has it unless a master was replaced.
    new: int = 0
    seal: Seal | None = None


def text_of(conversation: int) -> str:
    """A conversation's number for a script: empty for none."""
    return str(conversation) if conversation else ""


class Refusal(Exception):
    """A script's answer that is for the caller to explain: missing, exists, stale, full, changed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


#: The keys and arguments of a script beyond those that all have.
Wanted = Callable[[Seen], tuple[Sequence[Argument], Sequence[Argument]]]


class Changes:
    """Changes of one journal; thread-safe."""

    def __init__(self, link: Link, keys: Keys, scan: Scan) -> None:
        self._link = link
        self._keys = keys
        self._scan = scan
        self._guard = threading.Lock()
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        # For each shard how many changes there had been when it was last heard of.
        self._counts = [0] * SHARDS

    def do(self, script: str, user: str, wanted: Wanted, *, index: str | None = None, fenced: bool = True) -> str:
        """Does a change whole, once, or not at all, and returns the script's answer; `index`: instead of archives.

        `fenced`: whether a fence keeps it from being done.

        Raises Refusal, Fenced, Damaged; DeadlineExceeded if others changed the same until the deadline, or whether it
        was done cannot be told; and what a Link raises.
        """
        shard = shard_of_user(user)
        keys = self._keys
        fixed_keys = (
            keys.shard(shard),
            keys.users(shard),
            keys.answers(shard, 0),
            keys.answers(shard, 1),
            keys.user(user),
            index or keys.archives(user),
        )
        name, token = names.encode(user), os.urandom(12)
        change = scripts.change(script, fenced=fenced)
        # How many changes there had been before this was done for the first time; None as long as it was not.
        since: int | None = None
        # A number that is free, if the script asked for one.
        fresh = 0
        # Whether the script was given once without an answer: that may still be done, later.
        is_cut = False
        deadline = time.monotonic() + left_of(self._link.timeout)
        while True:
            seen = self.seen(user)
            more_keys, more = wanted(seen._replace(new=fresh) if fresh else seen)
            before = self._counts[shard] if since is None else since
            arguments = (token, before, name, keys.channel, *more)
            answer, repeated = self._link.script(change, (*fixed_keys, *more_keys), arguments)
            is_cut = is_cut or repeated
            match answer:
                case [b"done", said, count]:
                    since = before
                    if count:
                        self._counts[shard] = max(self._counts[shard], int(count))
                    if self._link.replicas_have(keys.shard(shard), fixed_keys[2:4], token):
                        return said.decode()
                case [b"late", count]:
                    if is_cut or since is not None:
                        raise DeadlineExceeded("the connection was cut, and whether this was done cannot be told now")
                    self._counts[shard] = int(count)
                case [b"keys", current, newest, count]:
                    new = number(int(count), shard) if count else 0
                    self.note(user, Seen(int(current or 0), int(newest or 0), new))
                case [b"number", count]:
                    fresh = number(int(count), shard)
                case [b"scan", conversation]:
                    self._learn(int(conversation))
                case [b"seal", conversation, size]:
                    self._look_at_end(user, int(conversation), int(size))
                case [b"fenced", fence]:
                    fence_of(keys.shard(shard), fence).check()
                    raise damaged(keys.shard(shard), "closed")
                case [b"damaged", key, field]:
                    raise damaged(key.decode(), field.decode())
                case [reason]:
                    raise Refusal(reason.decode())
                case _:
                    raise AssertionError(f"{script}.lua answers {answer!r}")
            if time.monotonic() > deadline:
                if since is not None:
                    raise NotReplicated("stored, but one master after another was replaced before replicas had it")
                if is_cut:
                    raise DeadlineExceeded("the connection was cut, and whether this was done cannot be told now")
                raise DeadlineExceeded(
                    f"others were changing the same for {self._link.timeout:g} s, and nothing was changed"
                )

    def set_users_changed(self, when_ns: int) -> None:
        """Sets when a user was last added, in each shard; done again, it completes what was interrupted.

        Raises Fenced, and what a Link raises. No replica is waited for: it is a time that is shown, and nothing is
        decided by it.
        """
        for shard in range(SHARDS):
            key = self._keys.shard(shard)
            match self._link.script(scripts.set_users_changed(), (key,), (when_ns,))[0]:
                case [b"fenced", fence]:
                    fence_of(key, fence).check()
                    raise damaged(key, "closed")

    def seen(self, user: str) -> Seen:
        """What was seen of a user last."""
        with self._guard:
            return self._seen.get(user, Seen())

    def note(self, user: str, seen: Seen) -> None:
        """Remembers what is seen of a user now; it need not be true for long."""
        with self._guard:
            self._seen[user] = seen
            self._seen.move_to_end(user)
            if len(self._seen) > _USERS:
                self._seen.popitem(last=False)

    def figures(self, data: bytes) -> Figures:
        """What bytes hold."""
        marks: list[Mark] = list(self._scan(data))
        said = [mark.time_ns for mark in marks if mark.time_ns is not None]
        first, last = (str(min(said)), str(max(said))) if said else ("", "")
        return Figures(len(marks), first, last, [mark.fingerprint for mark in marks])

    def learn(self, conversation: int, size: int, fingerprints: Iterable[Fingerprint]) -> None:
        """Has the fingerprints noted of a conversation whose bytes, `size` of them, hold these messages.

        Some at a time: a server does nothing else meanwhile. What was not noted in the end is asked for again.
        """
        keys = (self._keys.bytes(conversation), self._keys.known(conversation))
        different = list(dict.fromkeys(fingerprints))
        for first in range(0, max(1, len(different)), _LEARNED_AT_ONCE):
            piece = different[first : first + _LEARNED_AT_ONCE]
            total = len(different) if first + len(piece) == len(different) else ""
            answer = self._link.script(scripts.learn(), keys, (size, total, *piece))[0]
            if answer != [b"more"]:
                return

    def _learn(self, conversation: int) -> None:
        """Has the fingerprints of a conversation made from its bytes; if it grows meanwhile, the script asks again."""
        data = read_bytes(self._link, self._keys.bytes(conversation))
        self.learn(conversation, len(data), self.figures(data).fingerprints)

    def _look_at_end(self, user: str, conversation: int, size: int) -> None:
        data = read_bytes(self._link, self._keys.bytes(conversation), size)
        between = seam(data[-len(RECORD_END) :])
        seal = Seal(size, between, self.figures(data + between))
        self.note(user, self.seen(user)._replace(seal=seal))
