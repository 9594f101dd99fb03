"""The place as a whole: what is there after a restart, what it counts, and the fence around it."""

from collections.abc import Callable

import pytest

from potofs.backends.base import Backend, Capability, Fence, Totals
from potofs.errors import AlreadyExists, NotFound
from potofs.journal import reading
from potofs.testing.appending import at_once
from potofs.testing.compressing import LONG
from potofs.testing.fencing import FENCES
from potofs.testing.records import FIRST_NS, joined, picture, record, records, stored
from potofs.testing.suite import OpenBackend, OpenServers, Suite, needs

SECOND_NS = 1_000_000_000
NOTHING = Totals(users=0, conversations=0, archives=0, messages=0, bytes=0, first_ns=None, last_ns=None)


class Place(Suite):
    """Where conversations are."""

    def test_the_place_says_how_full_it_is(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        usage = backend.usage()
        assert usage.block_size > 0
        assert usage.blocks >= usage.blocks_free >= usage.blocks_available >= 0
        assert usage.blocks > 0

    def test_a_place_may_be_prepared_again(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        for create in (True, False):
            backend.prepare(create=create)
        assert stored(backend, "mia") == joined(records(0, 1))

    def test_what_was_stored_is_there_when_it_is_opened_again_where_it_lasts(
        self, backend: Backend, open_backend: OpenBackend
    ) -> None:
        one = open_backend()
        one.create_user("mia", b"profile")
        one.append("mia", records(0, 2))
        if Capability.ARCHIVAL in self.capabilities:
            one.archive("mia", "refund")
            one.append("mia", records(2, 3))
        one.set_aside("mia", b"refused")
        one.append_log(b"a line\n")
        one.set_fence(FENCES[0])
        before, fence = picture(one), one.fence()
        one.close()
        other = open_backend()
        if Capability.PERSISTENCE in self.capabilities:
            assert picture(other) == before
            assert other.fence() == fence
            other.set_fence(Fence("open", 2))
            assert other.append("mia", records(0, 3)).stored == (Capability.ARCHIVAL not in self.capabilities)
        else:
            assert other.totals() == NOTHING
            assert other.fence() == Fence()
        other.close()

    def test_another_server_sees_everything_at_once(self, servers: OpenServers) -> None:
        one, other = servers()
        one.create_user("mia", b"profile")
        assert picture(other) == picture(one)
        other.append("mia", records(0, 2))
        assert picture(other) == picture(one)
        one.set_times("mia", None, 1_000_000_123)
        other.append("noah", records(0, 2))
        one.set_aside("noah", b"refused")
        other.append_log(b"a line\n")
        assert picture(other) == picture(one)
        assert sorted(other.users()) == ["mia", "noah"]


class Logging(Suite):
    """The log of clean-ups."""

    def test_lines_are_added_at_its_end(self, servers: OpenServers) -> None:
        one, other = servers()
        assert one.log_size() == 0
        assert one.read_log(0, 100) == b""
        lines = [b"line %d\n" % number for number in range(20)]
        for number, line in enumerate(lines):
            (one, other)[number % 2].append_log(line)
        whole = b"".join(lines)
        for server in (one, other):
            assert server.log_size() == len(whole)
            for offset in (0, 5, len(whole) - 3, len(whole), len(whole) + 9):
                for size in (1, 50, len(whole)):
                    assert server.read_log(offset, size) == whole[offset : offset + size]

    def test_lines_of_several_threads_are_all_there_and_whole(self, servers: OpenServers) -> None:
        both = servers()
        lines = {b"%d\n" % number for number in range(60)}

        def writer(part: int) -> Callable[[], None]:
            def write() -> None:
                for number in range(part, 60, 4):
                    both[part % 2].append_log(b"%d\n" % number)

            return write

        at_once([writer(part) for part in range(4)])
        found = both[0].read_log(0, both[0].log_size()).splitlines(keepends=True)
        assert len(found) == 60
        assert set(found) == lines

    def test_it_is_nothing_that_is_counted(self, backend: Backend) -> None:
        backend.append_log(b"a line\n")
        assert backend.totals() == NOTHING
        assert list(backend.users()) == []


class Counting(Suite):
    """Totals, after everything that could change them."""

    def test_nothing_is_counted_where_nothing_is(self, backend: Backend) -> None:
        assert backend.totals() == NOTHING

    def test_appends_are_counted_and_second_tries_are_not(self, servers: OpenServers) -> None:
        one, other = servers()
        one.create_user("zoe", b"profile")
        assert one.totals() == NOTHING._replace(users=1)
        one.append("mia", records(5, 8))
        other.append("mia", records(4, 9))
        one.append("noah", [record("early", time="1999-12-31T23:59:59.999Z"), *records(6, 7)])
        size = len(joined(records(4, 9))) + one.stat("noah").size
        expected = Totals(3, 2, 0, 7, size, 946_684_799_999_000_000, FIRST_NS + 8 * SECOND_NS)
        assert one.totals() == other.totals() == expected
        one.append("mia", records(4, 9))
        assert one.totals() == other.totals() == expected

    def test_messages_of_any_year_are_counted(self, servers: OpenServers) -> None:
        """The first and the last year that a timestamp can have, however narrow the figures are kept."""
        one, other = servers()
        far = [record(f"in {year}", time=f"{year}-06-15T00:00:00.000Z") for year in ("0001", "9999")]
        assert one.append("mia", far).stored == 2
        assert one.append("mia", records(0, 1)).stored == 1
        if Capability.ARCHIVAL in self.capabilities:
            one.archive("mia", "far")
        assert other.append("noah", far).stored == 2
        for server in (one, other):
            counted = server.totals()
            assert counted.messages == 5
            assert counted.first_ns is not None
            assert counted.last_ns is not None
            assert counted.first_ns < FIRST_NS < counted.last_ns

    def test_copies_are_counted_as_what_they_hold(self, backend: Backend) -> None:
        data = b"--- {role: user, content: a, timestamp: 2024-01-15}\n...\nnonsense\n---\n" + joined(records(1, 4))
        assert len(list(reading.marks(data))) == 4
        backend.put_current("mia", data, 1)
        assert backend.totals() == Totals(1, 1, 0, 4, len(data), FIRST_NS, FIRST_NS + 3 * SECOND_NS)

    def test_what_is_set_aside_is_not_counted(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        before = backend.totals()
        name = backend.set_aside("mia", joined(records(1, 2)))
        assert backend.totals() == before
        backend.remove_set_aside("mia", name)
        assert backend.totals() == before

    def test_what_is_cleared_is_not_counted(self, backend: Backend) -> None:
        backend.append("mia", records(0, 2))
        backend.append("noah", records(5, 6))
        kept = Totals(2, 1, 0, 1, len(joined(records(5, 6))), FIRST_NS + 5 * SECOND_NS, FIRST_NS + 5 * SECOND_NS)
        if Capability.ARCHIVAL in self.capabilities:
            backend.archive("mia", "kept")
            size = len(joined(records(0, 2)))
            kept = kept._replace(archives=1, messages=3, bytes=kept.bytes + size, first_ns=FIRST_NS)
        else:
            backend.clear("mia")
        assert backend.totals() == kept

    def test_appends_of_several_threads_are_all_counted(self, servers: OpenServers) -> None:
        both = servers(maxConversationLength="0")

        def writer(number: int) -> Callable[[], None]:
            def write() -> None:
                for one in records(20 * number, 20 * number + 20):
                    both[number % 2].append(f"user {number % 2}", [one])

            return write

        at_once([writer(number) for number in range(4)])
        expected = Totals(2, 2, 0, 80, len(joined(records(0, 80))), FIRST_NS, FIRST_NS + 79 * SECOND_NS)
        assert [server.totals() for server in both] == [expected, expected]


@needs(Capability.ARCHIVAL)
class CountingArchives(Suite):
    """Totals of archives."""

    def test_moving_conversations_changes_only_what_is_counted_as_running_or_archived(
        self, servers: OpenServers
    ) -> None:
        one, other = servers()
        one.append("mia", records(0, 3))
        counted = one.totals()
        assert (counted.conversations, counted.archives) == (1, 0)

        def moved(conversations: int, archives: int) -> None:
            expected = counted._replace(conversations=conversations, archives=archives)
            assert one.totals() == other.totals() == expected

        other.archive("mia", "refund")
        moved(0, 1)
        one.rename_archive("mia", "refund", "returned")
        moved(0, 1)
        one.set_times("mia", "returned", 1)
        moved(0, 1)
        one.restore("mia", "returned")
        moved(1, 0)
        other.archive("mia", "refund")
        one.append("mia", records(3, 4))
        counted = counted._replace(
            messages=4, bytes=counted.bytes + len(joined(records(3, 4))), last_ns=FIRST_NS + 3 * SECOND_NS
        )
        moved(1, 1)
        other.restore("mia", "refund")
        moved(1, 1)

    def test_archives_by_themselves_are_counted(self, backend: Backend, opened: OpenBackend) -> None:
        backend.put_archive("mia", "older", joined(records(100, 102)), 1)
        backend = opened(archiveThreshold="4")
        for number in range(10):
            backend.append("mia", records(number, number + 1))
        size = len(joined([*records(100, 102), *records(0, 10)]))
        assert backend.totals() == Totals(1, 1, 3, 12, size, FIRST_NS, FIRST_NS + 101 * SECOND_NS)

    def test_refused_changes_are_not_counted(self, backend: Backend) -> None:
        backend.put_archive("mia", "refund", joined(records(0, 3)), 1)
        backend.put_archive("mia", "other", joined(records(0, 3)), 1)
        backend.append("mia", records(3, 4))
        before = backend.totals()
        assert before.archives == 2
        attempts: list[Callable[[], object]] = [
            lambda: backend.put_archive("mia", "refund", joined(records(7, 9)), 1),
            lambda: backend.put_current("mia", joined(records(7, 9)), 1),
            lambda: backend.archive("mia", "refund"),
            lambda: backend.rename_archive("mia", "refund", "other"),
            lambda: backend.restore("mia", "refund", swap=False),
            lambda: backend.restore("mia", "nothing"),
        ]
        for attempt in attempts:
            with pytest.raises((AlreadyExists, NotFound)):
                attempt()
        assert backend.totals() == before


@needs(Capability.COMPRESSION)
class CountingCompressed(Suite):
    """Totals of compressed archives."""

    def test_compressing_changes_only_the_bytes(self, backend: Backend) -> None:
        backend.put_archive("mia", "long", LONG, 1)
        backend.append("mia", records(0, 1))
        before = backend.totals()
        saved = backend.compress("mia", "long")
        assert backend.totals() == before._replace(bytes=before.bytes - saved)
        backend.restore("mia", "long")
        assert backend.totals() == before
