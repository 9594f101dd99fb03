"""Archives: what becomes of a running conversation, by its name or by itself, and that nothing is ever replaced."""

import time
from collections.abc import Callable

import pytest

from potofs.backends.base import Archived, Backend, Capability
from potofs.errors import AlreadyExists, InvalidName, NameTooLong, NotFound, Stale, Unsupported
from potofs.testing.appending import at_once
from potofs.testing.records import HOSTILE, joined, names_of, records, short, stored
from potofs.testing.suite import OpenBackend, OpenServers, Suite, needs
from potofs.testing.users import TIME_NAME

#: Names that an archive may have too: its ending takes some of a file name's room.
ARCHIVE_NAMES = [name for name in HOSTILE if len(name.encode()) < 240]

#: Names that no archive can have, and as what they are refused.
IMPOSSIBLE_NAMES = [("current", InvalidName), ("", InvalidName), ("\ud800", InvalidName), ("x" * 300, NameTooLong)]


class Clearing(Suite):
    """What clearing a conversation means without an archive to keep it in."""

    def test_a_conversation_can_be_cleared_only_where_it_cannot_be_archived(self, backend: Backend) -> None:
        backend.append("mia", records(0, 3))
        with backend.open("mia") as reader:
            if Capability.ARCHIVAL in backend.capabilities:
                with pytest.raises(Unsupported):
                    backend.clear("mia")
                assert stored(backend, "mia") == joined(records(0, 3))
            else:
                backend.clear("mia")
                for attempt in (backend.stat, backend.open, backend.clear):
                    with pytest.raises(NotFound):
                        attempt("mia")
            assert reader.read_all() == joined(records(0, 3))
        assert backend.has_user("mia")
        assert backend.archives("mia") == []
        assert backend.append("mia", records(2, 4)).stored == (1 if Capability.ARCHIVAL in backend.capabilities else 2)


@needs(Capability.ARCHIVAL)
class Archiving(Suite):
    """Archives that somebody asked for."""

    def test_an_archive_keeps_bytes_number_and_time(self, backend: Backend) -> None:
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

    def test_of_many_archives_it_tells_at_once_what_they_are_and_which_are_missing(self, servers: OpenServers) -> None:
        one, other = servers()
        for number, name in enumerate(ARCHIVE_NAMES):
            one.append("mia", records(number, number + 1))
            one.archive("mia", name)
        there = {name: one.stat("mia", name) for name in ARCHIVE_NAMES}
        asked = [*reversed(ARCHIVE_NAMES), "nothing", ARCHIVE_NAMES[0]]
        expected = [there.get(name) for name in asked]
        assert other.stats_of("mia", asked) == expected
        assert other.stats_of("mia", []) == []
        assert other.stats_of("noah", ARCHIVE_NAMES[:1]) == [None]
        one.restore("mia", ARCHIVE_NAMES[0])
        one.rename_archive("mia", ARCHIVE_NAMES[1], "renamed")
        assert other.stats_of("mia", [*ARCHIVE_NAMES[:2], "renamed"]) == [None, None, one.stat("mia", "renamed")]

    def test_what_was_appended_to_meanwhile_is_not_archived_as_idle(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.set_times("mia", None, 2_000_000_000)
        with pytest.raises(Stale):
            backend.archive("mia", "one", idle_since_ns=1_999_999_999)
        assert backend.archives("mia") == []
        assert backend.archive("mia", "one", idle_since_ns=2_000_000_000) == "one"
        backend.append("mia", records(1, 2))
        with pytest.raises(Stale):
            backend.archive("mia", "two", idle_since_ns=2_000_000_000)
        assert stored(backend, "mia") == joined(records(1, 2))

    def test_an_archive_is_of_one_user(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.append("noah", records(1, 2))
        backend.archive("mia", "one")
        assert stored(backend, "noah") == joined(records(1, 2))
        assert backend.archives("noah") == []
        with pytest.raises(NotFound):
            backend.open("noah", "one")

    def test_nothing_can_be_archived_where_nothing_runs(self, backend: Backend) -> None:
        backend.create_user("mia", b"")
        for user in ("nobody", "mia"):
            for name in (None, "refund"):
                with pytest.raises(NotFound):
                    backend.archive(user, name)
        assert list(backend.users()) == ["mia"]

    def test_whoever_reads_a_conversation_goes_on_when_it_is_archived(self, backend: Backend) -> None:
        backend.append("mia", records(0, 3))
        with backend.open("mia") as reader:
            assert reader.read(0, 10) == joined(records(0, 3))[:10]
            backend.archive("mia")
            backend.append("mia", records(3, 4))
            assert reader.read_all() == joined(records(0, 3))

    def test_an_archive_without_a_name_is_called_by_the_time_and_none_is_replaced(self, backend: Backend) -> None:
        names = []
        for number in range(12):
            backend.append("mia", records(number, number + 1))
            names.append(backend.archive("mia"))
        assert all(TIME_NAME.fullmatch(name) for name in names), names
        assert [stored(backend, "mia", name) for name in names] == [one.data for one in records(0, 12)]

    def test_an_archive_is_never_replaced(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.archive("mia", "refund")
        backend.append("mia", records(1, 2))
        with pytest.raises(AlreadyExists):
            backend.archive("mia", "refund")
        with pytest.raises(AlreadyExists):
            backend.put_archive("mia", "refund", b"other", 1)
        assert stored(backend, "mia", "refund") == joined(records(0, 1))
        assert stored(backend, "mia") == joined(records(1, 2))

    @pytest.mark.parametrize(("name", "error"), IMPOSSIBLE_NAMES, ids=short)
    def test_a_name_that_no_archive_can_have_changes_nothing(
        self, backend: Backend, name: str, error: type[Exception]
    ) -> None:
        backend.append("mia", records(0, 1))
        with pytest.raises(error):
            backend.archive("mia", name)
        with pytest.raises(error):
            backend.put_archive("mia", name, b"x", 1)
        assert stored(backend, "mia") == joined(records(0, 1))
        assert backend.archives("mia") == []

    @pytest.mark.parametrize(("name", "error"), IMPOSSIBLE_NAMES, ids=short)
    def test_a_name_that_no_archive_can_have_is_told_also_where_there_is_nothing_to_call_so(
        self, backend: Backend, name: str, error: type[Exception]
    ) -> None:
        backend.create_user("mia", b"")
        for user in ("nobody", "mia"):
            with pytest.raises(error):
                backend.archive(user, name)
            with pytest.raises(error):
                backend.rename_archive(user, "nothing", name)
        assert list(backend.users()) == ["mia"]

    def test_archives_may_have_hostile_names(self, backend: Backend) -> None:
        for number, name in enumerate(ARCHIVE_NAMES):
            backend.append("mia", records(number, number + 1))
            assert backend.archive("mia", name) == name
        assert sorted(archive.name for archive in backend.archives("mia")) == sorted(ARCHIVE_NAMES)
        assert [stored(backend, "mia", name) for name in ARCHIVE_NAMES] == [
            one.data for one in records(0, len(ARCHIVE_NAMES))
        ]

    @pytest.mark.parametrize("user", HOSTILE, ids=short)
    def test_a_user_of_any_id_has_archives(self, backend: Backend, user: str) -> None:
        backend.append(user, records(0, 1))
        backend.archive(user, "refund")
        backend.append(user, records(1, 2))
        assert list(backend.users()) == [user]
        assert stored(backend, user, "refund") + stored(backend, user) == joined(records(0, 2))

    def test_archives_are_copied_as_they_are_with_their_time(self, backend: Backend) -> None:
        data = b"--- {role: user, content: a, timestamp: 2024-01-15}\n...\ntorn" + joined(records(0, 5))
        when = 1_705_314_600_123_456_789
        backend.put_archive("mia", "refund", data, when)
        assert stored(backend, "mia", "refund") == data
        assert backend.stat("mia", "refund").mtime_ns == when
        assert names_of(backend, "mia") == ["refund"]
        with pytest.raises(NotFound):
            backend.stat("mia")

    def test_the_time_of_an_archive_can_be_set(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.archive("mia", "refund")
        backend.set_times("mia", "refund", 2_000_000_123)
        assert backend.stat("mia", "refund").mtime_ns == 2_000_000_123
        assert stored(backend, "mia", "refund") == joined(records(0, 1))

    def test_sync_is_for_what_was_archived_too(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.archive("mia", "one")
        backend.sync("mia")
        assert stored(backend, "mia", "one") == joined(records(0, 1))

    def test_a_user_changes_when_a_conversation_is_archived(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        first = backend.user_changed("mia")
        # Clocks of files tick in milliseconds.
        deadline = time.monotonic() + 1
        number = 0
        while backend.user_changed("mia") == first:
            assert time.monotonic() < deadline
            backend.archive("mia")
            number += 1
            backend.append("mia", records(2 + number, 3 + number))
        assert backend.user_changed("mia") > first


@needs(Capability.ARCHIVAL)
class RetryingAfterArchiving(Suite):
    """A second try of what has become an archive meanwhile."""

    def test_a_second_try_is_known_in_the_newest_archive_and_not_in_older_ones(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.archive("mia", "older")
        backend.append("mia", records(1, 2))
        backend.archive("mia", "newest")
        assert backend.append("mia", records(1, 3)).stored == 1
        assert backend.append("mia", records(0, 1)).stored == 1
        assert stored(backend, "mia") == joined([*records(2, 3), *records(0, 1)])

    def test_the_newest_archive_is_the_one_that_was_appended_to_last(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.archive("mia", "own")
        backend.append("mia", records(1, 2))
        backend.put_archive("mia", "copied", joined(records(2, 3)), time.time_ns() + 10**12)
        assert backend.append("mia", records(2, 3)).stored == 0
        backend.set_times("mia", "copied", 1)
        assert backend.append("mia", records(0, 1)).stored == 0
        assert backend.append("mia", records(2, 3)).stored == 1

    @pytest.mark.parametrize("archiving", [0, 1])
    def test_a_second_try_is_known_whichever_server_stored_or_archived_the_first(
        self, servers: OpenServers, archiving: int
    ) -> None:
        both = servers()
        both[0].append("mia", records(0, 1))
        both[1].append("mia", records(1, 2))
        both[archiving].archive("mia")
        for server in both:
            assert server.append("mia", records(0, 2)).stored == 0
            assert server.append("mia", records(2, 3)).stored == (server is both[0])

    def test_what_is_known_of_archives_goes_by_no_time_that_can_be_set(self, servers: OpenServers) -> None:
        one, other = servers()
        for number, name in enumerate(["older", "newest"]):
            other.put_archive("mia", name, joined(records(number, number + 1)), number)
            other.set_changed("mia", 1_705_314_600_123_456_789)
            assert one.append("mia", records(number, number + 1)).stored == 0
            assert one.totals()[1:4] == (0, number + 1, number + 1)

    def test_a_conversation_that_nothing_was_appended_to_is_none(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.archive("mia", "one")
        assert backend.append("mia", records(0, 1)).stored == 0
        for attempt in (backend.stat, backend.open, backend.archive):
            with pytest.raises(NotFound):
                attempt("mia")
        backend.put_current("mia", joined(records(1, 2)), 5)
        assert stored(backend, "mia") == joined(records(1, 2))


@needs(Capability.ARCHIVAL)
class ArchivingByItself(Suite):
    """A conversation that has reached its threshold.

    An older archive, which counts for nothing, is stored first: a backend without archival has no such setting either.
    """

    @pytest.mark.parametrize("setting", ["archiveThreshold", "maxConversationLength"])
    def test_a_conversation_is_archived_once_the_whole_batch_that_reached_the_threshold_is_in_it(
        self, backend: Backend, opened: OpenBackend, setting: str
    ) -> None:
        backend.put_archive("mia", "older", joined(records(2000, 2001)), 1)
        backend = opened(**{setting: "5"})
        assert backend.append("mia", records(0, 4)).archived_as is None
        done = backend.append("mia", records(4, 9))
        assert done.stored == 5
        assert done.archived_as is not None
        assert TIME_NAME.fullmatch(done.archived_as)
        assert stored(backend, "mia", done.archived_as) == joined(records(0, 9))
        assert names_of(backend, "mia") == ["older", done.archived_as]
        with pytest.raises(NotFound):
            backend.stat("mia")
        assert backend.append("mia", records(4, 10)) == (1, None)

    def test_the_threshold_is_reached_once_whoever_crosses_it(self, backend: Backend, servers: OpenServers) -> None:
        backend.put_archive("mia", "older", joined(records(2000, 2001)), 1)
        both = servers(archiveThreshold="4")
        archived = [both[number % 2].append("mia", records(number, number + 1)).archived_as for number in range(10)]
        assert [name is not None for name in archived] == [number % 4 == 3 for number in range(10)]
        assert names_of(both[0], "mia") == ["older", *(name for name in archived if name)]
        assert stored(both[1], "mia") == joined(records(8, 10))

    def test_threads_that_cross_the_threshold_together_archive_once(
        self, backend: Backend, servers: OpenServers
    ) -> None:
        backend.put_archive("mia", "older", joined(records(2000, 2001)), 1)
        both = servers(archiveThreshold="10")

        def writer(number: int) -> Callable[[], None]:
            def write() -> None:
                for one in records(100 * number, 100 * number + 10):
                    both[number % 2].append("mia", [one])

            return write

        at_once([writer(number) for number in range(4)])
        archived = names_of(both[0], "mia")[1:]
        assert [stored(both[0], "mia", name).count(b"\n---\n") for name in archived] == [10] * 4
        with pytest.raises(NotFound):
            both[1].stat("mia")

    def test_a_threshold_of_0_never_archives(self, backend: Backend, opened: OpenBackend) -> None:
        backend.put_archive("mia", "older", joined(records(2000, 2001)), 1)
        backend = opened(archiveThreshold="0", maxConversationLength="0")
        assert backend.append("mia", records(0, 1200)) == (1200, None)
        assert names_of(backend, "mia") == ["older"]
