"""The Redis backend: conversations as strings in Redis, each change one script.

`keys.py` says what lies where, the `.lua` files what changes it, `changes.py` how they are called, `copying.py` how
whole bytes are brought, `reading.py` how bytes are read, `fences.py` how changes are kept from being done,
`checking.py` what is found wrong, `connection.py` how servers are reached and what happens when they are not.

Durability is the server's: what it has acknowledged is as safe as its `appendfsync`, and its replicas, make it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import msgspec

from potofs import names, times
from potofs.backends.base import (
    Appended,
    Archived,
    Backend,
    Capability,
    Fence,
    Finding,
    Notice,
    Reader,
    Record,
    Scan,
    Snapshot,
    Stat,
    Totals,
    Usage,
)
from potofs.backends.redis import health, scripts
from potofs.backends.redis.changes import NO_FIGURES, Changes, Refusal, Seen, text_of
from potofs.backends.redis.checking import Checks
from potofs.backends.redis.connection import Argument, Link
from potofs.backends.redis.copying import Copies
from potofs.backends.redis.fences import Fences
from potofs.backends.redis.keys import FORMAT, SHARDS, Keys, nobody, number, shard_of_user
from potofs.backends.redis.notices import Watch
from potofs.backends.redis.reading import (
    RUNNING,
    ConversationReader,
    Entry,
    damaged,
    read_bytes,
    running_stat,
    whole,
)
from potofs.backends.redis.wording import explained, named, spelled, too_large
from potofs.backends.wording import gone_on, no_user, not_found, nothing_aside, taken, taken_aside
from potofs.config import RedisSettings, Where
from potofs.errors import (
    AlreadyExists,
    ConfigError,
    Damaged,
    InvalidName,
    NameTooLong,
    NotFound,
)

log = logging.getLogger(__name__)

_BLOCK = 4096
# Shards whose users are asked for together, and how many users an answer has about.
_SHARDS_AT_ONCE = 32
_USERS_AT_ONCE = 500


class RedisBackend(Backend):
    """Conversations in the Redis at a place."""

    capabilities: frozenset[Capability] = frozenset({Capability.PERSISTENCE, Capability.ARCHIVAL})
    name = "redis"
    blocks = True
    append_blocks = True

    def __init__(self, where: Where, scan: Scan) -> None:
        self._where = where
        self._settings = where.settings(RedisSettings)
        self.limits = self._settings.limits
        self._keys = Keys(self._settings.key_prefix)
        self._link = Link(where, self._settings, self._keys.type_of)
        # As it is, also where the URL's path says so.
        self.configured = msgspec.structs.replace(self._settings, db=self._link.db)
        self._changes = Changes(self._link, self._keys, scan)
        self._copies = Copies(self._link, self._keys, self._changes, str(where))
        self._fences = Fences(self._link, self._keys, str(where))
        self._checks = Checks(self._link, self._keys, self._changes, self._fences)
        self._watches: list[Watch] = []

    def prepare(self, *, create: bool) -> None:
        """Reaches the server, and warns of every setting of all servers by which they could lose what is stored.

        Raises NotFound if there is no journal and none is to be made; ConfigError if a newer potofs made it. What says
        so may be damaged: that is warned of, and for a check to mend.
        """
        key = self._keys.journal
        (found,) = self._link.batch([("HGET", key, "format")], lenient=True)
        if found is None and create:
            self._link.command("HSET", key, "format", FORMAT)
        elif found is None and not self._has_shards():
            raise NotFound(f"there is no journal at {self._where} with the prefix {self._settings.key_prefix!r}")
        elif not isinstance(found, bytes) or not found.isdigit():
            log.warning("%s: the Redis key %s is damaged: run `potofs fsck --repair`", self._where, key)
        elif int(found) != FORMAT:
            raise ConfigError(f"{self._where}: the journal has the format {int(found)}, which needs another potofs")
        health.warn(self._link, str(self._where))

    def hurry(self) -> None:
        self._link.hurries = True

    @property
    def patience(self) -> float:
        return self._link.timeout

    # Users

    def users(self) -> Iterator[str]:
        """Raises Damaged, behind all the others, if the users of a shard cannot be listed."""
        fault: Damaged | None = None
        for first in range(0, SHARDS, _SHARDS_AT_ONCE):
            # Each shard's cursor, and what it has told: a set that is rearranged meanwhile tells some twice.
            cursors = dict.fromkeys(range(first, first + _SHARDS_AT_ONCE), 0)
            told: dict[int, set[bytes]] = {shard: set() for shard in cursors}
            while cursors:
                asked = list(cursors.items())
                answers = self._link.batch(
                    [("SSCAN", self._keys.users(shard), cursor, "COUNT", _USERS_AT_ONCE) for shard, cursor in asked],
                    lenient=True,
                )
                for (shard, _), answer in zip(asked, answers, strict=True):
                    if isinstance(answer, Damaged):
                        fault = answer
                        del cursors[shard]
                        continue
                    cursor, members = answer
                    for member in members:
                        if member not in told[shard]:
                            told[shard].add(member)
                            # What is no user's name is for a check to find.
                            with suppress(InvalidName, NameTooLong, UnicodeDecodeError):
                                yield names.decode(member.decode())
                    cursors[shard] = int(cursor)
                    if not cursors[shard]:
                        del cursors[shard]
        if fault:
            raise fault

    def users_changed(self) -> int:
        keys = [self._keys.shard(shard) for shard in range(SHARDS)]
        found = self._link.batch([("HGET", key, "users_changed") for key in keys])
        return max(whole(key, "users_changed", value) for key, value in zip(keys, found, strict=True))

    def has_user(self, user: str) -> bool:
        name = names.encode(user)
        return bool(self._link.command("SISMEMBER", self._keys.users(shard_of_user(user)), name))

    def create_user(self, user: str, profile: bytes) -> None:
        with explained(exists=lambda: AlreadyExists(f"user {user!r} exists already")):
            self._changes.do("create_user", user, lambda _: ((), (profile,)))

    def user_changed(self, user: str) -> int:
        key = self._keys.user(user)
        return whole(key, "changed", self._link.command("HGET", key, "changed"))

    def set_changed(self, user: str | None, when_ns: int) -> None:
        if user is None:
            self._changes.set_users_changed(when_ns)
            return
        with explained(missing=lambda: no_user(user)):
            self._changes.do("set_changed", user, lambda _: ((), (when_ns,)))

    def changes_of(self, users: Sequence[str]) -> list[int | None]:
        commands: list[tuple[Argument, ...]] = []
        for user in users:
            commands.append(("SISMEMBER", self._keys.users(shard_of_user(user)), names.encode(user)))
            commands.append(("HGET", self._keys.user(user), "changed"))
        answers = iter(self._link.batch(commands))
        return [
            whole(self._keys.user(user), "changed", changed) if there else None
            for user, there, changed in zip(users, answers, answers, strict=True)
        ]

    def read_profile(self, user: str) -> bytes:
        profile: bytes | None = self._link.command("HGET", self._keys.user(user), "profile")
        return profile or b""

    def profile_changed(self, user: str) -> int:
        key = self._keys.user(user)
        return whole(key, "profile_changed", self._link.command("HGET", key, "profile_changed"))

    def put_profile(self, user: str, profile: bytes, mtime_ns: int) -> None:
        with explained(missing=lambda: no_user(user)):
            self._changes.do("put_profile", user, lambda _: ((), (profile, mtime_ns)))

    # Conversations

    def stat(self, user: str, archive: str | None = None) -> Stat:
        if archive is None:
            found = self._running(user)
        else:
            entry = self._link.command("HGET", self._keys.archives(user), spelled(archive))
            found = Entry.parse(entry).stat if entry else None
        if found is None:
            raise not_found(user, archive)
        return _own(user, found)

    def open(self, user: str, archive: str | None = None) -> Reader:
        stat = self.stat(user, archive)
        name = None if archive is None else spelled(archive)
        return ConversationReader(self._link, self._keys, user, name, stat)

    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        shard = shard_of_user(user)
        given: list[Argument] = []
        for record in records:
            fingerprint, time_ns = record.mark
            given += (fingerprint, int(record.retry), "" if time_ns is None else time_ns, record.data)
        name = times.compact(time.time_ns())

        def wanted(seen: Seen) -> tuple[Sequence[Argument], Sequence[Argument]]:
            sealed: tuple[Argument, ...] = ("", "", "", "", "")
            if seen.seal:
                size, between, (count, first, last, _) = seen.seal
                sealed = (size, between, count, first, last)
            conversation = seen.current or seen.new or nobody(shard)
            return (
                self._keys.bytes(conversation),
                self._keys.known(conversation),
                self._keys.known(seen.newest or nobody(shard)),
            ), (
                text_of(seen.current),
                text_of(seen.new),
                text_of(seen.newest),
                self._settings.archive_at,
                name,
                *sealed,
                *given,
            )

        with explained(full=lambda: too_large(user)):
            answer = self._changes.do("append", user, wanted)
        stored, current, newest, new, archived_as = answer.split("\n")
        fresh_number = number(int(new), shard) if new else 0 if current else self._changes.seen(user).new
        self._changes.note(user, Seen(int(current or 0), int(newest or 0), fresh_number))
        return Appended(int(stored), named(archived_as) if archived_as else None)

    def sync(self, user: str) -> None:
        """Nothing is left to do: the server forces to disk as it was told to (`appendfsync`)."""
        names.encode(user)

    def set_times(self, user: str, archive: str | None, mtime_ns: int) -> None:
        entry_name = "" if archive is None else spelled(archive)
        with explained(missing=lambda: not_found(user, archive)):
            self._changes.do("set_times", user, lambda _: ((), (entry_name, mtime_ns, "")))

    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        exists = AlreadyExists(f"user {user!r} has a running conversation already; nothing is replaced")
        if not data:
            # An empty conversation is none.
            if self._running(user):
                raise exists
            return
        with explained(exists=lambda: exists):
            self._copies.put("current", user, "", data, mtime_ns, self._changes.figures(data))

    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        return self.stat(user)[:2] == seen[:2] and self._copies.extend(user, seen, data, mtime_ns)

    # Archives

    def archives(self, user: str) -> list[Archived]:
        return self._listed(self._keys.archives(user))

    def stats_of(self, user: str, archives: Sequence[str]) -> list[Stat | None]:
        found = self._stats(self._keys.archives(user), archives)
        return [stat and _own(user, stat) for stat in found]

    def archive(
        self, user: str, name: str | None = None, *, idle_since_ns: int | None = None, wait: bool = True
    ) -> str:
        shard = shard_of_user(user)
        entry_name = "" if name is None else spelled(name)
        base = times.compact(time.time_ns())
        idle_since = "" if idle_since_ns is None else idle_since_ns

        def wanted(seen: Seen) -> tuple[Sequence[Argument], Sequence[Argument]]:
            nothing = nobody(shard)
            keys = (self._keys.known(seen.current or nothing), self._keys.known(seen.newest or nothing))
            return keys, (text_of(seen.current), text_of(seen.newest), entry_name, base, idle_since)

        with explained(
            missing=lambda: not_found(user, None), exists=lambda: taken(user, str(name)), stale=lambda: gone_on(user)
        ):
            return named(self._changes.do("archive", user, wanted))

    def restore(self, user: str, archive: str, *, swap: bool = True) -> str | None:
        name = times.compact(time.time_ns()) if swap else ""
        entry_name = spelled(archive)
        with explained(
            missing=lambda: not_found(user, archive),
            exists=lambda: AlreadyExists(f"user {user!r} has a running conversation: archive it first"),
        ):
            filed_as = self._changes.do("restore", user, lambda _: ((), (entry_name, name)))
        return named(filed_as) if filed_as else None

    def rename_archive(self, user: str, archive: str, name: str) -> None:
        both = (spelled(archive), spelled(name))
        with explained(missing=lambda: not_found(user, archive), exists=lambda: taken(user, name)):
            self._changes.do("rename", user, lambda _: ((), both))

    def put_archive(self, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        with explained(exists=lambda: taken(user, name)):
            self._copies.put("archive", user, spelled(name), data, mtime_ns, self._changes.figures(data))

    # What could not become a message

    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        if name is None:
            base = times.compact(time.time_ns())
            return named(self._copies.put("aside", user, base, data, mtime_ns, NO_FIGURES))
        try:
            with explained(exists=lambda: taken_aside(user, name)):
                return named(self._copies.put("named aside", user, spelled(name), data, mtime_ns, NO_FIGURES))
        except AlreadyExists:
            with self.open_set_aside(user, name) as there:
                if there.read_all() != data:
                    raise
        arguments = (spelled(name), time.time_ns() if mtime_ns is None else mtime_ns, "aside")
        with explained(missing=lambda: nothing_aside(user, name)):
            self._changes.do("set_times", user, lambda _: ((), arguments), index=self._keys.asides(user))
        return name

    def set_asides(self, user: str) -> list[Archived]:
        return self._listed(self._keys.asides(user))

    def has_set_asides(self, user: str) -> bool:
        return bool(self._link.command("EXISTS", self._keys.asides(user)))

    def stats_of_set_asides(self, user: str, names: Sequence[str]) -> list[Stat | None]:
        return self._stats(self._keys.asides(user), names)

    def open_set_aside(self, user: str, name: str) -> Reader:
        stat = self._set_aside(user, name)
        return Snapshot(read_bytes(self._link, self._keys.bytes(stat.id), stat.size), stat)

    def remove_set_aside(self, user: str, name: str) -> None:
        stat = self._set_aside(user, name)
        arguments = (spelled(name), stat.id)
        with explained(missing=lambda: nothing_aside(user, name)):
            keys = (self._keys.bytes(stat.id),)
            self._changes.do("remove_aside", user, lambda _: (keys, arguments), index=self._keys.asides(user))

    # The log of clean-ups

    def log_size(self) -> int:
        return int(self._link.command("STRLEN", self._keys.cleanup_log))

    def read_log(self, offset: int, size: int) -> bytes:
        return read_bytes(self._link, self._keys.cleanup_log, size, offset=offset)

    def append_log(self, line: bytes) -> None:
        self._link.script(scripts.log(), (self._keys.cleanup_log,), (line,))

    # Checking

    def check(self, user: str | None, *, repair: bool) -> Iterator[Finding]:
        if repair:
            # What is only removed (fingerprints, copies) asks no script.
            self.fence().check()
        return self._checks.place(repair) if user is None else self._checks.user(user, repair)

    def rewrite(
        self,
        user: str,
        archive: str | None,
        seen: Stat,
        data: bytes,
        *,
        was: bytes | None = None,
        mtime_ns: int | None = None,
    ) -> bool:
        return self._copies.rewrite(user, "" if archive is None else spelled(archive), seen, data, mtime_ns)

    def rewrite_profile(self, user: str, profile: bytes, *, was: bytes) -> bool:
        try:
            self._changes.do("put_profile", user, lambda _: ((), (profile, time.time_ns(), was)))
        except Refusal:
            return False
        return True

    # The place

    def usage(self) -> Usage:
        """Of all masters together; what a server may use is its maxmemory, or else the machine's memory."""
        used = total = 0
        for memory in self._link.on_each(lambda client: client.info("memory")):
            used += memory["used_memory"]
            total += memory["maxmemory"] or memory["total_system_memory"]
        free = max(0, total - used) // _BLOCK
        return Usage(_BLOCK, max(total, used) // _BLOCK, free, free)

    def totals(self) -> Totals:
        fields = ("users", "conversations", "archives", "messages", "bytes", "first", "last")
        keys = [self._keys.shard(shard) for shard in range(SHARDS)]
        shards = [
            [whole(key, field, value) if value else None for field, value in zip(fields, values, strict=True)]
            for key, values in zip(keys, self._link.batch([("HMGET", key, *fields) for key in keys]), strict=True)
        ]
        users, conversations, archives, messages, size = (sum(shard[at] or 0 for shard in shards) for at in range(5))
        first = min((shard[5] for shard in shards if shard[5] is not None), default=None)
        last = max((shard[6] for shard in shards if shard[6] is not None), default=None)
        return Totals(users, conversations, archives, messages, size, first, last)

    def fence(self) -> Fence:
        return self._fences.read()

    def set_fence(self, fence: Fence) -> None:
        self._fences.set(fence)

    def watch(self, on_notice: Callable[[Notice | None], object]) -> Callable[[], None]:
        watch = Watch(self._link, self._keys.channel, on_notice)
        self._watches.append(watch)
        return watch.close

    def close(self) -> None:
        for watch in self._watches:
            watch.close()
        self._link.close()

    # Inside

    def _has_shards(self) -> bool:
        return any(self._link.batch([("EXISTS", self._keys.users(shard)) for shard in range(SHARDS)]))

    def _running(self, user: str) -> Stat | None:
        key = self._keys.user(user)
        return running_stat(key, self._link.command("HMGET", key, *RUNNING))

    def _set_aside(self, user: str, name: str) -> Stat:
        entry = self._link.command("HGET", self._keys.asides(user), spelled(name))
        if not entry:
            raise nothing_aside(user, name)
        return Entry.parse(entry).stat

    def _stats(self, key: str, names: Sequence[str]) -> list[Stat | None]:
        """What an index says of each of many names."""
        entries = self._link.command("HMGET", key, *map(spelled, names)) if names else []
        return [Entry.parse(entry).stat if entry else None for entry in entries]

    def _listed(self, key: str) -> list[Archived]:
        found = []
        for name, text in self._link.command("HGETALL", key).items():
            stat = Entry.parse(text).stat
            try:
                found.append(Archived(named(name.decode()), stat, stat.size))
            except (InvalidName, NameTooLong, UnicodeDecodeError):
                raise damaged(key, name.decode(errors="backslashreplace")) from None
        return found


def _own(user: str, stat: Stat) -> Stat:
    """What an entry of a user says; raises Damaged for one that would be another user's."""
    if stat.id % SHARDS != shard_of_user(user):
        raise Damaged(f"an entry of user {user!r} in Redis is damaged: run `potofs fsck --repair`")
    return stat
