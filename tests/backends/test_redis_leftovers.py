"""What nothing in Redis refers to: bytes are found and given back to whose they are, uploads are told apart."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.keys import Keys, number
from potofs.config import Where
from potofs.journal import fsck, reading
from tests import redis_servers
from tests.backends.kit import joined, names_of, open_cluster, open_redis, records, stored
from tests.backends.mias import SHARD, Fault, image, numbers, orphan
from tests.redis_servers import Server

LOST: dict[str, tuple[Fault, list[tuple[str, str]]]] = {
    "an archive's entry": (lambda c, k: c.hdel(k.archives("mia"), "old"), [("mia", "archived/old.yaml")]),
    "all archives": (
        lambda c, k: c.delete(k.archives("mia")),
        [("mia", "archived/"), ("mia", "archived/new.yaml"), ("mia", "archived/old.yaml")],
    ),
    "what was set aside": (lambda c, k: c.delete(k.asides("mia")), [("mia", "rejected/")]),
    "the running one": (lambda c, k: c.hdel(k.user("mia"), "current"), [("mia", "current.yaml")]),
    "a user's hash": (
        lambda c, k: c.delete(k.user("mia")),
        [("mia", "archived/"), ("mia", "current.yaml"), ("mia", "user")],
    ),
    "all of a user but the bytes": (
        lambda c, k: (c.delete(k.user("mia"), k.archives("mia"), k.asides("mia")), c.srem(k.users(SHARD), "mia")),
        [("mia", place) for place in ("archived/new.yaml", "archived/old.yaml", "current.yaml", "rejected/")],
    ),
}


@pytest.mark.parametrize("lost", LOST)
def test_what_has_lost_its_entry_is_found_at_once_and_given_back(
    backend: RedisBackend, client: redis.Redis, keys: Keys, tmp_path: Path, lost: str
) -> None:
    totals, aside = backend.totals(), backend.set_asides("mia")[0]
    lose, places = LOST[lost]
    lose(client, keys)
    before = image(tmp_path)
    found = sorted(one for one in fsck.check(backend) if one.user)
    assert image(tmp_path) == before
    assert [(one.user, one.place[: len(at)]) for one, (_, at) in zip(found, places, strict=True)] == places
    assert all(f"{tmp_path}:" in one.what or one.place == "archived/" for one in found)
    assert all(one.repaired for one in fsck.check(backend, repair=True))
    assert list(fsck.check(backend)) == []
    assert [archive.name for archive in backend.set_asides("mia")] == [aside.name]
    assert stored(backend, "mia", "old") == joined(records(0, 2))
    assert stored(backend, "mia", "new") == joined(records(2, 5))
    assert stored(backend, "mia") == joined(records(5, 9))
    assert backend.totals() == totals
    assert backend.append("mia", [*records(5, 9), *records(9, 10)]).stored == 1


def misnamed(client: Any, keys: Keys) -> None:
    client.hset(keys.archives("mia"), "%zz", client.hget(keys.archives("mia"), "new"))
    client.hdel(keys.archives("mia"), "new")


#: What takes something of mia's out of view, or would if it were only taken away.
OUT_OF_VIEW: dict[str, Fault] = {
    "the newest archive's entry": lambda c, k: c.hset(k.archives("mia"), "new", "junk"),
    "an older archive's entry": lambda c, k: c.hset(k.archives("mia"), "old", "junk"),
    "an archive's name": misnamed,
    "an archive twice": lambda c, k: c.hset(k.archives("mia"), "%zz", c.hget(k.archives("mia"), "new")),
    "the entry of what was set aside": lambda c, k: c.hset(k.asides("mia"), c.hkeys(k.asides("mia"))[0], "junk"),
    "the running one": lambda c, k: c.hset(k.user("mia"), "current", "junk"),
    "the number of another shard": lambda c, k: c.hset(k.user("mia"), "current", numbers(c, k)[""] + 1),
    "its size": lambda c, k: c.hset(k.user("mia"), mapping={"size": "-5", "count": "junk"}),
    "all that is noted": lambda c, k: c.hset(k.user("mia"), mapping=dict.fromkeys(c.hkeys(k.user("mia")), "junk")),
    "all at once": lambda c, k: (
        c.hset(k.user("mia"), mapping={"current": "junk", "newest": "junk", "newest_mtime": "junk"}),
        *(c.hset(index, name, "junk") for index in (k.archives("mia"), k.asides("mia")) for name in c.hkeys(index)),
    ),
    "a user's hash": lambda c, k: c.delete(k.user("mia")),
    "all archives": lambda c, k: c.delete(k.archives("mia")),
    "another type of hash": lambda c, k: (c.delete(k.user("mia")), c.set(k.user("mia"), "junk")),
    "another type of index": lambda c, k: (c.delete(k.archives("mia")), c.set(k.archives("mia"), "junk")),
}


@pytest.mark.parametrize("damage", OUT_OF_VIEW)
@pytest.mark.parametrize("all_users", [False, True])
def test_what_is_said_to_be_mended_of_a_user_is_in_view_by_then(
    backend: RedisBackend, client: redis.Redis, keys: Keys, damage: str, all_users: bool
) -> None:
    """Whether or not the whole journal is checked: before another user's turn comes, messages might be given again."""
    totals, aside = backend.totals(), backend.set_asides("mia")[0]
    OUT_OF_VIEW[damage](client, keys)
    found = fsck.check(backend, None if all_users else ["mia"], repair=True)
    for one in found:
        assert one.repaired, one
        if one.user != "mia":
            break
        assert stored(backend, "mia") == joined(records(5, 9))
        assert backend.stat("mia").size == len(joined(records(5, 9)))
        if damage in ("all archives", "another type of index"):
            assert set(names_of(backend, "mia")) == {"old", "new"}
        if "another type" in damage or "user's hash" in damage:
            continue
        assert backend.append("mia", records(5, 9)).stored == 0
    assert list(fsck.check(backend, ["mia"])) == []
    assert backend.append("mia", records(2, 9)).stored == 0
    assert set(names_of(backend, "mia")) == {"old", "new"}
    assert stored(backend, "mia", "old") == joined(records(0, 2))
    assert stored(backend, "mia", "new") == joined(records(2, 5))
    assert stored(backend, "mia") == joined(records(5, 9))
    assert [one.name for one in backend.set_asides("mia")] == [aside.name]
    assert backend.totals() == totals
    assert [one for one in fsck.check(backend) if "users_changed" not in one.what] == []


def test_what_has_lost_its_entry_is_given_back_whatever_the_number_of_changes_is(
    backend: RedisBackend, client: redis.Redis, keys: Keys
) -> None:
    client.hdel(keys.archives("mia"), "old")
    client.hset(keys.shard(SHARD), "changes", "junk")
    assert all(one.repaired for one in fsck.check(backend, repair=True))
    assert list(fsck.check(backend)) == []
    assert stored(backend, "mia", "old") == joined(records(0, 2))


def test_what_has_lost_its_entry_while_another_runs_is_an_archive_and_counts_as_one(
    backend: RedisBackend, client: redis.Redis, keys: Keys
) -> None:
    client.hdel(keys.user("mia"), "current", "size", "count", "mtime", "ctime")
    backend.append("mia", records(20, 21))
    client.hset(keys.archives("mia"), "old", "junk")
    assert all(one.repaired for one in fsck.check(backend, ["mia"], repair=True))
    assert len(names_of(backend, "mia")) == 3
    assert stored(backend, "mia") == joined(records(20, 21))
    assert list(fsck.check(backend)) == []


def test_what_another_has_taken_the_place_of_is_given_back_under_another_name(
    backend: RedisBackend, client: redis.Redis, keys: Keys
) -> None:
    client.hdel(keys.user("mia"), "current", "size", "count", "mtime", "ctime")
    client.hdel(keys.archives("mia"), "old")
    backend.append("mia", records(20, 21))
    backend.put_archive("mia", "old", joined(records(30, 31)), 5)
    found = {one.place: one for one in fsck.check(backend, repair=True) if one.user}
    assert found.keys() == {"current.yaml", "archived/old.yaml"}
    assert all(one.repaired for one in found.values())
    assert "it is archived/old-2.yaml now" in found["archived/old.yaml"].what
    assert list(fsck.check(backend)) == []
    (timed,) = set(names_of(backend, "mia")) - {"old", "old-2", "new"}
    assert timed in found["current.yaml"].what
    assert stored(backend, "mia", timed) == joined(records(5, 9))
    assert stored(backend, "mia", "old-2") == joined(records(0, 2))
    assert stored(backend, "mia", "old") == joined(records(30, 31))
    assert stored(backend, "mia") == joined(records(20, 21))


def test_a_note_follows_what_is_done_with_a_conversation(backend: RedisBackend, client: Any, keys: Keys) -> None:
    backend.rename_archive("mia", "old", "older")
    backend.restore("mia", "new")
    backend.rewrite("mia", "older", backend.stat("mia", "older"), joined(records(50, 51)))
    backend.rewrite("mia", None, backend.stat("mia"), joined(records(60, 61)))
    backend.remove_set_aside("mia", backend.set_asides("mia")[0].name)
    (timed,) = set(names_of(backend, "mia")) - {"older"}
    client.delete(keys.user("mia"), keys.archives("mia"))
    assert all(one.repaired for one in fsck.check(backend, repair=True))
    assert set(names_of(backend, "mia")) == {"older", timed}
    assert stored(backend, "mia", "older") == joined(records(50, 51))
    assert stored(backend, "mia", timed) == joined(records(5, 9))
    assert stored(backend, "mia") == joined(records(60, 61))
    notes = [field for field in client.hkeys(keys.shard(SHARD)) if field.startswith(b"of:")]
    assert len(notes) == 3


def forget(client: Any, keys: Keys) -> None:
    """Makes the journal one of a potofs that noted nothing of whose bytes are."""
    client.hdel(keys.shard(SHARD), *[field for field in client.hkeys(keys.shard(SHARD)) if field.startswith(b"of:")])


def test_a_journal_without_notes_is_clean_and_a_repair_notes_them(
    backend: RedisBackend, client: redis.Redis, keys: Keys
) -> None:
    fields = client.hgetall(keys.shard(SHARD))
    forget(client, keys)
    assert list(fsck.check(backend)) == []
    assert list(fsck.check(backend, repair=True)) == []
    assert client.hgetall(keys.shard(SHARD)) == fields


@pytest.mark.parametrize("note", ["", "junk", "mia\narchive\n%zz", "mia\nnothing\nold", "noah\narchive\nold"])
def test_bytes_stay_where_they_are_if_it_is_not_noted_whose_they_are(
    backend: RedisBackend, client: redis.Redis, keys: Keys, note: str
) -> None:
    """Also if somebody has the same: what that is to whom nobody knows. Noah's shard is another."""
    conversation = numbers(client, keys)["old"]
    if note:
        client.hset(keys.shard(SHARD), f"of:{conversation}", note)
    else:
        forget(client, keys)
    backend.put_archive("mia", "twin", joined(records(0, 2)), 5)
    client.hdel(keys.archives("mia"), "old")
    list(fsck.check(backend, repair=True))
    (found,) = fsck.check(backend, repair=True)
    assert (found.user, found.place, found.repaired) == (None, keys.bytes(conversation), False)
    assert "archived/twin.yaml of user 'mia' has the same" in found.what
    assert "UNLINK" in found.what
    assert client.get(keys.bytes(conversation)) == joined(records(0, 2))


def test_changes_in_a_journal_without_notes_note_them(backend: RedisBackend, client: redis.Redis, keys: Keys) -> None:
    forget(client, keys)
    backend.archive("mia", "later")
    client.hdel(keys.archives("mia"), "later")
    assert all(one.repaired for one in fsck.check(backend, repair=True))
    assert stored(backend, "mia", "later") == joined(records(5, 9))


def test_an_upload_of_a_killed_process_is_found_and_removed_when_it_was_given_up(
    backend: RedisBackend, client: redis.Redis, keys: Keys
) -> None:
    young, idle, old = (keys.staged(SHARD, token) for token in ("00", "01", "02"))
    client.set(young, b"on its way in")
    orphan(client, idle, b"killed lately", 100)
    orphan(client, old, b"killed", 700)
    found = list(fsck.check(backend))
    assert [(one.user, one.place, one.repaired) for one in found] == [(None, idle, False), (None, old, False)]
    assert all("never acknowledged" in one.what for one in found)
    found = list(fsck.check(backend, repair=True))
    assert [(one.place, one.repaired) for one in found] == [(idle, False), (old, True)]
    assert client.exists(young, idle, old) == 2


def test_fingerprints_of_no_conversation_are_removed(backend: RedisBackend, client: redis.Redis, keys: Keys) -> None:
    key = keys.known(number(1, SHARD) + 256 * 500)
    client.hset(key, b"", b"")
    assert [(one.place, one.repaired) for one in fsck.check(backend)] == [(key, False)]
    assert [(one.place, one.repaired) for one in fsck.check(backend, repair=True)] == [(key, True)]
    assert list(fsck.check(backend)) == []


def test_under_an_lfu_policy_nothing_is_judged(tmp_path: Path) -> None:
    server = Server(tmp_path / "server", maxmemory_policy="volatile-lfu")
    try:
        backend = RedisBackend(Where("redis", server.place, {"keyPrefix": "p:"}), reading.marks)
        with closing(backend), server.client() as client:
            backend.prepare(create=True)
            key = Keys("p:").staged(SHARD, "00")
            client.set(key, b"bytes")
            (found,) = fsck.check(backend, repair=True)
            assert (found.place, found.repaired) == (key, False)
            assert "LFU" in found.what
            assert client.exists(key)
    finally:
        server.kill()


def test_another_prefix_is_none_of_ours(tmp_path: Path, client: redis.Redis) -> None:
    backend = open_redis(tmp_path, keyPrefix=f"{tmp_path}[a]*:")
    backend.append("mia", records(0, 1))
    client.set(Keys(f"{tmp_path}a*:").bytes(number(9, SHARD)), b"another's")
    assert list(fsck.check(backend)) == []
    client.hset(Keys(f"{tmp_path}[a]*:").shard(SHARD), "last_number", 9)
    client.set(key := Keys(f"{tmp_path}[a]*:").bytes(number(9, SHARD)), b"ours")
    assert [found.place for found in fsck.check(backend)] == [key]


def test_what_has_lost_its_entry_is_given_back_in_a_cluster(tmp_path: Path) -> None:
    backend = open_cluster(tmp_path)
    backend.append("mia", records(0, 2))
    backend.archive("mia", "old")
    keys = Keys(f"{tmp_path}:")
    first = redis_servers.shared_cluster().nodes[0]
    with redis.RedisCluster(host="127.0.0.1", port=first.port) as client:
        client.delete(keys.archives("mia"))
        client.set(keys.asides("mia"), "junk")
    assert all(one.repaired for one in fsck.check(backend, repair=True))
    assert list(fsck.check(backend)) == []
    assert stored(backend, "mia", "old") == joined(records(0, 2))
