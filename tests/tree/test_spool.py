"""Where bytes wait that are written and not stored yet."""

import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from potofs.tree.spool import Space, Spool

MIB = 1 << 20


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file becomes longer meanwhile (EFBIG), as on a disk that has no room. Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("begun", [b"", b"x" * 2 * MIB], ids=["in memory", "in a file"])
def test_what_could_not_be_made_longer_takes_no_room(begun: bytes) -> None:
    space = Space(10 * MIB)
    spool = Spool(space)
    spool.write(0, begun)
    for _ in range(6):
        with files_of_at_most(MIB), pytest.raises(OSError, match="File too large"):
            spool.resize(4 * MIB)
        with files_of_at_most(MIB), pytest.raises(OSError, match="File too large"):
            spool.write(3 * MIB, b"x")
    assert spool.read_all() == begun
    spool.resize(4 * MIB)
    assert spool.size == 4 * MIB
    spool.close()
    space.take(10 * MIB)


@pytest.mark.parametrize("size", [100, MIB, 3 * MIB + 1])
def test_what_was_written_is_read_as_a_whole_and_in_parts(size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    spool = Spool(Space())
    spool.write(1, data[1:size])
    spool.write(0, data[:1])
    assert spool.read_all() == data[:size]
    assert spool.read(size - 10, 20) == data[size - 10 : size]
    spool.close()


def test_a_large_file_is_in_memory_once_while_it_is_stored() -> None:
    size = 64 * MIB
    spool = Spool(Space())
    spool.resize(size)
    tracemalloc.start()
    try:
        assert len(spool.read_all()) == size
        assert tracemalloc.get_traced_memory()[1] < size + MIB
    finally:
        tracemalloc.stop()
        spool.close()
