"""Checking a place, and putting other bytes in a conversation's place when it is mended."""

from contextlib import suppress

import pytest

from potofs.backends.base import Backend, Capability
from potofs.errors import Fenced, NotFound, Unsupported
from potofs.testing.fencing import FENCES
from potofs.testing.records import joined, picture, record, records, stored
from potofs.testing.suite import OpenServers, Suite


class Checking(Suite):
    """What a check finds where nothing is wrong. What can be wrong, each backend's own tests say."""

    @pytest.mark.parametrize("repair", [False, True])
    def test_nothing_is_wrong_with_a_place_in_use_and_nothing_is_changed(
        self, servers: OpenServers, repair: bool
    ) -> None:
        one, other = servers()
        one.create_user("noah", b"profile")
        one.append("mia", records(0, 3))
        if Capability.ARCHIVAL in self.capabilities:
            other.archive("mia", "refund")
            one.append("mia", records(3, 5))
            one.archive("mia")
            other.restore("mia", "refund")
            one.put_archive("noah", "old", b"role: us", 1)
        if Capability.COMPRESSION in self.capabilities:
            one.put_archive("mia", "long", joined(records(0, 300)), 1)
            one.compress("mia", "long")
        other.set_aside("mia", b"refused")
        one.put_current("eve", b"nonsense", 1)
        before = picture(one)
        for user in (None, "mia", "noah", "eve"):
            assert list(other.check(user, repair=repair)) == []
        assert picture(one) == before


class Rewriting(Suite):
    """Other bytes for a conversation; a backend that cannot do that says so."""

    def test_other_bytes_take_the_place_of_a_conversations_or_it_says_that_it_cannot(
        self, servers: OpenServers
    ) -> None:
        one, other = servers()
        one.append("mia", records(0, 5))
        archives: list[str | None] = []
        if Capability.ARCHIVAL in self.capabilities:
            archives.append("refund")
            one.put_archive("mia", "refund", joined(records(5, 9)), 7)
        for archive in [None, *archives]:
            before, whole = one.stat("mia", archive), stored(one, "mia", archive)
            try:
                assert other.rewrite("mia", archive, before, joined(records(2, 4))) is True
            except Unsupported:
                assert stored(one, "mia", archive) == whole
                continue
            assert stored(one, "mia", archive) == joined(records(2, 4))
            after = one.stat("mia", archive)
            assert (after.size, after.mtime_ns) == (len(joined(records(2, 4))), before.mtime_ns)
            assert after.id != before.id
            size = sum(len(stored(one, "mia", name)) for name in [None, *archives])
            assert one.totals().bytes == size
            assert one.append("mia", records(2, 4)).stored == 0

    def test_other_bytes_come_at_once_with_the_time_that_is_given(self, servers: OpenServers) -> None:
        one, other = servers()
        one.append("mia", records(0, 2))
        whole = stored(one, "mia")
        try:
            assert other.rewrite("mia", None, one.stat("mia"), whole, mtime_ns=7) is True
        except Unsupported:
            return
        assert (stored(one, "mia"), one.stat("mia").mtime_ns) == (whole, 7)
        if Capability.ARCHIVAL not in self.capabilities:
            return
        one.put_archive("mia", "one", joined(records(2, 4)), 100)
        one.put_archive("mia", "two", joined(records(4, 6)), 200)
        assert one.append("mia", records(2, 6)).stored == 2, "the newest archive is looked into"
        for archive, mtime_ns in (("one", 300), ("two", 400), ("two", 250)):
            seen, given = one.stat("mia", archive), records(mtime_ns, mtime_ns + 2)
            assert other.rewrite("mia", archive, seen, joined(given), mtime_ns=mtime_ns) is True
            assert (stored(one, "mia", archive), one.stat("mia", archive).mtime_ns) == (joined(given), mtime_ns)
            # The first and the second are the newest then.
            assert one.append("mia", given).stored == (2 if mtime_ns == 250 else 0)
        assert one.append("mia", records(300, 302)).stored == 0, "now it is the other one"

    def test_only_what_was_seen_gets_other_bytes(self, servers: OpenServers) -> None:
        one, other = servers()
        one.append("mia", records(0, 2))
        seen = one.stat("mia")
        one.append("mia", [record("later")])
        before = picture(one)
        try:
            assert other.rewrite("mia", None, seen, b"other") is False
        except Unsupported:
            return
        finally:
            assert picture(one) == before
        with suppress(NotFound):
            assert other.rewrite("noah", None, seen, b"other") is False
        assert picture(one) == before

    def test_without_any_bytes_there_is_no_running_conversation(self, backend: Backend) -> None:
        backend.append("mia", records(0, 2))
        try:
            assert backend.rewrite("mia", None, backend.stat("mia"), b"")
        except Unsupported:
            assert stored(backend, "mia") == joined(records(0, 2))
            return
        with pytest.raises(NotFound):
            backend.stat("mia")
        assert backend.totals()[1:5] == (0, 0, 0, 0)
        assert backend.append("mia", records(0, 2)).stored == 2

    def test_no_conversation_gets_other_bytes_behind_a_fence(self, backend: Backend) -> None:
        backend.append("mia", records(0, 2))
        backend.set_fence(FENCES[0])
        with pytest.raises((Fenced, Unsupported)):
            backend.rewrite("mia", None, backend.stat("mia"), b"other")
        assert stored(backend, "mia") == joined(records(0, 2))

    def test_what_is_stored_of_a_user_is_replaced_only_as_it_was_seen(self, servers: OpenServers) -> None:
        one, other = servers()
        one.create_user("mia", b"userId: mia\n")
        try:
            assert other.rewrite_profile("mia", b"other", was=b"something") is False
            assert one.read_profile("mia") == b"userId: mia\n"
            assert other.rewrite_profile("mia", b"other", was=b"userId: mia\n") is True
        except Unsupported:
            assert one.read_profile("mia") == b"userId: mia\n"
            return
        assert one.read_profile("mia") == b"other"
        one.set_fence(FENCES[0])
        with pytest.raises(Fenced):
            one.rewrite_profile("mia", b"third", was=b"other")
        assert one.read_profile("mia") == b"other"
