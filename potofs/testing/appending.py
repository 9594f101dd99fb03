"""Appending and reading: whole records, in order, byte by byte, whoever is at it at the same time."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from potofs.backends.base import RECORD_END, Backend, Mark, Record
from potofs.errors import NotFound
from potofs.testing.records import joined, reads_any_range, record, records, said, stored
from potofs.testing.suite import OpenServers, Suite


def at_once(works: Sequence[Callable[[], None]]) -> None:
    """Runs functions in threads that begin together; raises what the first of them raised."""
    barrier = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            barrier.wait()
            work()
        except BaseException as error:  # Raised again where the test sees it.
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Appending(Suite):
    """What is appended, and what is read of it."""

    def test_what_was_appended_is_read_back_byte_by_byte(self, backend: Backend) -> None:
        given = records(0, 20)
        for one in given[:10]:
            assert backend.append("mia", [one]) == (1, None)
        assert backend.append("mia", given[10:]) == (10, None)
        assert stored(backend, "mia") == joined(given)

    def test_any_range_of_bytes_can_be_read(self, backend: Backend) -> None:
        backend.append("mia", records(0, 5))
        data = joined(records(0, 5))
        with backend.open("mia") as reader:
            reads_any_range(reader, data, (0, 1, 7, len(data) - 1, len(data), len(data) + 100))

    def test_a_reader_sees_what_is_appended_while_it_is_open(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        with backend.open("mia") as reader:
            backend.append("mia", records(1, 2))
            assert reader.read_all() == joined(records(0, 2))
            assert reader.stat() == backend.stat("mia")

    def test_size_and_time_follow_every_append(self, backend: Backend) -> None:
        before = time.time_ns()
        sizes = []
        for one in records(0, 3):
            backend.append("mia", [one])
            sizes.append(backend.stat("mia").size)
        assert sizes == [len(joined(records(0, count))) for count in (1, 2, 3)]
        # A file's clock may be a tick behind, a server's a little off.
        assert before - 20_000_000 <= backend.stat("mia").mtime_ns <= time.time_ns() + 20_000_000

    def test_a_conversation_keeps_its_number_while_it_grows(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        number = backend.stat("mia").id
        backend.append("mia", records(1, 2))
        backend.append("noah", records(1, 2))
        assert backend.stat("mia").id == number != backend.stat("noah").id
        assert 0 < number < 2**63

    def test_an_append_without_waiting_succeeds_where_nobody_else_writes(self, backend: Backend) -> None:
        assert backend.append("mia", records(0, 1), wait=False).stored == 1
        assert backend.append("mia", records(1, 2), wait=False).stored == 1
        assert stored(backend, "mia") == joined(records(0, 2))

    def test_a_record_of_a_megabyte_is_stored_whole(self, backend: Backend) -> None:
        large = record("x" * ((1 << 20) - 100))
        backend.append("mia", [large, *records(0, 1)])
        assert stored(backend, "mia") == large.data + joined(records(0, 1))

    def test_conversations_of_users_are_apart(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.append("noah", records(1, 2))
        assert stored(backend, "mia") == joined(records(0, 1))
        assert stored(backend, "noah") == joined(records(1, 2))

    @pytest.mark.parametrize("torn", [b"role: us", b"role: user\ncontent: a\n", b"x\n---", b"x\n\n---\r\n"])
    def test_nothing_is_glued_to_a_torn_tail(self, backend: Backend, torn: bytes) -> None:
        backend.put_current("mia", joined(records(0, 1)) + torn, 1)
        backend.append("mia", records(1, 2))
        ended = torn + (RECORD_END[1:] if torn.endswith(b"\n") else RECORD_END)
        assert stored(backend, "mia") == joined(records(0, 1)) + ended + joined(records(1, 2))

    def test_opaque_bytes_are_nothing_to_a_backend(self, backend: Backend) -> None:
        """A fingerprint alone decides what a second try is; what the bytes say is not its business."""
        odd = Record(b"\xff\xfe: [\n---\n", Mark(b"one", None), retry=True)
        assert backend.append("mia", [odd]).stored == 1
        assert backend.append("mia", [odd]).stored == 0
        assert stored(backend, "mia") == odd.data

    def test_sync_is_for_any_user_with_a_conversation_or_without(self, backend: Backend) -> None:
        backend.sync("nobody")
        assert list(backend.users()) == []
        backend.append("mia", records(0, 1))
        backend.sync("mia")
        assert stored(backend, "mia") == joined(records(0, 1))

    def test_what_is_not_there_is_not_found(self, backend: Backend) -> None:
        backend.create_user("mia", b"")
        for user in ("nobody", "mia"):
            for attempt in (backend.stat, backend.open):
                with pytest.raises(NotFound):
                    attempt(user)
            for named in (backend.stat, backend.open, backend.open_set_aside, backend.remove_set_aside):
                with pytest.raises(NotFound):
                    named(user, "refund")
            for archive in (None, "refund"):
                with pytest.raises(NotFound):
                    backend.set_times(user, archive, 1)
            assert backend.archives(user) == backend.set_asides(user) == []
        assert not backend.has_user("nobody")
        assert backend.read_profile("nobody") == b""
        assert backend.user_changed("nobody") == 0


class AppendingAtOnce(Suite):
    """Several threads, and several servers."""

    def test_appends_of_several_threads_are_all_stored_each_whole_and_in_its_writers_order(
        self, servers: OpenServers
    ) -> None:
        both = servers(maxConversationLength="0")

        def writer(number: int) -> Callable[[], None]:
            def write() -> None:
                for at in range(0, 20, 2):
                    both[number % 2].append("mia", [record(f"{number} {at}"), record(f"{number} {at + 1}")])

            return write

        at_once([writer(number) for number in range(4)])
        found = [content.split() for content in said(stored(both[0], "mia"))]
        assert len(found) == 80
        for number in range(4):
            assert [int(at) for name, at in found if name == str(number)] == list(range(20))
        # Nobody's message is between those of one batch.
        assert all(int(second[1]) == int(first[1]) + 1 for first, second in zip(found[::2], found[1::2], strict=True))

    def test_a_second_try_at_the_same_time_is_stored_once(self, servers: OpenServers) -> None:
        both = servers()
        counts: list[int] = []

        def attempt(server: Backend) -> Callable[[], None]:
            return lambda: counts.append(server.append("mia", records(0, 3)).stored)

        at_once([attempt(both[number % 2]) for number in range(6)])
        assert sorted(counts) == [0, 0, 0, 0, 0, 3]
        assert stored(both[0], "mia") == joined(records(0, 3))


class Retrying(Suite):
    """Trying again stores nothing twice."""

    def test_a_second_try_is_stored_once(self, backend: Backend) -> None:
        given = records(0, 3)
        backend.append("mia", given)
        assert backend.append("mia", given) == (0, None)
        assert backend.append("mia", [given[1], *records(3, 4), given[2]]).stored == 1
        assert backend.append("mia", [*records(4, 5), *records(4, 5)]).stored == 1
        assert stored(backend, "mia") == joined(records(0, 5))

    def test_a_message_that_is_no_second_try_is_stored_again(self, backend: Backend) -> None:
        again = record("hello", retry=False)
        for _ in range(3):
            assert backend.append("mia", [again]).stored == 1
        assert backend.append("mia", [again, again]).stored == 2
        assert stored(backend, "mia") == 5 * again.data

    def test_a_second_try_is_of_the_same_user(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        assert backend.append("noah", records(0, 1)).stored == 1

    def test_a_second_try_is_known_in_what_was_copied(self, backend: Backend) -> None:
        backend.put_current("mia", joined(records(0, 3)), 1)
        assert backend.append("mia", records(1, 4)).stored == 1
        assert stored(backend, "mia") == joined(records(0, 4))

    def test_a_second_try_is_known_whichever_server_stored_the_first(self, servers: OpenServers) -> None:
        one, other = servers()
        one.append("mia", records(0, 1))
        other.append("mia", records(1, 2))
        assert one.append("mia", records(0, 2)).stored == 0
        assert other.append("mia", records(0, 3)).stored == 1
        assert stored(one, "mia") == joined(records(0, 3))
