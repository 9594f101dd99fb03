"""Every key of a journal in Redis, damaged: by another type, by junk, by being deleted. A check names it, and a repair
loses no byte that is there."""

import io
from collections.abc import Callable
from contextlib import closing, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from potofs.backends.base import Fence
from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.keys import Keys, number, shard_of_user
from potofs.cli import checking
from potofs.config import Where
from potofs.errors import NotFound, Stale
from potofs.journal.journal import open_journal
from tests import redis_servers
from tests.backends.kit import joined, open_redis, records, stored

SHARD = shard_of_user("mia")
#: Somebody else whose conversations are in the same shard.
OTHER = next(f"noah {at}" for at in range(10_000) if shard_of_user(f"noah {at}") == SHARD)


@pytest.fixture
def backend(tmp_path: Path) -> RedisBackend:
    """A journal with everything in it."""
    backend = open_redis(tmp_path)
    for at, user in enumerate(["mia", OTHER]):
        turn = 100 * at
        backend.put_archive(user, "old", joined(records(turn, turn + 2)), 5)
        backend.append(user, records(turn + 2, turn + 5))
        backend.archive(user, "new")
        backend.append(user, records(turn + 5, turn + 9))
        backend.set_aside(user, b"refused, %d" % at)
    backend.append_log(b"cleaned up\n")
    backend.set_fence(Fence("open", 1))
    return backend


def fsck(tmp_path: Path, *, repair: bool) -> tuple[int, str]:
    """What `potofs fsck` ends with and prints."""
    where = Where("redis", redis_servers.shared().place, {"keyPrefix": f"{tmp_path}:"})
    printed = io.StringIO()
    with closing(open_journal(where, create=False)) as journal, redirect_stdout(printed):
        code = checking.check(journal, (), repair)
    return code, printed.getvalue()


def all_bytes(client: Any, keys: Keys) -> set[bytes]:
    """All that is under the numbers of mia's shard."""
    found = list(client.scan_iter(keys.bytes(number(1, SHARD)).rpartition(":")[0] + ":*"))
    return {client.get(key) for key in found if client.type(key) == b"string"}


def readable(backend: RedisBackend, user: str) -> set[bytes]:
    """All that is read of a user, `rejected/` among it."""
    found: set[bytes] = set()
    for archive in [None, *(archive.name for archive in backend.archives(user))]:
        # Its bytes were what was deleted, and it was nothing but junk.
        with suppress(Stale, NotFound):
            found.add(stored(backend, user, archive))
    for aside in backend.set_asides(user):
        with backend.open_set_aside(user, aside.name) as reader:
            found.add(reader.read_all())
    return found


KEYS: dict[str, Callable[[Any, Keys], str]] = {
    "journal": lambda c, k: k.journal,
    "log": lambda c, k: k.cleanup_log,
    "shard": lambda c, k: k.shard(SHARD),
    "users": lambda c, k: k.users(SHARD),
    "answers": lambda c, k: k.answers(SHARD, 0),
    "user": lambda c, k: k.user("mia"),
    "archives": lambda c, k: k.archives("mia"),
    "asides": lambda c, k: k.asides("mia"),
    "current's bytes": lambda c, k: k.bytes(int(c.hget(k.user("mia"), "current"))),
    "archive's bytes": lambda c, k: k.bytes(int(c.hget(k.archives("mia"), "old").split()[0])),
    "aside's bytes": lambda c, k: k.bytes(int(c.hvals(k.asides("mia"))[0].split()[0])),
    "known": lambda c, k: k.known(int(c.hget(k.user("mia"), "current"))),
}


def mistype(client: Any, key: str) -> None:
    kind = client.type(key)
    client.delete(key)
    if kind == b"string":
        client.hset(key, "junk", "junk")
    else:
        client.set(key, "junk")


def junk(client: Any, key: str) -> None:
    match client.type(key):
        case b"string":
            client.set(key, b"junk")
        case b"set":
            client.delete(key)
            client.sadd(key, b"\xffjunk", "%zz", "somebody of another shard")
        case b"hash":
            values = client.hgetall(key)
            client.hset(key, mapping=dict.fromkeys(values, "junk"))
            if not any(values.values()):
                client.hset(key, "junk", "")


DAMAGES: dict[str, Callable[[Any, str], object]] = {
    "another type": mistype,
    "junk": junk,
    "deleted": lambda client, key: client.delete(key),
}
#: What is made again when it is wanted, or says nothing.
NO_FAULT = {("log", "junk"), ("log", "deleted"), ("answers", "junk"), ("answers", "deleted"), ("known", "deleted")}
#: What cannot be mended: bytes that are gone, and keys that are no shard's, which a cluster cannot rename.
LEFT = {
    *((f"{whose} bytes", damage) for whose in ("current's", "archive's", "aside's") for damage in DAMAGES),
    *(("journal", "another type"), ("log", "another type")),
} - {(f"{whose} bytes", "junk") for whose in ("current's", "archive's", "aside's")}


@pytest.mark.expects_warning("journal is damaged: run `potofs fsck --repair`")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", KEYS)
def test_a_damaged_key_is_named_and_mended_and_nothing_that_is_there_is_lost(
    backend: RedisBackend, client: redis.Redis, keys: Keys, tmp_path: Path, what: str, damage: str
) -> None:
    key = KEYS[what](client, keys)
    prefix = f"{tmp_path}:"
    before = {user: readable(backend, user) for user in ("mia", OTHER)}
    DAMAGES[damage](client, key)
    there = all_bytes(client, keys)
    code, lines = fsck(tmp_path, repair=False)
    if (what, damage) in NO_FAULT:
        assert (code, lines.count("\n")) == (0, 1), lines
        return
    assert code == 4, lines
    if damage != "junk" or "bytes" not in what:
        assert prefix in lines, "a key is named"
    if damage != "deleted" and "bytes" not in what:
        # An entry of an index is named by what it is of.
        assert key in lines
    code, lines = fsck(tmp_path, repair=True)
    assert code in (3, 4), lines
    mended = [line.removesuffix(" (repaired)") for line in lines.splitlines() if line.endswith(" (repaired)")]
    code, again = fsck(tmp_path, repair=False)
    assert not [line for line in mended if line in again], again
    assert code == (4 if (what, damage) in LEFT else 0), again
    # Nobody has another's, and all that is there is read, under the same names where they were noted.
    after = {user: readable(backend, user) for user in ("mia", OTHER)}
    assert after[OTHER] == before[OTHER]
    assert there - after[OTHER] <= after["mia"]
    if "bytes" not in what:
        assert after == before
        assert stored(backend, "mia", "old") == joined(records(0, 2))
        assert stored(backend, "mia", "new") == joined(records(2, 5))
        assert stored(backend, "mia") == joined(records(5, 9))
        assert backend.totals()[:5] == (2, 2, 4, 18, sum(map(len, before["mia"] | before[OTHER])) - 2 * 10)
        assert backend.append("mia", [*records(5, 9), *records(50, 51)]).stored == 1
    assert backend.append("mia", records(60, 61)).stored == 1
