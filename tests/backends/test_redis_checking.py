"""What a check finds in Redis, what it mends, and what it takes for no fault."""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from potofs.backends.base import Fence, Finding, Stat
from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.keys import Keys
from potofs.config import Where
from potofs.errors import Fenced, NotFound, Stale
from potofs.journal import fsck, reading
from tests import redis_servers
from tests.backends.kit import joined, names_of, open_cluster, open_redis, records, stored
from tests.backends.mias import SHARD, SUMS, TIMES, Fault, image, numbers, set_entry
from tests.redis_servers import Proxy

#: How a fault is made, whose it is, and a part of its place.
OF_USERS: dict[str, tuple[Fault, str, str]] = {
    "size": (lambda c, k: c.hset(k.user("mia"), "size", 7), "mia", "current.yaml"),
    "count": (lambda c, k: c.hset(k.user("mia"), "count", 7), "mia", "current.yaml"),
    "archive's size": (lambda c, k: set_entry(c, k.archives("mia"), "old", 3, 9000), "mia", "archived/old.yaml"),
    "archive's count": (lambda c, k: set_entry(c, k.archives("mia"), "old", 4, 9), "mia", "archived/old.yaml"),
    "newest": (lambda c, k: c.hset(k.user("mia"), "newest", 4711), "mia", "archived/"),
    "newest's name": (lambda c, k: c.hset(k.user("mia"), "newest_name", "old"), "mia", "archived/"),
    "fingerprint more": (lambda c, k: c.hset(k.known(numbers(c, k)[""]), b"more", b""), "mia", "current.yaml"),
    "fingerprints gone": (
        lambda c, k: c.hdel(k.known(numbers(c, k)["new"]), *[f for f in c.hkeys(k.known(numbers(c, k)["new"])) if f]),
        *("mia", "archived/new.yaml"),
    ),
    "aside": (
        lambda c, k: set_entry(c, k.asides("mia"), c.hkeys(k.asides("mia"))[0].decode(), 3, 3),
        *("mia", "rejected/"),
    ),
    "list": (lambda c, k: c.srem(k.users(SHARD), "mia"), "mia", "user"),
}


@pytest.mark.parametrize("fault", OF_USERS)
def test_what_is_wrong_with_a_user_is_found_and_mended(
    backend: RedisBackend, client: redis.Redis, keys: Keys, tmp_path: Path, fault: str
) -> None:
    make, user, place = OF_USERS[fault]
    make(client, keys)
    before = image(tmp_path)
    (found,) = backend.check(user, repair=False)
    assert (found.user, found.repaired) == (user, False)
    assert found.place.startswith(place)
    assert image(tmp_path) == before
    assert list(backend.check(user, repair=True)) == [found._replace(repaired=True)]
    assert list(backend.check(user, repair=False)) == []
    # Sums follow the entries.
    list(backend.check(None, repair=True))
    assert list(fsck.check(backend)) == []
    assert stored(backend, "mia", "old") == joined(records(0, 2))
    assert stored(backend, "mia") == joined(records(5, 9))
    assert backend.totals()[:4] == (1, 1, 2, 9)
    assert backend.append("mia", [*records(2, 9), *records(9, 10)]).stored == 1


@pytest.mark.parametrize("name", ["", "old", "new"])
def test_bytes_that_are_gone_are_reported_and_nothing_is_made_up(
    backend: RedisBackend, client: redis.Redis, keys: Keys, tmp_path: Path, name: str
) -> None:
    client.delete(keys.bytes(numbers(client, keys)[name]))
    before = image(tmp_path)
    for repair in (False, True):
        (found,) = backend.check("mia", repair=repair)
        assert found.place == ("current.yaml" if not name else f"archived/{name}.yaml")
        assert "gone" in found.what
        assert not found.repaired
    assert image(tmp_path) == before
    assert list(fsck.check(backend)) == [found]


def test_a_user_who_is_not_in_the_list_is_found(backend: RedisBackend, client: redis.Redis, keys: Keys) -> None:
    client.srem(keys.users(SHARD), "mia")
    assert list(backend.users()) == []
    assert {(found.user, found.repaired) for found in fsck.check(backend)} == {("mia", False), (None, False)}
    first, *_ = fsck.check(backend, repair=True)
    assert (first.user, first.repaired) == ("mia", True)
    assert list(fsck.check(backend, repair=True)) == []
    assert list(backend.users()) == ["mia"]
    assert backend.totals().users == 1


@pytest.mark.parametrize("field", SUMS | TIMES)
def test_sums_are_made_anew(backend: RedisBackend, client: redis.Redis, keys: Keys, tmp_path: Path, field: str) -> None:
    totals = backend.totals()
    client.hset(keys.shard(SHARD), field, (SUMS | TIMES)[field])
    before = image(tmp_path)
    (found,) = fsck.check(backend)
    assert (found.user, found.place, found.repaired) == (None, keys.shard(SHARD), False)
    assert field in found.what
    assert image(tmp_path) == before
    assert list(fsck.check(backend, repair=True)) == [found._replace(repaired=True)]
    assert list(fsck.check(backend)) == []
    assert backend.totals() == totals


def test_times_may_be_wider_than_what_is_there(backend: RedisBackend, client: redis.Redis, keys: Keys) -> None:
    client.hset(keys.shard(SHARD), mapping={"first": 1, "last": 1_900_000_000_000_000_000})
    assert list(fsck.check(backend)) == []


# What is no fault


@pytest.mark.parametrize("opened", [open_redis, open_cluster])
def test_nothing_is_wrong_with_a_journal_that_was_used(opened: Callable[..., RedisBackend], tmp_path: Path) -> None:
    backend = opened(tmp_path, archiveThreshold="5")
    for at, user in enumerate(["mia", "a/b", "{x}:y", "*", "%3A", "noah"]):
        backend.create_user(user, b"profile")
        for turn in range(4):
            backend.append(user, records(turn, turn + 3))
        backend.append(user, records(at + 20, at + 22))
        backend.archive(user, "one:{two}")
        backend.rename_archive(user, "one:{two}", "two")
        backend.append(user, records(30, 31))
        backend.restore(user, "two")
        backend.set_times(user, names_of(backend, user)[0], 9)
        backend.set_aside(user, b"refused")
        backend.put_archive(user, "empty", b"", 5)
        backend.put_archive(user, "torn", joined(records(0, 1)) + b"role: us", 6)
    backend.remove_set_aside("noah", backend.set_asides("noah")[0].name)
    backend.put_current("eve", joined(records(0, 1)) + b"role: us", 6)
    backend.append("eve", records(1, 2))
    totals = backend.totals()
    for repair in (False, True):
        assert [found for user in backend.users() for found in backend.check(user, repair=repair)] == []
        assert list(backend.check(None, repair=repair)) == []
    assert backend.totals() == totals
    assert list(backend.check("nobody", repair=True)) == []


def test_appends_that_go_on_are_no_fault(tmp_path: Path) -> None:
    writer, backend = open_redis(tmp_path, archiveThreshold="7"), open_redis(tmp_path)
    writer.append("mia", records(0, 1))
    stop = threading.Event()

    def write() -> None:
        for at in range(1, 20_000):
            if stop.is_set():
                return
            writer.append("mia" if at % 3 else "noah", records(at, at + 1))
            if at % 50 == 0:
                writer.put_archive("mia", f"put {at}", joined(records(0, 3)), at)
                writer.restore("mia", f"put {at}")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        found = [list(fsck.check(backend, repair=repair)) for repair in (False, True) * 3]
    finally:
        stop.set()
        thread.join()
    assert found == [[]] * 6
    assert list(fsck.check(backend)) == []


# Other bytes in the place of a conversation's


@pytest.mark.parametrize("name", [None, "old", "new"])
def test_other_bytes_take_the_place_of_a_conversation(
    backend: RedisBackend, client: redis.Redis, keys: Keys, name: str | None
) -> None:
    seen, changed = backend.stat("mia", name), backend.user_changed("mia")
    old = stored(backend, "mia", name)
    before = backend.totals()
    assert backend.rewrite("mia", name, seen, joined(records(50, 51)))
    now = backend.stat("mia", name)
    assert now.id != seen.id
    assert now.mtime_ns == seen.mtime_ns
    assert now.ctime_ns > seen.ctime_ns
    assert backend.user_changed("mia") > changed
    assert stored(backend, "mia", name) == joined(records(50, 51))
    assert not client.exists(keys.bytes(seen.id), keys.known(seen.id))
    after = backend.totals()
    assert after[:3] == before[:3]
    assert after.messages == before.messages + 1 - len(list(reading.marks(old)))
    assert after.bytes == before.bytes - len(old) + now.size
    assert list(fsck.check(backend)) == []
    # What is given again is known by the running conversation and the newest archive only.
    assert backend.append("mia", records(50, 51)).stored == (1 if name == "old" else 0)
    assert names_of(backend, "mia") == ["old", "new"]


@pytest.mark.parametrize("off", [Stat(256, 0, 0, 0), Stat(0, 1, 0, 0), Stat(1, 0, 0, 0)])
@pytest.mark.parametrize("name", [None, "old", "none"])
def test_bytes_stay_if_they_are_not_as_they_were_seen(
    backend: RedisBackend, tmp_path: Path, name: str | None, off: Stat
) -> None:
    seen = backend.stat("mia", None if name is None else "old")
    before = {key: value for key, value in image(tmp_path).items() if not key.endswith(b":shard")}
    other = Stat(*(a + b for a, b in zip(seen, off, strict=True)))
    assert not backend.rewrite("mia", name, other, b"others")
    assert not backend.rewrite("mia", "none", seen, b"others")
    assert {key: value for key, value in image(tmp_path).items() if not key.endswith(b":shard")} == before


def test_a_conversation_that_was_appended_to_or_archived_stays(backend: RedisBackend) -> None:
    seen = backend.stat("mia")
    backend.append("mia", records(9, 10))
    assert not backend.rewrite("mia", None, seen, b"others")
    seen = backend.stat("mia")
    backend.archive("mia", "later")
    assert not backend.rewrite("mia", None, seen, b"others")
    assert stored(backend, "mia", "later") == joined(records(5, 10))
    assert list(fsck.check(backend)) == []


def test_without_bytes_there_is_no_running_conversation(backend: RedisBackend) -> None:
    assert backend.rewrite("mia", None, backend.stat("mia"), b"")
    with pytest.raises(NotFound):
        backend.stat("mia")
    assert backend.totals()[:4] == (1, 0, 2, 5)
    assert backend.rewrite("mia", "new", backend.stat("mia", "new"), b"")
    assert stored(backend, "mia", "new") == b""
    assert backend.totals()[:4] == (1, 0, 2, 2)
    assert list(fsck.check(backend)) == []
    assert backend.append("mia", records(5, 6)).stored == 1


def test_whoever_has_the_old_bytes_open_gets_no_mixture(backend: RedisBackend) -> None:
    with backend.open("mia") as reader:
        assert reader.read(0, 10) == joined(records(5, 9))[:10]
        assert backend.rewrite("mia", None, reader.stat(), joined(records(50, 90)))
        for offset, size in ((10, 10), (0, 1 << 20)):
            with pytest.raises(Stale):
                reader.read(offset, size)
        with pytest.raises(Stale):
            reader.read_all()


def test_a_fence_keeps_everything_as_it_is(backend: RedisBackend, client: Any, keys: Keys, tmp_path: Path) -> None:
    seen = backend.stat("mia")
    client.hset(keys.user("mia"), "count", 7)
    set_entry(client, keys.asides("mia"), client.hkeys(keys.asides("mia"))[0].decode(), 3, 3)
    client.hset(keys.shard(SHARD), "messages", 70)
    backend.set_fence(Fence("frozen", 1))
    before = {key: value for key, value in image(tmp_path).items() if not key.endswith(b":shard")}
    with pytest.raises(Fenced):
        backend.rewrite("mia", None, seen, b"others")
    for user in ("mia", None):
        with pytest.raises(Fenced):
            list(backend.check(user, repair=True))
    assert {key: value for key, value in image(tmp_path).items() if not key.endswith(b":shard")} == before
    assert len(list(backend.check("mia", repair=False))) == 2


def test_a_rewriting_and_a_mending_whose_answers_were_lost_are_done_once(
    backend: RedisBackend, client: redis.Redis, keys: Keys, tmp_path: Path
) -> None:
    with Proxy(redis_servers.shared()) as proxy:
        lossy = RedisBackend(Where("redis", proxy.place, {"keyPrefix": f"{tmp_path}:"}), reading.marks)
        with closing(lossy):
            proxy.lose(b"done", times=2)
            assert lossy.rewrite("mia", None, backend.stat("mia"), joined(records(50, 51)))
            assert proxy.lost == 2
            client.hset(keys.user("mia"), "count", 7)
            client.hincrby(keys.shard(SHARD), "messages", 6)
            proxy.lose(b"done", times=1)
            assert [found.repaired for found in lossy.check("mia", repair=True)] == [True]
            client.hset(keys.shard(SHARD), "archives", 7)
            proxy.lose(b"done", times=1)
            assert [found.repaired for found in lossy.check(None, repair=True)] == [True]
    assert stored(backend, "mia") == joined(records(50, 51))
    assert backend.totals()[:4] == (1, 1, 2, 6)
    assert list(fsck.check(backend)) == []


def test_a_damaged_conversation_is_mended(backend: RedisBackend) -> None:
    backend.put_archive("mia", "torn", joined(records(0, 2)) + b"role: us", 6)
    found: list[Finding] = list(fsck.check(backend, repair=True))
    assert [(one.place, one.repaired) for one in found] == [("archived/torn.yaml", True)]
    assert stored(backend, "mia", "torn") == joined(records(0, 2))
    assert list(fsck.check(backend)) == []
    assert len(backend.set_asides("mia")) == 2
