"""What every backend does alike, by nothing but the interface."""

import time
from collections.abc import Callable

import pytest

from potofs.backends.base import Archived, Backend, Mark, Record
from potofs.errors import AlreadyExists, InvalidName, NameTooLong, NotFound
from tests.backends.kit import joined, names_of, record, records, said, stored

HOSTILE = ["..", ".", "a/b", "/", "100%", ".hidden", "%2E", "u\x00v", "new\nline", "Jürgen 👋", "a" * 255, "日" * 85]


# Appending and reading


def test_what_was_appended_is_read_back_byte_by_byte(backend: Backend) -> None:
    given = records(0, 20)
    for one in given[:10]:
        assert backend.append("mia", [one]) == (1, None)
    assert backend.append("mia", given[10:]) == (10, None)
    assert stored(backend, "mia") == joined(given)


def test_any_range_of_bytes_can_be_read(backend: Backend) -> None:
    backend.append("mia", records(0, 5))
    data = joined(records(0, 5))
    with backend.open("mia") as reader:
        for offset in (0, 1, 7, len(data) - 1, len(data), len(data) + 100):
            for size in (0, 1, 13, len(data), 2 * len(data)):
                assert reader.read(offset, size) == data[offset : offset + size]


def test_a_reader_sees_what_is_appended_while_it_is_open(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    with backend.open("mia") as reader:
        backend.append("mia", records(1, 2))
        assert reader.read_all() == joined(records(0, 2))
        assert reader.stat() == backend.stat("mia")


def test_size_and_time_follow_every_append(backend: Backend) -> None:
    before = time.time_ns()
    sizes = []
    for one in records(0, 3):
        backend.append("mia", [one])
        sizes.append(backend.stat("mia").size)
    assert sizes == [len(joined(records(0, count))) for count in (1, 2, 3)]
    # A file's clock may be a tick behind.
    assert before - 20_000_000 <= backend.stat("mia").mtime_ns <= time.time_ns()


def test_an_append_without_waiting_succeeds_where_nobody_else_writes(backend: Backend) -> None:
    assert backend.append("mia", records(0, 1), wait=False).stored == 1
    assert backend.append("mia", records(1, 2), wait=False).stored == 1


def test_a_record_of_a_megabyte_is_stored_whole(backend: Backend) -> None:
    large = record("x" * ((1 << 20) - 100))
    backend.append("mia", [large, *records(0, 1)])
    assert stored(backend, "mia") == large.data + joined(records(0, 1))


def test_conversations_of_users_are_apart(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    backend.append("noah", records(1, 2))
    backend.archive("mia", "one")
    assert stored(backend, "noah") == joined(records(1, 2))
    assert backend.archives("noah") == []
    assert backend.stat("mia", "one").id != backend.stat("noah").id


def test_sync_is_for_any_user_with_a_conversation_or_without(backend: Backend) -> None:
    backend.sync("nobody")
    backend.append("mia", records(0, 1))
    backend.sync("mia")
    backend.archive("mia", "one")
    backend.sync("mia")
    assert stored(backend, "mia", "one") == joined(records(0, 1))


# What is not there


def test_what_is_not_there_is_not_found(backend: Backend) -> None:
    backend.create_user("mia", b"")
    for user in ("nobody", "mia"):
        for attempt in (backend.stat, backend.open, backend.archive):
            with pytest.raises(NotFound):
                attempt(user)
        for named in (backend.stat, backend.open, backend.open_set_aside, backend.remove_set_aside):
            with pytest.raises(NotFound):
                named(user, "refund")
        with pytest.raises(NotFound):
            backend.set_times(user, "refund", 1)
        assert backend.archives(user) == backend.set_asides(user) == []
    assert not backend.has_user("nobody")
    assert backend.read_profile("nobody") == b""
    assert backend.user_changed("nobody") == 0


def test_a_conversation_that_nothing_was_appended_to_is_none(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    backend.archive("mia", "one")
    assert backend.append("mia", records(0, 1)).stored == 0
    for attempt in (backend.stat, backend.open, backend.archive):
        with pytest.raises(NotFound):
            attempt("mia")
    backend.put_current("mia", joined(records(1, 2)), 5)
    assert stored(backend, "mia") == joined(records(1, 2))


# Trying again


def test_a_second_try_is_stored_once(backend: Backend) -> None:
    given = records(0, 3)
    backend.append("mia", given)
    assert backend.append("mia", given) == (0, None)
    assert backend.append("mia", [given[1], *records(3, 4), given[2]]).stored == 1
    assert backend.append("mia", [*records(4, 5), *records(4, 5)]).stored == 1
    assert stored(backend, "mia") == joined(records(0, 5))


def test_a_message_that_is_no_second_try_is_stored_again(backend: Backend) -> None:
    again = record("hello", retry=False)
    for _ in range(3):
        assert backend.append("mia", [again]).stored == 1
    assert stored(backend, "mia") == 3 * again.data


def test_a_second_try_is_known_in_the_newest_archive_and_not_in_older_ones(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    backend.archive("mia", "older")
    backend.append("mia", records(1, 2))
    backend.archive("mia", "newest")
    assert backend.append("mia", records(1, 3)).stored == 1
    assert backend.append("mia", records(0, 1)).stored == 1
    assert stored(backend, "mia") == joined([*records(2, 3), *records(0, 1)])


@pytest.mark.parametrize("archiving", [0, 1])
def test_a_second_try_is_known_whichever_server_stored_or_archived_the_first(
    opened: Callable[..., Backend], archiving: int
) -> None:
    servers = [opened(), opened()]
    servers[0].append("mia", records(0, 1))
    servers[1].append("mia", records(1, 2))
    servers[archiving].archive("mia")
    for server in servers:
        assert server.append("mia", records(0, 2)).stored == 0
        assert server.append("mia", records(2, 3)).stored == (server is servers[0])


# Archives


def test_an_archive_keeps_bytes_number_and_time(backend: Backend) -> None:
    backend.append("mia", records(0, 3))
    before = backend.stat("mia")
    assert backend.archive("mia", "refund") == "refund"
    after = backend.stat("mia", "refund")
    assert (after.id, after.size, after.mtime_ns) == (before.id, before.size, before.mtime_ns)
    assert after.ctime_ns >= before.ctime_ns
    assert stored(backend, "mia", "refund") == joined(records(0, 3))
    assert backend.archives("mia") == [Archived("refund", after, after.size)]
    backend.append("mia", records(3, 4))
    assert backend.stat("mia").id != after.id


def test_open_readers_keep_reading_what_they_opened(backend: Backend) -> None:
    backend.append("mia", records(0, 3))
    with backend.open("mia") as reader:
        assert reader.read(0, 10) == joined(records(0, 3))[:10]
        backend.archive("mia")
        backend.append("mia", records(3, 4))
        assert reader.read_all() == joined(records(0, 3))


def test_an_archive_without_a_name_is_called_by_the_time(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_705_314_600_123_000_000)
    names = []
    for number in range(3):
        backend.append("mia", records(number, number + 1))
        names.append(backend.archive("mia"))
    assert names == ["20240115T103000.123Z", "20240115T103000.123Z-2", "20240115T103000.123Z-3"]
    assert [stored(backend, "mia", name) for name in names] == [one.data for one in records(0, 3)]


def test_an_archive_is_never_replaced(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    backend.archive("mia", "refund")
    backend.append("mia", records(1, 2))
    with pytest.raises(AlreadyExists):
        backend.archive("mia", "refund")
    with pytest.raises(AlreadyExists):
        backend.put_archive("mia", "refund", b"other", 1)
    assert stored(backend, "mia", "refund") == joined(records(0, 1))
    assert stored(backend, "mia") == joined(records(1, 2))


@pytest.mark.parametrize(
    ("name", "error"), [("current", InvalidName), ("", InvalidName), ("\ud800", InvalidName), ("x" * 300, NameTooLong)]
)
def test_a_name_that_no_archive_can_have_changes_nothing(backend: Backend, name: str, error: type[Exception]) -> None:
    backend.append("mia", records(0, 1))
    with pytest.raises(error):
        backend.archive("mia", name)
    with pytest.raises(error):
        backend.put_archive("mia", name, b"x", 1)
    assert stored(backend, "mia") == joined(records(0, 1))
    assert backend.archives("mia") == []


def test_archives_may_have_hostile_names(backend: Backend) -> None:
    names = [name for name in HOSTILE if len(name.encode()) < 240]
    for number, name in enumerate(names):
        backend.append("mia", records(number, number + 1))
        assert backend.archive("mia", name) == name
    assert sorted(archive.name for archive in backend.archives("mia")) == sorted(names)
    assert [stored(backend, "mia", name) for name in names] == [one.data for one in records(0, len(names))]


@pytest.mark.parametrize("setting", ["archiveThreshold", "maxConversationLength"])
def test_a_conversation_is_archived_once_the_whole_batch_that_reached_the_threshold_is_in_it(
    opened: Callable[..., Backend], setting: str
) -> None:
    backend = opened(**{setting: "5"})
    assert backend.append("mia", records(0, 4)).archived_as is None
    done = backend.append("mia", records(4, 9))
    assert done.stored == 5
    assert done.archived_as is not None
    assert stored(backend, "mia", done.archived_as) == joined(records(0, 9))
    assert names_of(backend, "mia") == [done.archived_as]
    with pytest.raises(NotFound):
        backend.stat("mia")
    assert backend.append("mia", records(4, 10)) == (1, None)


def test_the_threshold_is_reached_once_whoever_crosses_it(opened: Callable[..., Backend]) -> None:
    servers = [opened(archiveThreshold="4"), opened(archiveThreshold="4")]
    archived = [servers[number % 2].append("mia", records(number, number + 1)).archived_as for number in range(10)]
    assert [name is not None for name in archived] == [number % 4 == 3 for number in range(10)]
    assert names_of(servers[0], "mia") == [name for name in archived if name]
    assert stored(servers[1], "mia") == joined(records(8, 10))


def test_a_threshold_of_0_never_archives(opened: Callable[..., Backend]) -> None:
    backend = opened(archiveThreshold="0", maxConversationLength="0")
    assert backend.append("mia", records(0, 1200)).archived_as is None


# Users


@pytest.mark.parametrize("user", HOSTILE, ids=lambda user: ascii(user)[:20])
def test_a_user_may_have_any_id(backend: Backend, user: str) -> None:
    backend.append(user, records(0, 1))
    backend.archive(user, "refund")
    backend.append(user, records(1, 2))
    backend.set_aside(user, b"refused")
    assert list(backend.users()) == [user]
    assert backend.has_user(user)
    assert stored(backend, user, "refund") + stored(backend, user) == joined(records(0, 2))


@pytest.mark.parametrize(
    ("user", "error"), [("", InvalidName), ("\udcff", InvalidName), ("a" * 256, NameTooLong), ("/" * 86, NameTooLong)]
)
def test_an_id_that_no_user_can_have_is_refused(backend: Backend, user: str, error: type[Exception]) -> None:
    for attempt in (backend.has_user, backend.stat, backend.open, backend.archives):
        with pytest.raises(error):
            attempt(user)
    with pytest.raises(error):
        backend.append(user, records(0, 1))
    with pytest.raises(error):
        backend.create_user(user, b"")
    assert list(backend.users()) == []


def test_a_user_is_created_once_with_a_profile(backend: Backend) -> None:
    before = backend.users_changed()
    backend.create_user("mia", b"userId: mia\n")
    assert backend.read_profile("mia") == b"userId: mia\n"
    with pytest.raises(AlreadyExists):
        backend.create_user("mia", b"other")
    assert backend.read_profile("mia") == b"userId: mia\n"
    assert list(backend.users()) == ["mia"]
    assert backend.users_changed() >= before
    assert backend.users_changed() > 0


def test_a_user_changes_when_a_conversation_comes_or_goes_and_not_when_it_grows(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    first = backend.user_changed("mia")
    backend.append("mia", records(1, 2))
    assert backend.user_changed("mia") == first > 0
    # Clocks of files tick in milliseconds.
    deadline = time.monotonic() + 10
    number = 0
    while backend.user_changed("mia") == first:
        assert time.monotonic() < deadline
        backend.archive("mia")
        number += 1
        backend.append("mia", records(2 + number, 3 + number))


# Copying


def test_copies_are_stored_as_they_are_with_their_time(opened: Callable[..., Backend]) -> None:
    backend = opened(archiveThreshold="2")
    data = b"--- {role: user, content: a, timestamp: 2024-01-15}\n...\ntorn" + joined(records(0, 5))
    when = 1_705_314_600_123_456_789
    backend.put_archive("mia", "refund", data, when)
    backend.put_current("mia", data, when + 1000)
    assert stored(backend, "mia", "refund") == stored(backend, "mia") == data
    assert backend.stat("mia", "refund").mtime_ns == when
    assert backend.stat("mia").mtime_ns == when + 1000
    assert names_of(backend, "mia") == ["refund"]


def test_a_running_conversation_is_never_replaced(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    with pytest.raises(AlreadyExists):
        backend.put_current("mia", b"other", 1)
    assert stored(backend, "mia") == joined(records(0, 1))


def test_a_second_try_is_known_in_what_was_copied(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    backend.archive("mia", "own")
    backend.append("mia", records(1, 2))
    backend.put_archive("mia", "copied", joined(records(2, 3)), time.time_ns() + 10**12)
    assert backend.append("mia", records(2, 3)).stored == 0
    backend.put_current("noah", joined(records(0, 3)), 1)
    assert backend.append("noah", records(1, 4)).stored == 1
    assert stored(backend, "noah") == joined(records(0, 4))


def test_times_can_be_set_and_an_append_sets_them_anew(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    backend.set_times("mia", None, 1_000_000_123)
    assert backend.stat("mia").mtime_ns == 1_000_000_123
    assert backend.stat("mia").ctime_ns > 10**18
    backend.append("mia", records(1, 2))
    assert backend.stat("mia").mtime_ns > 10**18
    backend.archive("mia", "refund")
    backend.set_times("mia", "refund", 2_000_000_123)
    assert backend.stat("mia", "refund").mtime_ns == 2_000_000_123


# Setting aside


def test_what_is_set_aside_can_be_listed_read_and_removed(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_705_314_600_123_000_000)
    names = [backend.set_aside("mia", data) for data in (b"one", b"\xff\x00two")]
    assert names == ["20240115T103000.123Z", "20240115T103000.123Z-2"]
    assert {aside.name: aside.stat.size for aside in backend.set_asides("mia")} == {names[0]: 3, names[1]: 5}
    with backend.open_set_aside("mia", names[1]) as reader:
        assert reader.read_all() == b"\xff\x00two"
        backend.remove_set_aside("mia", names[1])
        assert reader.read_all() == b"\xff\x00two"
    assert [aside.name for aside in backend.set_asides("mia")] == names[:1]
    with pytest.raises(NotFound):
        backend.remove_set_aside("mia", names[1])
    assert backend.archives("mia") == []


# The place


def test_the_place_says_how_full_it_is(backend: Backend) -> None:
    usage = backend.usage()
    assert usage.block_size > 0
    assert usage.blocks >= usage.blocks_free >= usage.blocks_available >= 0


def test_another_server_at_the_same_place_sees_everything(opened: Callable[..., Backend]) -> None:
    one = opened()
    one.create_user("mia", b"profile")
    one.append("mia", records(0, 2))
    one.archive("mia", "refund")
    one.append("mia", records(2, 3))
    name = one.set_aside("mia", b"refused")
    other = opened()
    assert list(other.users()) == ["mia"]
    assert other.read_profile("mia") == b"profile"
    assert said(stored(other, "mia", "refund")) == ["message 0", "message 1"]
    assert other.stat("mia") == one.stat("mia")
    assert [aside.name for aside in other.set_asides("mia")] == [name]


def test_opaque_bytes_are_nothing_to_a_backend(backend: Backend) -> None:
    """A fingerprint alone decides what a second try is; what the bytes say is not its business."""
    odd = Record(b"\xff\xfe: [\n---\n", Mark(b"one", None), retry=True)
    assert backend.append("mia", [odd]).stored == 1
    assert backend.append("mia", [odd]).stored == 0
    assert stored(backend, "mia") == odd.data
