"""What the tests of checks in Redis share: a journal of mia's, and the ways into what is stored of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.keys import Keys, shard_of_user
from tests import redis_servers
from tests.backends.kit import joined, open_redis, records

SHARD = shard_of_user("mia")
#: Fields of a shard, and what is wrong in each.
SUMS = {"users": 3, "conversations": 0, "archives": 9, "messages": -1, "bytes": 1, "last_number": 1}
TIMES = {"first": 1_800_000_000_000_000_000, "last": 0}


def mias(tmp_path: Path) -> RedisBackend:
    """A journal of mia's: two archives, the older one put there, a running conversation, something set aside."""
    backend = open_redis(tmp_path)
    backend.put_archive("mia", "old", joined(records(0, 2)), 5)
    backend.append("mia", records(2, 5))
    backend.archive("mia", "new")
    backend.append("mia", records(5, 9))
    backend.set_aside("mia", b"refused")
    return backend


def image(tmp_path: Path) -> dict[bytes, bytes | None]:
    """All that is stored under the prefix."""
    with redis_servers.shared().client() as client:
        return {key: client.dump(key) for key in client.scan_iter(f"{tmp_path}:*")}


def numbers(client: Any, keys: Keys) -> dict[str, int]:
    """The numbers of mia's conversations."""
    found = {name.decode(): int(entry.split()[0]) for name, entry in client.hgetall(keys.archives("mia")).items()}
    return found | {"": int(client.hget(keys.user("mia"), "current") or 0)}


def set_entry(client: Any, index: str, name: str, at: int, value: int) -> None:
    parts = client.hget(index, name).split()
    parts[at] = b"%d" % value
    client.hset(index, name, b" ".join(parts))


def orphan(client: Any, key: str, data: bytes, idle: int = 100) -> None:
    """Puts bytes under a key as if nobody had touched them for so long."""
    client.set("scratch", data)
    client.restore(key, 0, client.dump("scratch"), replace=True, idletime=idle)
    client.delete("scratch")


#: Damages something.
Fault = Callable[[Any, Keys], object]
