"""What lies where in Redis, and what is derived and made again."""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potofs.backends.base import RECORD_END, Fence
from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.connection import Argument, Link
from potofs.backends.redis.keys import SHARDS, Keys, number, shard_of_user
from potofs.errors import AlreadyExists, DeadlineExceeded, Fenced, NotFound, Unreachable
from potofs.journal import fsck, reading
from tests import redis_servers
from tests.backends.kit import joined, names_of, open_redis, record, records, said, stored

HOSTILE = ["{}", "}{", "a:b", "{ab}:users", "*", "?[a-z]", "a b\r\n", "%7B", "{", "mia:archives", "\x00"]


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[RedisBackend]:
    backend = open_redis(tmp_path)
    yield backend
    backend.close()


def keys_of(tmp_path: Path) -> list[str]:
    with redis_servers.shared().client() as client:
        return sorted(key.decode() for key in client.scan_iter(f"{tmp_path}:*"))


def test_users_with_names_hostile_to_keys_are_apart(backend: RedisBackend) -> None:
    for at, user in enumerate(HOSTILE):
        backend.append(user, records(at, at + 1))
        backend.archive(user, user)
        backend.append(user, records(at + 20, at + 21))
    assert sorted(backend.users()) == sorted(HOSTILE)
    for at, user in enumerate(HOSTILE):
        assert stored(backend, user, user) + stored(backend, user) == joined(
            [*records(at, at + 1), *records(at + 20, at + 21)]
        )
        assert names_of(backend, user) == [user]


def test_all_keys_of_a_user_have_the_tag_of_its_shard_and_none_expires(backend: RedisBackend, tmp_path: Path) -> None:
    for user in HOSTILE:
        backend.append(user, records(0, 1))
        backend.archive(user)
        backend.put_archive(user, "copy", joined(records(1, 2)), 1)
        backend.set_aside(user, b"refused")
    found = keys_of(tmp_path)
    tags = {re.sub(r"^.*?\{|\}.*$", "", key) for key in found if not key.endswith(":journal")}
    assert tags == {f"{shard_of_user(user):02x}" for user in HOSTILE}
    assert len(found) > 5 * len(HOSTILE)
    with redis_servers.shared().client() as client:
        assert {client.ttl(key) for key in found} == {-1}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), unique=True, max_size=8))
def test_no_two_users_share_a_key(users: list[str]) -> None:
    keys = Keys("p:")
    made = [make(user) for user in users for make in (keys.user, keys.archives, keys.asides)]
    assert len(set(made)) == len(made)
    assert all(key.count("{") == key.count("}") == 1 for key in made)


def test_a_number_comes_once_and_fits_an_inode() -> None:
    assert len({number(count, shard) for count in range(1, 50) for shard in range(SHARDS)}) == 49 * SHARDS
    assert number(1, 0) > 1
    assert number(2**54, 255) < 2**63


def test_no_command_walks_all_keys(tmp_path: Path) -> None:
    with redis_servers.shared().client() as client:
        client.config_resetstat()
        backend = open_redis(tmp_path, archiveThreshold="2")
        backend.append("mia", records(0, 3))
        backend.restore("mia", names_of(backend, "mia")[0])
        assert list(backend.users()) == ["mia"]
        backend.totals()
        backend.users_changed()
        backend.close()
        used = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    assert "evalsha" in used
    assert used.isdisjoint({"keys", "scan", "expire", "pexpire", "setex", "psetex", "flushdb"})


def test_users_are_listed_whatever_their_number(backend: RedisBackend) -> None:
    users = {f"user {number}" for number in range(3000)}
    for user in users:
        backend.create_user(user, b"")
    found = list(backend.users())
    assert len(found) == len(users)
    assert set(found) == users
    assert backend.totals().users == 3000


def test_journals_with_other_prefixes_are_apart(tmp_path: Path) -> None:
    one, two = open_redis(tmp_path / "one"), open_redis(tmp_path / "two")
    one.append("mia", records(0, 1))
    two.set_fence(Fence("frozen", 1))
    one.append("mia", records(1, 2))
    assert list(two.users()) == []
    assert two.totals().messages == 0
    one.close()
    two.close()


# Derived, and made again


def test_fingerprints_are_made_again_from_the_bytes(backend: RedisBackend, tmp_path: Path) -> None:
    backend.append("mia", records(0, 3))
    backend.archive("mia")
    backend.append("mia", records(3, 6))
    with redis_servers.shared().client() as client:
        assert client.delete(*[key for key in keys_of(tmp_path) if ":known:" in key]) == 2
    assert backend.append("mia", [*records(0, 7), record("x", retry=False)]) == (2, None)
    assert backend.totals().messages == 8


def test_fingerprints_are_kept_only_where_they_are_asked_for(backend: RedisBackend, tmp_path: Path) -> None:
    for turn in range(5):
        backend.append("mia", records(turn, turn + 1))
        backend.archive("mia")
    backend.append("mia", records(9, 10))
    assert len([key for key in keys_of(tmp_path) if ":known:" in key]) == 2


def test_a_restored_conversation_knows_its_messages(backend: RedisBackend) -> None:
    for turn in range(3):
        backend.append("mia", records(turn, turn + 1))
        backend.archive("mia", str(turn))
    before = backend.stat("mia", "0")
    backend.append("mia", records(3, 4))
    swapped = backend.restore("mia", "0")
    assert swapped is not None
    assert backend.stat("mia")[:3] == before[:3]
    assert stored(backend, "mia", swapped) == joined(records(3, 4))
    # In the running conversation, in the newest archive, and in none of both.
    assert backend.append("mia", records(0, 1)).stored == 0
    assert backend.append("mia", records(3, 4)).stored == 0
    assert backend.append("mia", records(1, 2)).stored == 1
    with pytest.raises(AlreadyExists):
        backend.restore("mia", "1", swap=False)
    with pytest.raises(NotFound):
        backend.restore("mia", "0")


def test_a_reader_follows_its_conversation_through_every_name(backend: RedisBackend) -> None:
    backend.append("mia", records(0, 2))
    with backend.open("mia") as reader:
        backend.archive("mia", "one")
        assert reader.stat() == backend.stat("mia", "one")
        backend.rename_archive("mia", "one", "two")
        assert reader.stat() == backend.stat("mia", "two")
        backend.append("mia", records(2, 3))
        assert reader.read_all() == joined(records(0, 2))
        backend.restore("mia", "two")
        backend.append("mia", records(3, 4))
        assert reader.stat() == backend.stat("mia")
        assert reader.read_all() == joined([*records(0, 2), *records(3, 4)])


# What is torn


TAILS = [b"role: user\nconte", b"role: user\ncontent: a\ntimestamp: 2024-01-15\n", b"---\n"]


@pytest.mark.parametrize("tail", TAILS)
def test_nothing_is_glued_to_a_torn_tail_and_counts_stay_true(backend: RedisBackend, tail: bytes) -> None:
    data = joined(records(0, 2)) + tail
    backend.put_current("mia", data, 1)
    assert backend.append("mia", records(1, 2)).stored == 0
    assert stored(backend, "mia") == data, "a second try changes nothing"
    assert backend.append("mia", records(1, 4)).stored == 2
    after = stored(backend, "mia")
    assert after.startswith(data)
    assert after.endswith(RECORD_END + joined(records(2, 4)))
    assert backend.totals().messages == len(list(reading.marks(after)))
    assert backend.append("mia", records(4, 5)).stored == 1
    assert stored(backend, "mia") == after + joined(records(4, 5))


def test_totals_are_those_of_the_bytes(tmp_path: Path) -> None:
    backend = open_redis(tmp_path, archiveThreshold="4")
    for user in ("mia", "noah", "eve"):
        for one in records(len(user), len(user) + 6):
            backend.append(user, [one])
    backend.put_archive("mia", "old", joined([record("old", time="1950-01-01T00:00:00Z")]), -5)
    assert backend.stat("mia", "old").mtime_ns == -5
    totals = backend.totals()
    data = [stored(backend, user, name) for user in backend.users() for name in [None, *names_of(backend, user)]]
    marks = [mark for one in data for mark in reading.marks(one)]
    assert totals.users == 3
    assert totals.conversations == 3
    assert totals.archives == 4
    assert totals.messages == len(marks) == 19
    assert totals.bytes == sum(map(len, data))
    said_at = [mark.time_ns for mark in marks if mark.time_ns is not None]
    assert (totals.first_ns, totals.last_ns) == (min(said_at), max(said_at))
    backend.close()


# The fence


def test_a_frozen_journal_takes_no_change_and_is_read(tmp_path: Path) -> None:
    servers = [open_redis(tmp_path) for _ in range(2)]
    servers[0].append("mia", records(0, 1))
    servers[0].archive("mia", "one")
    servers[0].append("mia", records(1, 2))
    servers[1].set_fence(Fence("moved", 3, "file:///var/lib/poto"))
    assert servers[0].fence() == Fence("moved", 3, "file:///var/lib/poto")
    changes: list[Callable[[RedisBackend], object]] = [
        lambda backend: backend.append("mia", records(2, 3)),
        lambda backend: backend.archive("mia"),
        lambda backend: backend.restore("mia", "one"),
        lambda backend: backend.rename_archive("mia", "one", "two"),
        lambda backend: backend.put_archive("mia", "two", b"x", 1),
        lambda backend: backend.put_current("noah", b"x", 1),
        lambda backend: backend.set_times("mia", None, 1),
        lambda backend: backend.create_user("noah", b""),
        lambda backend: backend.extend("mia", backend.stat("mia"), b"x", 1),
        lambda backend: backend.put_profile("mia", b"x", 1),
        lambda backend: backend.set_aside("mia", b"x", "two"),
        lambda backend: backend.set_changed("mia", 1),
        lambda backend: backend.set_changed(None, 1),
    ]
    before = keys_of(tmp_path)
    for change in changes:
        with pytest.raises(Fenced, match="file:///var/lib/poto"):
            change(servers[0])
    assert keys_of(tmp_path) == before
    assert stored(servers[0], "mia", "one") + stored(servers[0], "mia") == joined(records(0, 2))
    servers[1].set_fence(Fence("open", 4))
    assert servers[0].append("mia", records(2, 3)).stored == 1
    for server in servers:
        server.close()


@pytest.mark.parametrize("opening", [False, True])
def test_a_fence_that_was_set_half_way_counts_as_closed_and_is_found_and_set_again(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, opening: bool
) -> None:
    backend.append("mia", records(0, 1))
    fences = [Fence("frozen", 1), Fence("open", 2)][: 1 + opening]
    for fence in fences[:-1]:
        backend.set_fence(fence)
    real = Link.batch

    def batch(self: Link, commands: Sequence[tuple[Argument, ...]]) -> list[object]:
        real(self, commands[: SHARDS // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Link, "batch", batch)
        with pytest.raises(KeyboardInterrupt):
            backend.set_fence(fences[-1])
    assert backend.fence() == Fence("frozen", len(fences))
    (found,) = fsck.check(backend)
    assert (found.user, found.place, found.repaired) == (None, "fence", False)
    assert "frozen (epoch 1) in 128" in found.what
    backend.set_fence(fences[-1])
    assert backend.fence() == fences[-1]
    assert list(fsck.check(backend)) == []


@pytest.mark.parametrize("times", [1, 1000])
def test_a_fence_that_was_lost_with_a_master_is_set_again(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    real = Link.batch
    lost: list[object] = []

    def batch(self: Link, commands: Sequence[tuple[Argument, ...]], **options: bool) -> list[object]:
        if commands[0][0] == "HSET" and len(lost) < times:
            lost.append(commands)
            return real(self, commands[:-1])
        return real(self, commands, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Link, "batch", batch)
        if times == 1:
            backend.set_fence(Fence("frozen", 1))
        else:
            with pytest.raises(Unreachable, match="does not stay"):
                backend.set_fence(Fence("frozen", 1))
    assert len(list(fsck.check(backend))) == (times > 1)


def test_a_fence_is_not_set_before_replicas_have_it(tmp_path: Path) -> None:
    """The server has no replicas."""
    backend = open_redis(tmp_path, waitReplicas="1", timeoutMs="400")
    with pytest.raises(DeadlineExceeded, match="0 of 1 replicas"):
        backend.set_fence(Fence("frozen", 1))
    assert backend.fence() == Fence("frozen", 1)
    backend.close()


def test_large_copies_go_and_come_in_pieces(backend: RedisBackend) -> None:
    data = joined([record("x" * 900_000 + str(at)) for at in range(12)])
    backend.put_archive("mia", "large", data, 7)
    assert stored(backend, "mia", "large") == data
    with backend.open("mia", "large") as reader:
        assert reader.read(5_000_000, 5_500_000) == data[5_000_000:10_500_000]
    assert len(said(data)) == backend.totals().messages == 12


def test_a_copy_that_is_refused_leaves_no_bytes(backend: RedisBackend, tmp_path: Path) -> None:
    backend.put_archive("mia", "one", b"bytes", 1)
    before = keys_of(tmp_path)
    for _ in range(3):
        with pytest.raises(AlreadyExists):
            backend.put_archive("mia", "one", b"others", 1)
    assert keys_of(tmp_path) == before


def test_a_copy_that_does_not_go_on_leaves_no_bytes(
    backend: RedisBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.append("mia", records(0, 2))
    seen, before = backend.stat("mia"), keys_of(tmp_path)
    real = Link.command

    def command(self: Link, *arguments: Argument) -> object:
        if arguments[0] == "SETRANGE":
            monkeypatch.undo()
            backend.append("mia", records(2, 3))
        return real(self, *arguments)

    monkeypatch.setattr(Link, "command", command)
    assert backend.extend("mia", seen, joined(records(3, 4)), 7) is False, "others appended after it was looked at"
    assert keys_of(tmp_path) == before
    assert stored(backend, "mia") == joined(records(0, 3))
    assert backend.totals().messages == 3


def test_a_large_copy_goes_on_in_pieces(backend: RedisBackend, tmp_path: Path) -> None:
    data = joined([record("x" * 900_000 + str(at)) for at in range(12)])
    backend.put_current("mia", data[:1_000_000], 7)
    before = keys_of(tmp_path)
    assert backend.extend("mia", backend.stat("mia"), data[1_000_000:], 8)
    # What is known of it is made again when it is wanted.
    before = [key for key in before if ":known:" not in key]
    assert keys_of(tmp_path) == before, "what was brought lies nowhere else any more"
    assert stored(backend, "mia") == data
    assert len(said(data)) == backend.totals().messages == 12
    assert list(backend.check("mia", repair=False)) == []


def test_a_copy_that_redis_cannot_hold_is_refused_before_it_is_brought(
    backend: RedisBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.append("mia", records(0, 2))
    before, size = keys_of(tmp_path), backend.stat("mia").size
    monkeypatch.setattr("potofs.backends.redis.copying._LARGEST", size + 3)
    with pytest.raises(OSError, match="512 MiB") as caught:
        backend.extend("mia", backend.stat("mia"), b"more", 7)
    assert caught.value.errno == errno.EFBIG
    assert keys_of(tmp_path) == before
    assert stored(backend, "mia") == joined(records(0, 2))
    assert backend.extend("mia", backend.stat("mia"), b"mor", 7)


def test_what_is_known_of_a_copy_that_goes_on_is_of_its_bytes(backend: RedisBackend) -> None:
    """Fingerprints and counts, where what was torn is whole now."""
    data = joined(records(0, 4))
    backend.put_current("mia", data[:-70], 7)
    backend.extend("mia", backend.stat("mia"), data[-70:] + b"role: us", 8)
    backend.extend("mia", backend.stat("mia"), b"er\ncontent: x\ntimestamp: 2024-01-15T10:00:00Z\n", 8)
    assert backend.totals().messages == 5
    assert list(backend.check("mia", repair=False)) == []
    assert list(backend.check(None, repair=False)) == []
    assert backend.append("mia", records(0, 4)).stored == 0
