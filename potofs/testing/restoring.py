"""Restoring and renaming archives: they move, with their bytes, numbers and times, and nothing is ever replaced."""

import time

import pytest

from potofs.backends.base import Backend, Capability
from potofs.errors import AlreadyExists, NotFound
from potofs.testing.archiving import ARCHIVE_NAMES, IMPOSSIBLE_NAMES
from potofs.testing.records import joined, names_of, picture, records, short, stored
from potofs.testing.suite import OpenBackend, OpenServers, Suite, needs
from potofs.testing.users import TIME_NAME


def archived(backend: Backend, name: str, first: int, stop: int) -> None:
    """Makes an archive of some messages of mia."""
    backend.append("mia", records(first, stop))
    backend.archive("mia", name)


@needs(Capability.ARCHIVAL)
class Restoring(Suite):
    """An archive becomes the running conversation."""

    def test_an_archive_becomes_the_running_conversation_with_bytes_number_and_time(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 3)
        backend.set_times("mia", "refund", 1_000_000_123)
        before = backend.stat("mia", "refund")
        assert backend.restore("mia", "refund") is None
        after = backend.stat("mia")
        assert (after.id, after.size, after.mtime_ns) == (before.id, before.size, before.mtime_ns)
        assert after.ctime_ns >= before.ctime_ns
        assert stored(backend, "mia") == joined(records(0, 3))
        assert backend.archives("mia") == []
        with pytest.raises(NotFound):
            backend.open("mia", "refund")

    def test_a_running_conversation_becomes_an_archive_called_by_the_time(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 3)
        backend.append("mia", records(3, 5))
        running, refund = backend.stat("mia"), backend.stat("mia", "refund")
        name = backend.restore("mia", "refund")
        assert name is not None
        assert TIME_NAME.fullmatch(name)
        assert names_of(backend, "mia") == [name]
        assert stored(backend, "mia", name) == joined(records(3, 5))
        assert stored(backend, "mia") == joined(records(0, 3))
        kept = backend.stat("mia", name)
        assert (kept.id, kept.size, kept.mtime_ns) == (running.id, running.size, running.mtime_ns)
        assert backend.stat("mia").id == refund.id

    def test_restoring_to_and_fro_replaces_nothing(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 1)
        backend.append("mia", records(1, 2))
        name: str | None = "refund"
        for number in range(8):
            assert name is not None
            name = backend.restore("mia", name)
            assert stored(backend, "mia") == joined(records(number % 2, number % 2 + 1))
            assert names_of(backend, "mia") == [name]
            assert stored(backend, "mia", name) == joined(records(1 - number % 2, 2 - number % 2))

    def test_without_a_swap_nothing_is_restored_over_a_running_conversation(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 3)
        backend.append("mia", records(3, 5))
        before = picture(backend)
        with pytest.raises(AlreadyExists):
            backend.restore("mia", "refund", swap=False)
        assert picture(backend) == before

    def test_without_a_swap_an_archive_is_restored_where_nothing_runs(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 3)
        assert backend.restore("mia", "refund", swap=False) is None
        assert stored(backend, "mia") == joined(records(0, 3))

    @pytest.mark.parametrize("swap", [True, False])
    def test_what_is_not_there_is_not_restored_and_nothing_changes(self, backend: Backend, swap: bool) -> None:
        archived(backend, "refund", 0, 3)
        for user in ("nobody", "mia"):
            with pytest.raises(NotFound):
                backend.restore(user, "other", swap=swap)
        backend.append("mia", records(3, 5))
        before = picture(backend)
        with pytest.raises(NotFound):
            backend.restore("mia", "other")
        assert picture(backend) == before

    def test_a_restored_conversation_goes_on(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 3)
        backend.restore("mia", "refund")
        assert backend.append("mia", records(2, 5)).stored == 2
        assert stored(backend, "mia") == joined(records(0, 5))
        backend.append("mia", records(5, 6))
        assert backend.archive("mia", "refund") == "refund", "its name is free again"
        assert stored(backend, "mia", "refund") == joined(records(0, 6))

    def test_a_second_try_of_what_was_swapped_out_is_known(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 3)
        backend.set_times("mia", "refund", 1)
        backend.append("mia", records(3, 5))
        backend.restore("mia", "refund")
        assert backend.append("mia", records(0, 6)).stored == 1
        assert stored(backend, "mia") == joined([*records(0, 3), *records(5, 6)])

    def test_a_restored_conversation_is_archived_at_its_threshold_by_the_next_append(
        self, backend: Backend, opened: OpenBackend
    ) -> None:
        backend.put_archive("mia", "short", joined(records(0, 3)), 1)
        backend.put_archive("noah", "long", joined(records(0, 9)), 1)
        backend = opened(archiveThreshold="5")
        backend.restore("mia", "short")
        assert backend.append("mia", records(3, 4)).archived_as is None
        assert backend.append("mia", records(4, 5)).archived_as is not None
        backend.restore("noah", "long")
        assert stored(backend, "noah") == joined(records(0, 9)), "nothing is archived by copying and moving"
        assert backend.append("noah", records(9, 10)).archived_as is not None

    def test_whoever_reads_goes_on_when_conversations_are_swapped(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 3)
        backend.append("mia", records(3, 5))
        with backend.open("mia") as running, backend.open("mia", "refund") as refund:
            backend.restore("mia", "refund")
            backend.append("mia", records(5, 6))
            assert running.read_all() == joined(records(3, 5))
            assert refund.read(0, len(joined(records(0, 3)))) == joined(records(0, 3))

    def test_another_server_sees_what_was_restored(self, servers: OpenServers) -> None:
        one, other = servers()
        archived(other, "refund", 0, 3)
        other.append("mia", records(3, 5))
        name = one.restore("mia", "refund")
        assert stored(other, "mia") == joined(records(0, 3))
        assert stored(other, "mia", name) == joined(records(3, 5))
        assert other.append("mia", records(0, 6)).stored == 1
        assert stored(one, "mia") == joined([*records(0, 3), *records(5, 6)])

    def test_an_archive_of_any_name_can_be_restored(self, backend: Backend) -> None:
        for name in ARCHIVE_NAMES:
            backend.put_archive("mia", name, joined(records(0, 3)), 1)
            assert backend.restore("mia", name, swap=False) is None
            assert stored(backend, "mia") == joined(records(0, 3))
            backend.archive("mia")


@needs(Capability.ARCHIVAL)
class Renaming(Suite):
    """An archive gets another name."""

    def test_a_renamed_archive_keeps_bytes_number_and_time(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 3)
        before = backend.stat("mia", "refund")
        backend.rename_archive("mia", "refund", "returned")
        after = backend.stat("mia", "returned")
        assert (after.id, after.size, after.mtime_ns) == (before.id, before.size, before.mtime_ns)
        assert after.ctime_ns >= before.ctime_ns
        assert stored(backend, "mia", "returned") == joined(records(0, 3))
        assert names_of(backend, "mia") == ["returned"]
        with pytest.raises(NotFound):
            backend.stat("mia", "refund")

    def test_no_archive_is_replaced_by_a_renamed_one(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 1)
        archived(backend, "returned", 1, 2)
        before = picture(backend)
        with pytest.raises(AlreadyExists):
            backend.rename_archive("mia", "refund", "returned")
        assert picture(backend) == before

    def test_what_is_not_there_cannot_be_renamed(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 1)
        before = picture(backend)
        for user in ("nobody", "mia"):
            with pytest.raises(NotFound):
                backend.rename_archive(user, "other", "new")
        assert picture(backend) == before

    @pytest.mark.parametrize(("name", "error"), IMPOSSIBLE_NAMES, ids=short)
    def test_no_archive_gets_a_name_that_none_can_have(
        self, backend: Backend, name: str, error: type[Exception]
    ) -> None:
        archived(backend, "refund", 0, 1)
        before = picture(backend)
        with pytest.raises(error):
            backend.rename_archive("mia", "refund", name)
        assert picture(backend) == before

    def test_the_old_name_is_free_again(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 1)
        backend.rename_archive("mia", "refund", "a")
        archived(backend, "refund", 1, 2)
        backend.rename_archive("mia", "refund", "b")
        backend.rename_archive("mia", "a", "refund")
        assert stored(backend, "mia", "refund") == joined(records(0, 1))
        assert stored(backend, "mia", "b") == joined(records(1, 2))

    def test_an_archive_may_get_any_name(self, backend: Backend) -> None:
        archived(backend, "first", 0, 3)
        name = "first"
        for new in ARCHIVE_NAMES:
            backend.rename_archive("mia", name, new)
            name = new
            assert names_of(backend, "mia") == [name]
            assert stored(backend, "mia", name) == joined(records(0, 3))

    def test_a_second_try_is_known_in_the_newest_archive_whatever_its_name(self, servers: OpenServers) -> None:
        one, other = servers()
        archived(one, "older", 0, 1)
        archived(one, "newest", 1, 2)
        assert one.append("mia", records(1, 2)).stored == 0
        other.rename_archive("mia", "newest", "a")
        other.rename_archive("mia", "older", "z")
        assert one.append("mia", records(1, 2)).stored == 0
        assert one.append("mia", records(0, 1)).stored == 1

    def test_whoever_reads_an_archive_goes_on_when_it_is_renamed(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 3)
        with backend.open("mia", "refund") as reader:
            backend.rename_archive("mia", "refund", "returned")
            archived(backend, "refund", 3, 4)
            assert reader.read_all() == joined(records(0, 3))

    def test_a_user_changes_when_an_archive_is_renamed(self, backend: Backend) -> None:
        archived(backend, "refund", 0, 1)
        first = backend.user_changed("mia")
        # Clocks of files tick in milliseconds.
        deadline = time.monotonic() + 1
        while backend.user_changed("mia") == first:
            assert time.monotonic() < deadline
            backend.rename_archive("mia", "refund", "returned")
            backend.rename_archive("mia", "returned", "refund")
        assert backend.user_changed("mia") > first
