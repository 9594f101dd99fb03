"""The fence: while it is not open no change is taken, whoever asks for it, and everything can be read."""

import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from potofs.backends.base import Backend, Capability, Fence
from potofs.errors import Fenced, Unsupported
from potofs.testing.appending import at_once
from potofs.testing.compressing import LONG
from potofs.testing.records import joined, picture, record, records, stored
from potofs.testing.suite import OpenServers, Suite, needs

FENCES = [Fence("frozen", 1), Fence("moved", 2, "redis://elsewhere:6379/0")]

Change = Callable[[Backend], object]

#: What any backend can change, with mia's conversation running, and what only a backend with archival can.
CHANGES: dict[str, Change] = {
    "create_user": lambda backend: backend.create_user("noah", b"profile"),
    "append": lambda backend: backend.append("mia", records(5, 6)),
    "append without waiting": lambda backend: backend.append("mia", records(5, 6), wait=False),
    "append to a new user": lambda backend: backend.append("noah", records(5, 6)),
    "set_times": lambda backend: backend.set_times("mia", None, 1),
    "put_current": lambda backend: backend.put_current("noah", joined(records(5, 6)), 1),
    "put_profile": lambda backend: backend.put_profile("mia", b"other profile", 1),
    "set_aside of a copy": lambda backend: backend.set_aside("mia", b"refused", "copied"),
    "set_aside of a new user's copy": lambda backend: backend.set_aside("noah", b"refused", "copied", mtime_ns=1),
}
#: What not every backend can change.
IF_IT_CAN: dict[str, Change] = {
    "extend": lambda backend: backend.extend("mia", backend.stat("mia"), joined(records(5, 6)), 1),
    "rewrite": lambda backend: backend.rewrite("mia", None, backend.stat("mia"), joined(records(5, 6))),
    "set_changed": lambda backend: backend.set_changed("mia", 1),
    "set_changed of all users": lambda backend: backend.set_changed(None, 1),
}
OF_ARCHIVES: dict[str, Change] = {
    "archive": lambda backend: backend.archive("mia", "new"),
    "archive without waiting": lambda backend: backend.archive("mia", wait=False),
    "restore": lambda backend: backend.restore("mia", "refund"),
    "rename_archive": lambda backend: backend.rename_archive("mia", "refund", "new"),
    "put_archive": lambda backend: backend.put_archive("mia", "new", joined(records(5, 6)), 1),
    "put_archive of a new user": lambda backend: backend.put_archive("noah", "new", joined(records(5, 6)), 1),
    "set_times of an archive": lambda backend: backend.set_times("mia", "refund", 1),
}


def is_refused(one: Backend, other: Backend, fence: Fence, change: Change) -> None:
    """Asserts that a fence set by one server keeps both from a change, which can be done when it is open again."""
    one.set_fence(fence)
    before = picture(one)
    for server in (one, other):
        assert server.fence() == fence
        with pytest.raises(Fenced, match=fence.moved_to or "frozen"):
            change(server)
        assert picture(server) == before
    other.set_fence(Fence("open", fence.epoch + 1))
    assert one.fence() == Fence("open", fence.epoch + 1)
    change(one)
    assert picture(one) != before
    assert picture(other) == picture(one)


class Fencing(Suite):
    """The fence, and what every backend can change."""

    def test_the_fence_is_open_in_the_beginning(self, backend: Backend) -> None:
        assert backend.fence() == Fence("open", 0, "")

    @pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence.state)
    @pytest.mark.parametrize("change", CHANGES)
    def test_nothing_is_changed_by_any_server_until_it_is_open_again(
        self, servers: OpenServers, change: str, fence: Fence
    ) -> None:
        one, other = servers()
        one.append("mia", records(0, 3))
        is_refused(one, other, fence, CHANGES[change])

    @pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence.state)
    @pytest.mark.parametrize("change", IF_IT_CAN)
    def test_what_not_every_backend_can_change_is_not_changed_behind_it(
        self, servers: OpenServers, change: str, fence: Fence
    ) -> None:
        one, other = servers()
        one.append("mia", records(0, 3))
        one.set_fence(fence)
        before = picture(one)
        for server in (one, other):
            with suppress(Fenced, Unsupported):
                IF_IT_CAN[change](server)
            assert picture(server) == before

    @pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence.state)
    def test_what_was_refused_is_kept_behind_it_and_not_removed(self, servers: OpenServers, fence: Fence) -> None:
        one, other = servers()
        one.set_fence(fence)
        name = other.set_aside("mia", b"refused")
        with pytest.raises(Fenced):
            other.remove_set_aside("mia", name)
        with one.open_set_aside("mia", name) as reader:
            assert reader.read_all() == b"refused"

    def test_the_log_can_be_written_behind_it(self, backend: Backend) -> None:
        backend.set_fence(FENCES[0])
        backend.append_log(b"frozen\n")
        assert backend.read_log(0, 100) == b"frozen\n"

    def test_clearing_is_refused_too(self, backend: Backend) -> None:
        backend.append("mia", records(0, 3))
        backend.set_fence(FENCES[0])
        with pytest.raises(Unsupported if Capability.ARCHIVAL in self.capabilities else Fenced):
            backend.clear("mia")
        assert stored(backend, "mia") == joined(records(0, 3))

    @pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence.state)
    def test_everything_can_be_read_behind_it(self, servers: OpenServers, fence: Fence) -> None:
        one, other = servers()
        one.create_user("mia", b"profile")
        one.append("mia", records(0, 3))
        one.set_aside("mia", b"refused")
        before = picture(one)
        one.set_fence(fence)
        assert picture(one) == picture(other) == before
        other.sync("mia")
        with other.open("mia") as reader:
            assert reader.read_all() == joined(records(0, 3))

    def test_once_it_is_set_no_change_is_under_way_that_did_not_see_it(self, servers: OpenServers) -> None:
        both = servers(maxConversationLength="0")
        under_way, frozen = threading.Event(), threading.Event()
        refused: list[int] = []
        seen: list[dict[str, Any]] = []

        def writer(number: int) -> Callable[[], None]:
            def write() -> None:
                try:
                    for at in itertools.takewhile(lambda _: not frozen.is_set(), itertools.count()):
                        both[number % 2].append(f"user {number}", [record(f"{number} {at}")])
                        under_way.set()
                    both[number % 2].append(f"user {number}", records(0, 1))
                except Fenced:
                    refused.append(number)
                finally:
                    under_way.set()

            return write

        def freeze() -> None:
            under_way.wait()
            try:
                both[0].set_fence(FENCES[0])
                seen.append(picture(both[1]))
            finally:
                frozen.set()

        at_once([*(writer(number) for number in range(3)), freeze])
        assert sorted(refused) == [0, 1, 2]
        assert seen == [picture(both[0])]


@needs(Capability.ARCHIVAL)
class FencingArchives(Suite):
    """The fence, and what a backend with archival can change."""

    @pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence.state)
    @pytest.mark.parametrize("change", OF_ARCHIVES)
    def test_no_archive_is_changed_by_any_server_until_it_is_open_again(
        self, servers: OpenServers, change: str, fence: Fence
    ) -> None:
        one, other = servers()
        one.append("mia", records(0, 3))
        one.archive("mia", "refund")
        one.append("mia", records(3, 4))
        is_refused(one, other, fence, OF_ARCHIVES[change])


@needs(Capability.COMPRESSION)
class FencingCompression(Suite):
    """The fence, and compression."""

    def test_nothing_is_compressed_until_it_is_open_again(self, servers: OpenServers) -> None:
        one, other = servers()
        one.put_archive("mia", "long", LONG, 1)
        is_refused(one, other, FENCES[0], lambda backend: backend.compress("mia", "long"))
