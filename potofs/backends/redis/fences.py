"""The fence of a journal, which every shard has, so that its scripts see it: read, set, and checked."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from potofs.backends.base import Fence, Finding
from potofs.backends.redis import scripts
from potofs.backends.redis.connection import Link
from potofs.backends.redis.keys import SHARDS, Keys
from potofs.backends.redis.reading import damaged
from potofs.errors import Damaged, Unreachable

# The states of a fence, the most closed one last.
_CLOSED = ("open", "frozen", "moved")
# How often one is set that does not stay, or read that is being set.
_TRIES = 5
# Between looks at a fence that may be being set (seconds).
_PAUSE = 0.05


class _Read(NamedTuple):
    """The fence of every shard; they are the same unless one is being set, or whoever set it was killed."""

    sound: dict[int, Fence]
    #: Of the shards whose fence cannot be read: why.
    faults: dict[int, Damaged]


class Fences:
    """The fences of one journal's shards; `where` is what its place is called in errors."""

    def __init__(self, link: Link, keys: Keys, where: str) -> None:
        self._link = link
        self._keys = keys
        self._where = where

    def read(self) -> Fence:
        """The fence of all shards.

        If they differ, since it is being set or whoever set it was killed, the state is that of the most closed one and
        the epoch the highest of all: some users' changes are refused, and whoever sets the next fence counts up. One
        that is damaged says nothing; raises Damaged if all are.
        """
        fences, faults = self._read()
        if not fences:
            raise faults[0]
        closed = max(fences.values(), key=lambda fence: (_CLOSED.index(fence.state), fence.epoch))
        return closed._replace(epoch=max(fence.epoch for fence in fences.values()))

    def set(self, fence: Fence) -> None:
        """Sets the fence of each shard; done again, it completes what was interrupted.

        Raises DeadlineExceeded if it is set and replicas do not have it in time; Unreachable if it does not stay.
        """
        # Each shard's scripts look at their own: once it is set, none runs that saw another.
        text, closed = _fields(fence)
        shards = [self._keys.shard(shard) for shard in range(SHARDS)]
        for _ in range(_TRIES):
            self._link.batch([("HSET", shard, "fence", text, "closed", closed) for shard in shards])
            # A master that took over meanwhile may not have it, and says so when it is read.
            if all(self._link.replicas_have(shard, (shard,), b"fence") for shard in shards):
                found = self._read()
                if not found.faults and set(found.sound.values()) == {fence}:
                    return
        raise Unreachable(f"{self._where}: the fence does not stay as it is set; others set it, or masters fail")

    def check(self, repair: bool) -> Iterator[Finding]:
        """Shards whose fence is damaged, or differs: whoever set one was killed, and only some changes are refused."""
        for _ in range(_TRIES):
            fences, faults = self._read()
            counts = Counter(fences.values())
            if len(counts) == 1 and not faults:
                return
            time.sleep(_PAUSE)
        # Where all that can be read are open, there is no doubt what the others have to be.
        is_open = bool(counts) and all(fence.state == "open" for fence in counts)
        right = max(counts, key=lambda fence: fence.epoch) if is_open else None
        for shard, fault in faults.items():
            yield from self._mended(shard, right, repair, str(fault))
        if right:
            for shard, fence in fences.items():
                if fence != right:
                    what = f"the fence is {_said(fence)} here, and {_said(right)} in other shards"
                    yield from self._mended(shard, right, repair, what)
        elif len(counts) > 1:
            shards = ", ".join(f"{_said(fence)} in {count}" for fence, count in counts.items())
            yield Finding(None, "fence", f"it is not the same in all shards: {shards}. Set it again")

    def _mended(self, shard: int, right: Fence | None, repair: bool, what: str) -> Iterator[Finding]:
        key = self._keys.shard(shard)
        try:
            was = [value or b"" for value in self._link.command("HMGET", key, "fence", "closed")]
        except Damaged:
            # That it has another type is a finding of its own.
            return
        if not right:
            yield Finding(None, key, f"{what}; the other shards are not open, so set the fence again")
            return
        done = repair and self._link.script(scripts.refence(), (key,), (*was, *_fields(right)))[0] == [b"done"]
        yield Finding(None, key, what, done)

    def _read(self) -> _Read:
        commands = [("HMGET", self._keys.shard(shard), "fence", "closed") for shard in range(SHARDS)]
        read = _Read({}, {})
        for shard, answer in enumerate(self._link.batch(commands, lenient=True)):
            try:
                if isinstance(answer, Damaged):
                    raise answer
                key = self._keys.shard(shard)
                fence = fence_of(key, answer[0])
                if (answer[1] or b"").decode(errors="replace") != _fields(fence)[1]:
                    raise damaged(key, "closed")
                read.sound[shard] = fence
            except Damaged as error:
                read.faults[shard] = error
        return read


def fence_of(key: str, text: bytes | None) -> Fence:
    """A fence as it is noted in a shard's hash; raises Damaged."""
    try:
        return msgspec.json.decode(text, type=Fence) if text else Fence()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise damaged(key, "fence") from None


def _fields(fence: Fence) -> tuple[bytes, str]:
    """What is noted in each shard: the fence, and whether it keeps changes from being done."""
    return msgspec.json.encode(fence), "" if fence.state == "open" else "1"


def _said(fence: Fence) -> str:
    return f"{fence.state} (epoch {fence.epoch})"
