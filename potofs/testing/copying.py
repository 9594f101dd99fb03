"""Conversations stored as somebody else had them, whole or as a copy that goes on."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from potofs.backends.base import RECORD_END, Backend, Capability
from potofs.errors import AlreadyExists, NotFound, Unsupported
from potofs.testing.appending import at_once
from potofs.testing.records import joined, picture, record, records, stored
from potofs.testing.suite import OpenBackend, OpenServers, Suite


class Copying(Suite):
    """Conversations stored as somebody else had them."""

    def test_a_copy_is_stored_as_it_is_with_its_time(self, opened: OpenBackend) -> None:
        backend = opened(maxConversationLength="2")
        data = b"--- {role: user, content: a, timestamp: 2024-01-15}\n...\ntorn" + joined(records(0, 5))
        when = 1_705_314_600_123_456_789
        backend.put_current("mia", data, when)
        assert stored(backend, "mia") == data
        assert (backend.stat("mia").size, backend.stat("mia").mtime_ns) == (len(data), when)
        assert backend.archives("mia") == []

    def test_a_running_conversation_is_never_replaced(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        with pytest.raises(AlreadyExists):
            backend.put_current("mia", b"other", 1)
        assert stored(backend, "mia") == joined(records(0, 1))

    def test_a_copy_of_nothing_is_no_conversation(self, backend: Backend) -> None:
        backend.put_current("mia", b"", 1)
        for attempt in (backend.stat, backend.open):
            with pytest.raises(NotFound):
                attempt("mia")
        backend.put_current("mia", joined(records(0, 1)), 1)
        assert stored(backend, "mia") == joined(records(0, 1))

    def test_times_can_be_set_and_an_append_sets_them_anew(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.set_times("mia", None, 1_000_000_123)
        assert backend.stat("mia").mtime_ns == 1_000_000_123
        assert backend.stat("mia").ctime_ns > 10**18
        backend.append("mia", records(1, 2))
        assert backend.stat("mia").mtime_ns > 10**18


class Extending(Suite):
    """A copy that goes on; a backend that cannot do that says so."""

    @pytest.mark.parametrize("cut", range(0, 100, 7))
    def test_a_copy_goes_on_where_it_ended_wherever_that_was(self, servers: OpenServers, cut: int) -> None:
        """What was torn is whole then, and counts, and is known."""
        one, other = servers(maxConversationLength="3")
        data, when = joined(records(0, 6)), 1_705_314_600_123_456_789
        at = len(joined(records(0, 2))) + cut
        one.put_current("mia", data[:at], 5)
        before = one.totals()
        try:
            assert other.extend("mia", one.stat("mia"), data[at:], when) is True
        except Unsupported:
            assert stored(one, "mia") == data[:at]
            return
        for server in (one, other):
            assert stored(server, "mia") == data
            assert (server.stat("mia").size, server.stat("mia").mtime_ns) == (len(data), when)
            assert server.archives("mia") == []
            expected = before._replace(messages=6, bytes=len(data), last_ns=records(5, 6)[0].mark.time_ns)
            assert server.totals() == expected
        assert one.append("mia", records(0, 6)).stored == 0

    def test_a_message_that_goes_on_is_known_as_what_it_has_become(self, servers: OpenServers) -> None:
        one, other = servers()
        when = "2024-01-15T10:00:00.000Z"
        first, whole = record("a", time=when), record("a b", time=when)
        cut = f"role: user\ntimestamp: {when}\ncontent: a\n".encode()
        one.put_current("mia", joined(records(0, 2)) + cut, 1)
        assert one.append("mia", [first]).stored == 0
        try:
            assert other.extend("mia", one.stat("mia"), b"  b\n---\n", 2) is True
        except Unsupported:
            return
        for server in (one, other):
            assert server.totals().messages == 3
            assert server.append("mia", [whole]).stored == 0
        assert one.append("mia", [first]).stored == 1

    def test_nothing_is_put_between_or_left_out(self, backend: Backend) -> None:
        """Not even what would damage it, or is there already: it is a copy, and the bytes are the truth."""
        pieces = [joined(records(0, 2)), b"role: us", b"nonsense", b"\n---\n", joined(records(0, 2)), b"\xff\x00", b""]
        backend.put_current("mia", pieces[0], 1)
        for number in range(1, len(pieces)):
            try:
                assert backend.extend("mia", backend.stat("mia"), pieces[number], number) is True
            except Unsupported:
                return
            assert stored(backend, "mia") == b"".join(pieces[: number + 1])
            assert backend.stat("mia").mtime_ns == number
        assert list(backend.check("mia", repair=False)) == []

    def test_what_others_append_to_it_afterwards_is_not_glued_to_it(self, servers: OpenServers) -> None:
        one, other = servers()
        one.append("mia", records(0, 2))
        try:
            assert other.extend("mia", one.stat("mia"), b"role: us", 1) is True
        except Unsupported:
            return
        assert one.append("mia", records(2, 3)).stored == 1
        assert stored(one, "mia") == joined(records(0, 2)) + b"role: us" + RECORD_END + joined(records(2, 3))
        assert one.stat("mia").mtime_ns > 10**18
        assert one.totals().messages == 3

    def test_only_what_was_seen_goes_on(self, servers: OpenServers) -> None:
        one, other = servers()
        one.append("mia", records(0, 2))
        one.append("noah", records(0, 2))
        seen = one.stat("mia")
        one.append("mia", records(2, 3))
        before = picture(one)
        for stat in (seen, one.stat("noah"), one.stat("mia")._replace(id=seen.id ^ 256)):
            with suppress(Unsupported):
                assert other.extend("mia", stat, joined(records(3, 4)), 1) is False
            assert picture(one) == picture(other) == before

    def test_what_is_not_there_does_not_go_on(self, servers: OpenServers) -> None:
        one, other = servers()
        one.append("mia", records(0, 2))
        seen = one.stat("mia")
        if Capability.ARCHIVAL in self.capabilities:
            one.archive("mia", "refund")
        else:
            one.clear("mia")
        before = picture(one)
        for user in ("mia", "nobody"):
            with pytest.raises(NotFound):
                other.extend(user, seen, joined(records(3, 4)), 1)
            assert picture(one) == picture(other) == before

    def test_whoever_is_first_goes_on_and_the_other_is_told(self, servers: OpenServers) -> None:
        both = servers(maxConversationLength="0")
        both[0].put_current("mia", joined(records(0, 1)), 1)
        seen = both[0].stat("mia")
        done: list[int] = []

        def attempt(number: int) -> Callable[[], None]:
            def extend() -> None:
                with suppress(Unsupported):
                    if both[number % 2].extend("mia", seen, joined(records(number, number + 1)), number):
                        done.append(number)

            return extend

        at_once([attempt(number) for number in range(1, 6)])
        assert len(done) <= 1
        assert stored(both[0], "mia") == joined([*records(0, 1), *(one for at in done for one in records(at, at + 1))])
        assert both[0].stat("mia").mtime_ns == (done or [1])[0]
