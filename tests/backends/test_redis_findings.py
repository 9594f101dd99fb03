"""Damage in Redis that is met outside of a check, and single findings: each names its key, and loses nothing."""

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from potofs.backends.base import Fence
from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.keys import Keys, shard_of_user
from potofs.config import Where
from potofs.errors import Damaged, DeadlineExceeded
from potofs.journal import fsck, reading
from tests import redis_servers
from tests.backends.kit import joined, record, records, stored
from tests.backends.mias import SHARD, SUMS, TIMES, image, set_entry
from tests.redis_servers import Proxy


@pytest.mark.parametrize("damage", ["entry", "type"])
def test_a_damaged_index_is_a_finding_and_keeps_nobody_from_being_checked(
    backend: RedisBackend, keys: Keys, client: Any, damage: str
) -> None:
    backend.put_current("noah", b"nonsense\n---\n", 5)
    client.hset(keys.user("mia"), "count", 7)
    if damage == "entry":
        client.hset(keys.archives("mia"), "junk", "junk")
    else:
        client.delete(keys.archives("mia"))
        client.set(keys.archives("mia"), "junk")
    found = list(fsck.check(backend))
    assert any(keys.archives("mia") in str(one) for one in found if one.user == "mia"), found
    assert any("7 messages are noted" in one.what for one in found if one.user == "mia"), found
    assert any(one.user == "noah" and "no message" in one.what for one in found), found


def test_an_entry_with_a_name_that_no_archive_can_have_is_called_as_it_is_noted(
    backend: RedisBackend, client: Any, keys: Keys
) -> None:
    for name in ("%zz", b"\xff", "current"):
        client.hset(keys.archives("mia"), name, client.hget(keys.archives("mia"), "old") or b"")
        client.hdel(keys.archives("mia"), "old")
        with pytest.raises(Damaged, match=re.escape(keys.archives("mia"))):
            backend.archives("mia")
        found = [one for one in fsck.check(backend) if keys.archives("mia") in one.what]
        assert found[0].place == "archived/old.yaml"
        list(fsck.check(backend, repair=True))
        assert list(fsck.check(backend)) == []
        assert stored(backend, "mia", "old") == joined(records(0, 2))


def test_keys_that_nobody_asks_for_are_all_listed(backend: RedisBackend, keys: Keys, client: Any) -> None:
    elsewhere = keys.archives("mia").replace(f"{{{SHARD:02x}}}", f"{{{(SHARD + 1) % 256:02x}}}")
    strange = [elsewhere, elsewhere.replace("archives", "user"), keys.archives("mia").replace("mia", "%zz")]
    for key in strange:
        client.hset(key, "old", "1 2 3 4 5")
    client.set(stray := keys.bytes(SHARD).replace(f":{SHARD}", ":17x"), b"bytes")
    client.sadd(keys.users(SHARD), "%zz", "somebody of another shard")
    found = list(fsck.check(backend))
    assert {one.place for one in found} == {*strange, stray, keys.users(SHARD)}
    assert any(keys.archives("mia") in one.what for one in found if one.place == elsewhere)
    left = [one.place for one in fsck.check(backend, repair=True) if not one.repaired]
    assert sorted(left) == sorted([*strange, stray])
    assert client.smembers(keys.users(SHARD)) == {b"mia"}
    assert client.exists(*strange, stray) == 4


def test_figures_that_are_none_are_an_error_with_the_key_in_it_and_counted_again(
    backend: RedisBackend, client: Any, keys: Keys
) -> None:
    totals = backend.totals()
    for field in [*SUMS, *TIMES, "changes", "users_changed"]:
        client.hset(keys.shard(SHARD), field, "junk")
        if field in SUMS | TIMES and field != "last_number":
            with pytest.raises(Damaged, match=f"{field}.*{re.escape(keys.shard(SHARD))}.*potofs fsck --repair"):
                backend.totals()
        (found,) = fsck.check(backend, repair=True)
        assert found.repaired
        assert f"{field} 'junk'" in found.what
        assert list(fsck.check(backend)) == []
        assert backend.totals() == totals
    assert backend.append("mia", records(9, 10)).stored == 1


@pytest.mark.parametrize("changes", ["junk", "-7", None])
def test_whoever_repeats_a_change_is_told_that_it_cannot_be_told_after_the_number_of_changes_was_mended(
    backend: RedisBackend, client: Any, keys: Keys, tmp_path: Path, changes: str | None
) -> None:
    """Also by the mending of a user, which counts as a change itself."""
    again = record("hello", retry=False)

    def meanwhile() -> None:
        client.delete(keys.answers(SHARD, 0), keys.answers(SHARD, 1))
        client.hset(keys.shard(SHARD), "changes", changes) if changes else client.hdel(keys.shard(SHARD), "changes")
        client.hset(keys.user("mia"), "newest", "junk")
        assert all(found.repaired for found in fsck.check(backend, ["mia"], repair=True))
        assert all(found.repaired for found in fsck.check(backend, repair=True))

    with Proxy(redis_servers.shared()) as proxy:
        lossy = RedisBackend(Where("redis", proxy.place, {"keyPrefix": f"{tmp_path}:"}), reading.marks)
        with closing(lossy):
            lossy.append("mia", records(9, 10))
            proxy.lose(b"done", times=1, then=meanwhile)
            with pytest.raises(DeadlineExceeded, match="cannot be told"):
                lossy.append("mia", [again])
    assert stored(backend, "mia") == joined(records(5, 10)) + again.data
    assert int(client.hget(keys.shard(SHARD), "changes") or 0) > 1_000_000_000_000
    assert list(fsck.check(backend)) == []


def test_a_change_that_would_meet_damage_is_refused_before_it_writes(
    backend: RedisBackend, client: Any, keys: Keys, tmp_path: Path
) -> None:
    tries: list[Callable[[], object]] = [
        lambda: backend.append("mia", records(9, 10)),
        lambda: backend.archive("mia"),
        lambda: backend.restore("mia", "old"),
        lambda: backend.rename_archive("mia", "old", "older"),
        lambda: backend.put_archive("mia", "put", joined(records(0, 1)), 5),
        lambda: backend.rewrite("mia", "old", seen, b"others"),
    ]
    seen = backend.stat("mia", "old")
    undamaged = image(tmp_path)
    for key, damage in (
        *((keys.shard(SHARD), {field: "junk"}) for field in ("changes", "last_number")),
        *((keys.user("mia"), {field: "junk"}) for field in ("current", "size", "count", "mtime", "newest")),
        (keys.archives("mia"), None),
        (keys.shard(SHARD), None),
    ):
        if damage:
            client.hset(key, mapping=damage)
        else:
            client.set(key, "junk")
        before = image(tmp_path)
        for attempt in tries:
            with pytest.raises(Damaged, match=re.escape(key)):
                attempt()
        assert image(tmp_path) == before
        client.restore(key, 0, undamaged[key.encode()], replace=True)
    assert list(fsck.check(backend)) == []


def test_no_user_is_shown_what_is_another_shards(backend: RedisBackend, client: Any, keys: Keys) -> None:
    backend.append("noah", records(30, 31))
    theirs = int(client.hget(keys.user("noah"), "current") or 0)
    set_entry(client, keys.archives("mia"), "old", 0, theirs)
    with pytest.raises(Damaged):
        stored(backend, "mia", "old")
    assert all(one.repaired for one in fsck.check(backend, repair=True))
    assert stored(backend, "mia", "old") == joined(records(0, 2))
    assert stored(backend, "noah") == joined(records(30, 31))


def test_an_entry_with_the_number_of_another_user_of_the_shard_is_found_and_mended(
    backend: RedisBackend, client: Any, keys: Keys
) -> None:
    other = next(f"noah {at}" for at in range(10_000) if shard_of_user(f"noah {at}") == SHARD)
    backend.append(other, records(30, 31))
    theirs = int(client.hget(keys.user(other), "current") or 0)
    set_entry(client, keys.archives("mia"), "old", 0, theirs)
    mine = [one for one in fsck.check(backend) if one.user == "mia"]
    assert {one.place for one in mine} == {"archived/old.yaml"}
    list(fsck.check(backend, repair=True))
    assert list(fsck.check(backend)) == []
    assert stored(backend, "mia", "old") == joined(records(0, 2))
    assert stored(backend, other) == joined(records(30, 31))


def test_a_damaged_fence_is_set_as_the_others_are_if_they_are_open(
    backend: RedisBackend, client: Any, keys: Keys
) -> None:
    backend.set_fence(Fence("open", 3))
    for fields in ({"fence": "junk"}, {"closed": "junk"}, {"fence": "", "closed": "1"}):
        client.hset(keys.shard(SHARD), mapping=fields)
        assert backend.fence() == Fence("open", 3)
        (found,) = fsck.check(backend)
        assert found.place == keys.shard(SHARD)
        assert [one.repaired for one in fsck.check(backend, repair=True)] == [True]
        assert list(fsck.check(backend)) == []
    backend.set_fence(Fence("frozen", 4))
    client.hset(keys.shard(SHARD), "fence", "junk")
    (found,) = fsck.check(backend)
    assert "set the fence again" in found.what
