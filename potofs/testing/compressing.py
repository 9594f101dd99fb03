"""Compressing archives: less storage, and nothing else that anybody could see."""

import random
from collections.abc import Callable

import pytest

from potofs.backends.base import Archived, Backend, Capability
from potofs.errors import AlreadyExists, NotFound
from potofs.testing.appending import at_once
from potofs.testing.records import joined, picture, reads_any_range, record, records, stored
from potofs.testing.suite import OpenBackend, OpenServers, Suite, needs

#: A conversation of about 300 kB, of which a third is left when it is compressed.
LONG = joined(record(f"{number}: {random.Random(number).randbytes(40).hex()} {'said ' * 30}") for number in range(1000))


@needs(Capability.COMPRESSION)
class Compressing(Suite):
    """An archive that is compressed."""

    def test_a_compressed_archive_takes_less_and_is_otherwise_the_same(self, backend: Backend) -> None:
        backend.put_archive("mia", "long", LONG, 1_000_000_123)
        (before,) = backend.archives("mia")
        saved = backend.compress("mia", "long")
        (after,) = backend.archives("mia")
        assert saved > len(LONG) // 4
        assert after.stored_size == before.stored_size - saved
        stat = after.stat
        assert (stat.id, stat.size, stat.mtime_ns) == (before.stat.id, before.stat.size, before.stat.mtime_ns)
        assert after == Archived("long", backend.stat("mia", "long"), after.stored_size)
        assert stored(backend, "mia", "long") == LONG

    def test_any_range_of_a_compressed_archive_can_be_read(self, backend: Backend) -> None:
        backend.put_archive("mia", "long", LONG, 1)
        backend.compress("mia", "long")
        places = [*random.Random(1).sample(range(len(LONG)), 40), 0, len(LONG) - 1, len(LONG), len(LONG) + 100]
        with backend.open("mia", "long") as reader:
            reads_any_range(reader, LONG, places)

    def test_a_compressed_archive_is_read_by_several_threads_at_once(self, backend: Backend) -> None:
        backend.put_archive("mia", "long", LONG, 1)
        backend.compress("mia", "long")
        with backend.open("mia", "long") as reader:

            def read(seed: int) -> Callable[[], None]:
                places = random.Random(seed).sample(range(len(LONG)), 10)
                return lambda: reads_any_range(reader, LONG, places)

            at_once([read(seed) for seed in range(4)])

    def test_what_is_compressed_is_not_compressed_again(self, backend: Backend) -> None:
        backend.put_archive("mia", "long", LONG, 1)
        assert backend.compress("mia", "long") > 0
        before = picture(backend)
        assert backend.compress("mia", "long") == 0
        assert picture(backend) == before

    def test_what_would_not_get_smaller_stays_as_it_is(self, backend: Backend) -> None:
        noise = random.Random(1).randbytes(10_000)
        backend.put_archive("mia", "noise", noise, 1)
        before = backend.archives("mia")
        assert backend.compress("mia", "noise") == 0
        assert backend.archives("mia") == before
        assert stored(backend, "mia", "noise") == noise

    def test_what_is_not_there_cannot_be_compressed(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        for user in ("nobody", "mia"):
            with pytest.raises(NotFound):
                backend.compress(user, "long")
        assert stored(backend, "mia") == joined(records(0, 1))

    def test_whoever_reads_an_archive_goes_on_when_it_is_compressed(self, backend: Backend) -> None:
        backend.put_archive("mia", "long", LONG, 1)
        with backend.open("mia", "long") as reader:
            assert reader.read(0, 10) == LONG[:10]
            backend.compress("mia", "long")
            assert reader.read_all() == LONG
            assert reader.stat().size == len(LONG)

    def test_a_compressed_archive_can_be_renamed_and_restored_and_goes_on(self, opened: OpenBackend) -> None:
        opened().put_archive("mia", "long", LONG, 1_000_000_123)
        backend = opened(archiveThreshold="0", maxConversationLength="0")
        number = backend.stat("mia", "long").id
        backend.compress("mia", "long")
        backend.rename_archive("mia", "long", "longer")
        assert stored(backend, "mia", "longer") == LONG
        with backend.open("mia", "longer") as reader:
            backend.restore("mia", "longer")
            assert reader.read(0, len(LONG)) == LONG
        stat = backend.stat("mia")
        assert (stat.id, stat.size, stat.mtime_ns) == (number, len(LONG), 1_000_000_123)
        assert stored(backend, "mia") == LONG
        assert backend.append("mia", records(0, 2)).stored == 2
        backend.archive("mia", "long")
        assert stored(backend, "mia", "long") == LONG + joined(records(0, 2))
        assert backend.compress("mia", "long") > 0

    def test_a_compressed_archive_is_not_replaced(self, backend: Backend) -> None:
        backend.put_archive("mia", "long", LONG, 1)
        backend.compress("mia", "long")
        backend.append("mia", records(0, 1))
        before = picture(backend)
        for attempt in (
            lambda: backend.archive("mia", "long"),
            lambda: backend.put_archive("mia", "long", b"other", 1),
        ):
            with pytest.raises(AlreadyExists):
                attempt()
        assert picture(backend) == before

    def test_a_second_try_is_known_in_a_compressed_archive(self, servers: OpenServers) -> None:
        one, other = servers()
        one.append("mia", records(0, 50))
        one.archive("mia", "newest")
        assert one.compress("mia", "newest") > 0
        assert other.append("mia", records(49, 51)).stored == 1
        assert stored(other, "mia", "newest") == joined(records(0, 50))
