"""Damaged compressed archives, and those that another program compressed: what a check makes of them."""

import gzip
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.backends.base import Backend, Finding
from potofs.backends.filesystem import files, gzipped
from tests.backends.killed import killed_at
from tests.backends.kit import joined, names_of, open_filesystem, record, stored

#: As many as fill several blocks; each has its number in it, and what does not compress away.
MANY = [
    record(
        f"{number} {random.Random(number).randbytes(100).hex()}",
        time=f"2024-01-15T10:{number // 60:02}:{number % 60:02}Z",
    )
    for number in range(900)
]
DATA = joined(MANY)
BLOCK = 1 << 16
BLOCKS = -(-len(DATA) // BLOCK)
TIME = 1_705_314_600_123_456_789
PLACE = "archived/refund.yaml.gz"


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    """An archive of several blocks, compressed, that was a running conversation once."""
    backend = open_filesystem(tmp_path, archiveThreshold="0", maxConversationLength="0", fsync="never")
    backend.append("mia", MANY)
    backend.archive("mia", "refund")
    backend.set_times("mia", "refund", TIME)
    assert backend.compress("mia", "refund") > 0
    return backend


@pytest.fixture
def packed(users: Path) -> Path:
    return users / "mia/dialogs/archived/refund.yaml.gz"


def check(backend: Backend, *, repair: bool = False) -> list[Finding]:
    return list(backend.check("mia", repair=repair))


def asides(backend: Backend) -> list[bytes]:
    found = []
    for aside in backend.set_asides("mia"):
        with backend.open_set_aside("mia", aside.name) as reader:
            found.append(reader.read_all())
    return found


def table(path: Path) -> list[tuple[int, int]]:
    """Length and checksum of each block."""
    data = path.read_bytes()
    return list(gzipped.ENTRY.iter_unpack(data[gzipped.FIXED : gzipped.FIXED + 8 * BLOCKS]))


def place_of(path: Path, block: int) -> tuple[int, int]:
    """Where a block begins in the file, and where it ends."""
    start = gzipped.FIXED + 8 * BLOCKS + sum(length for length, _ in table(path)[:block])
    return start, start + table(path)[block][0]


def change(path: Path, at: int, new: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    path.write_bytes(data)


def flip(path: Path, at: int) -> None:
    change(path, at, bytes([path.read_bytes()[at] ^ 0x55]))


def outside(*lost: tuple[int, int]) -> bytes:
    """The records that lie wholly outside of some ranges."""
    kept, at = [], 0
    for one in MANY:
        end = at + len(one.data)
        if not any(at < stop and start < end for start, stop in lost):
            kept.append(one.data)
        at = end
    return b"".join(kept)


def repaired(backend: Backend, packed: Path, expected: bytes) -> Finding:
    """Repairs a damaged archive, asserts what is there then, and returns what was found."""
    broken = packed.read_bytes()
    os.utime(packed, ns=(TIME, TIME))
    (found,) = [one for one in check(backend) if one.place == PLACE]
    assert not found.repaired
    assert packed.read_bytes() == broken
    assert asides(backend) == []

    (again,) = [one for one in check(backend, repair=True) if one.place == PLACE]
    (aside,) = backend.set_asides("mia")
    assert again == found._replace(what=f"{found.what}; the whole file is rejected/{aside.name}.yaml", repaired=True)
    assert asides(backend) == [broken]
    assert names_of(backend, "mia") == ["refund"]
    assert stored(backend, "mia", "refund") == expected
    assert backend.stat("mia", "refund")[1:3] == (len(expected), TIME)
    assert check(backend) == []
    assert backend.totals().messages == expected.count(b"\n---\n")
    assert not list(packed.parent.glob(".*.new"))
    assert len(list(packed.parent.glob(".*.id"))) == (expected == DATA)
    return found


# A damaged block


@pytest.mark.parametrize("how", ["flipped", "zeroed"])
@pytest.mark.parametrize("block", [0, 1, BLOCKS - 1])
def test_a_damaged_block_costs_what_is_in_it_and_nothing_else(
    backend: Backend, packed: Path, block: int, how: str
) -> None:
    start, end = place_of(packed, block)
    if how == "flipped":
        flip(packed, (start + end) // 2)
    else:
        change(packed, start, bytes(end - start))
    expected = outside((block * BLOCK, (block + 1) * BLOCK))
    assert len(expected) > len(DATA) - BLOCK - 1000
    number = backend.stat("mia", "refund").id
    found = repaired(backend, packed, expected)
    assert backend.stat("mia", "refund").id != number, "with other bytes it is another conversation"
    assert f"of its {len(DATA)} bytes" in found.what
    assert "cannot be recovered" in found.what
    assert "no checksum" not in found.what


def test_the_bytes_that_are_lost_are_named(backend: Backend, packed: Path) -> None:
    flip(packed, place_of(packed, 1)[0] + 1000)
    before = outside((BLOCK, len(DATA)))
    after = outside((0, 2 * BLOCK))
    found = repaired(backend, packed, before + after)
    assert found.what == (
        f"is damaged: of its {len(DATA)} bytes {len(before)} to {len(DATA) - len(after) - 1} cannot be recovered"
    )


def test_what_is_left_of_records_on_both_sides_is_not_put_together(backend: Backend, packed: Path) -> None:
    flip(packed, place_of(packed, 1)[0] + 1000)
    check(backend, repair=True)
    data = stored(backend, "mia", "refund")
    whole = {one.data for one in MANY}
    assert all(piece + b"\n---\n" in whole for piece in data.split(b"\n---\n")[:-1])
    assert data.endswith(b"\n---\n")


def test_an_archive_of_nothing_but_damage_keeps_its_name(tmp_path: Path, users: Path) -> None:
    backend = open_filesystem(tmp_path, fsync="never")
    backend.put_archive("mia", "refund", joined(MANY[:50]), TIME)
    backend.compress("mia", "refund")
    path = users / "mia/dialogs/archived/refund.yaml.gz"
    flip(path, path.stat().st_size // 2)
    found = repaired(backend, path, b"")
    assert f"0 to {len(joined(MANY[:50])) - 1} cannot be recovered" in found.what


# A damaged table, head or end


def wreck_the_table(path: Path) -> None:
    change(path, gzipped.FIXED, random.Random(1).randbytes(8 * BLOCKS))


def wreck_an_entry(path: Path) -> None:
    flip(path, gzipped.FIXED + 9)


def wreck_the_tables_checksum(path: Path) -> None:
    flip(path, gzipped.FIXED - 2)


def wreck_the_trailer(path: Path) -> None:
    flip(path, path.stat().st_size - 6)


def cut_the_trailer_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8)


def add_something(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"something")


def wreck_the_magic(path: Path) -> None:
    flip(path, 0)


def wreck_the_flags(path: Path) -> None:
    flip(path, 3)


def wreck_the_length_of_the_fields(path: Path) -> None:
    flip(path, 10)


AROUND = [
    wreck_the_table,
    wreck_an_entry,
    wreck_the_tables_checksum,
    wreck_the_trailer,
    cut_the_trailer_off,
    add_something,
    wreck_the_magic,
    wreck_the_flags,
    wreck_the_length_of_the_fields,
]


@pytest.mark.parametrize("wreck", AROUND)
def test_where_only_what_is_around_the_blocks_is_damaged_all_is_there(
    backend: Backend, packed: Path, wreck: Callable[[Path], None]
) -> None:
    number = backend.stat("mia", "refund").id
    wreck(packed)
    found = repaired(backend, packed, DATA)
    assert found.what == f"is damaged: all of its {len(DATA)} bytes can be recovered"
    assert backend.stat("mia", "refund").id == number
    assert gzip.decompress(packed.read_bytes()) == DATA


def test_blocks_behind_a_damaged_one_are_known_by_their_checksums_without_the_table(
    backend: Backend, packed: Path
) -> None:
    start, end = place_of(packed, 1)
    flip(packed, (start + end) // 2)
    wreck_the_tables_checksum(packed)
    found = repaired(backend, packed, outside((BLOCK, 2 * BLOCK)))
    assert "no checksum" not in found.what


def test_what_only_the_stream_says_is_taken_and_it_is_said(backend: Backend, packed: Path) -> None:
    wreck_the_table(packed)
    cut_the_trailer_off(packed)
    found = repaired_unconfirmed(backend, packed, DATA)
    assert found.what.startswith(
        f"is damaged: all of its {len(DATA)} bytes can be recovered; no checksum confirms 0 to {len(DATA) - 1};"
    )


def repaired_unconfirmed(backend: Backend, packed: Path, expected: bytes) -> Finding:
    broken = packed.read_bytes()
    (found,) = [one for one in check(backend, repair=True) if one.place == PLACE]
    assert found.repaired
    assert asides(backend) == [broken]
    assert stored(backend, "mia", "refund") == expected
    assert check(backend) == []
    return found


@pytest.mark.parametrize("where", ["in a block", "between blocks", "in the table"])
def test_a_file_that_is_cut_off_has_what_is_before(backend: Backend, packed: Path, where: str) -> None:
    start, end = place_of(packed, 2)
    size = {"in a block": (start + end) // 2, "between blocks": start, "in the table": gzipped.FIXED + 5}[where]
    os.truncate(packed, size)
    found = check(backend)[0]
    assert "cannot be recovered" in found.what
    broken = packed.read_bytes()
    assert [one.repaired for one in check(backend, repair=True) if one.place == PLACE] == [True]
    data = stored(backend, "mia", "refund")
    assert asides(backend) == [broken]
    assert DATA.startswith(data)
    assert data == b"" or data.endswith(b"\n---\n")
    if where == "in a block":
        assert len(data) > 2 * BLOCK, "also of the block that is cut off"
        assert "; no checksum confirms 131072 to" in found.what
    elif where == "between blocks":
        assert data == outside((2 * BLOCK, len(DATA)))
        assert "no checksum" not in found.what
    assert check(backend) == []
    assert backend.stat("mia", "refund").mtime_ns == os.stat(packed.with_suffix("")).st_mtime_ns


def test_whatever_is_damaged_nothing_is_read_that_was_not_said(tmp_path: Path, users: Path) -> None:
    """Whatever one byte becomes, and wherever the file ends."""
    backend = open_filesystem(tmp_path, archiveThreshold="0", maxConversationLength="0", fsync="never")
    path = users / "mia/dialogs/archived/refund.yaml.gz"
    few = MANY[:300]
    backend.put_archive("mia", "refund", joined(few), TIME)
    backend.compress("mia", "refund")
    good, said = path.read_bytes(), [one.data for one in few]
    chance = random.Random(7)
    for turn in range(60):
        path.with_suffix("").unlink(missing_ok=True)
        broken = bytearray(good)
        at = chance.randrange(60) if turn % 3 == 0 else chance.randrange(len(good))
        if turn % 5 == 4:
            del broken[at:]
        else:
            broken[at] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        check(backend, repair=True)
        if names_of(backend, "mia") != ["refund"]:
            assert bytes(broken) in asides(backend), at
            continue
        try:
            data = stored(backend, "mia", "refund")
        except OSError:
            assert path.read_bytes() == broken, at
            continue
        pieces = [piece + b"\n---\n" for piece in data.split(b"\n---\n")[:-1]]
        left = iter(said)
        assert all(piece in left for piece in pieces), at
        if data != joined(few):
            assert bytes(broken) in [*asides(backend), path.read_bytes() if path.exists() else b""], at


# What another program compressed


def by_gzip(backend: Backend, packed: Path) -> int:
    """Has an archive compressed by another program, and returns its number."""
    backend.put_archive("mia", "refund2", DATA, TIME)
    path = packed.with_name("refund2.yaml")
    path.with_name("refund2.yaml.gz").write_bytes(gzip.compress(DATA[:100_000]) + gzip.compress(DATA[100_000:]))
    path.unlink()
    os.utime(path.with_name("refund2.yaml.gz"), ns=(TIME, TIME))
    return backend.stat("mia", "refund2").id


def test_what_has_no_index_gets_one_and_is_the_same_conversation(backend: Backend, packed: Path) -> None:
    number = by_gzip(backend, packed)
    other = packed.with_name("refund2.yaml.gz")
    place = "archived/refund2.yaml.gz"
    was = other.read_bytes()
    (found,) = [one for one in check(backend) if one.place == place]
    assert found.what == "has no index: every read inflates it from the start"
    assert other.read_bytes() == was
    assert [one for one in check(backend, repair=True) if one.place == place] == [found._replace(repaired=True)]
    assert check(backend) == []
    assert asides(backend) == []
    assert stored(backend, "mia", "refund2") == DATA
    assert backend.stat("mia", "refund2")[:3] == (number, len(DATA), TIME)
    assert gzip.decompress(other.read_bytes()) == DATA
    with gzipped.GzipReader(str(other), lambda _: None) as reader:
        assert reader.token is not None
    assert all(path.stat().st_size == 0 for path in packed.parent.glob(".*.id"))
    assert backend.restore("mia", "refund2") is None
    assert backend.stat("mia")[:3] == (number, len(DATA), TIME)


def test_what_a_program_has_open_is_left_to_it(backend: Backend, packed: Path) -> None:
    by_gzip(backend, packed)
    other = packed.with_name("refund2.yaml.gz")
    was = other.read_bytes()
    with other.open("ab") as file:
        (found,) = [one for one in check(backend, repair=True) if one.place == "archived/refund2.yaml.gz"]
        assert not found.repaired
        assert "a program has it open" in found.what
        file.write(gzip.compress(b"more"))
    assert gzip.decompress(other.read_bytes()) == DATA + b"more"
    assert other.read_bytes().startswith(was)


def test_a_backup_by_hard_links_keeps_its_bytes(backend: Backend, packed: Path, tmp_path: Path) -> None:
    by_gzip(backend, packed)
    backend.put_archive("mia", "plain", DATA, TIME)
    for name in ("refund2.yaml.gz", "plain.yaml"):
        os.link(packed.with_name(name), tmp_path / name)
    check(backend, repair=True)
    backend.compress("mia", "plain")
    assert gzip.decompress((tmp_path / "refund2.yaml.gz").read_bytes()) == DATA
    assert (tmp_path / "plain.yaml").read_bytes() == DATA


# Killed


@pytest.mark.parametrize("what", ["a block", "the table", "no index"])
@pytest.mark.parametrize("step", range(8))
def test_a_repair_that_is_killed_anywhere_loses_nothing_and_shows_nothing_twice(
    backend: Backend, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, step: int
) -> None:
    expected = DATA
    if what == "a block":
        flip(packed, place_of(packed, 1)[0] + 1000)
        expected = outside((BLOCK, 2 * BLOCK))
    elif what == "the table":
        wreck_the_table(packed)
    else:
        packed.write_bytes(gzip.compress(DATA))
    broken = packed.read_bytes()
    with killed_at(
        step, monkeypatch, (files, "rename_new"), (os, "rename"), (os, "link"), (os, "unlink"), (os, "ftruncate")
    ) as done:
        check(backend, repair=True)
    assert len(done) == step if step < 5 and what == "a block" else step < 7 or "finished" in done, done
    again = open_filesystem(tmp_path, archiveThreshold="0", maxConversationLength="0", fsync="never")
    assert names_of(again, "mia") == ["refund"]
    assert broken in [*asides(again), packed.read_bytes() if packed.exists() else b""] or what == "no index"
    assert all(one.repaired for one in check(again, repair=True))
    assert check(again) == []
    assert stored(again, "mia", "refund") == expected
    assert names_of(again, "mia") == ["refund"]
    assert asides(again) == ([] if what == "no index" else [broken])
    assert again.totals().messages == expected.count(b"\n---\n")


def test_bytes_that_are_inflated_behind_a_wrong_checksum_are_not_believed(backend: Backend, packed: Path) -> None:
    """A block that is valid deflate of the right size, and other bytes."""
    start, end = place_of(packed, 1)
    block = DATA[BLOCK : 2 * BLOCK].replace(b"a", b"b")
    engine = zlib.compressobj(wbits=-15)
    other = engine.compress(block) + engine.flush(zlib.Z_FULL_FLUSH)
    data = packed.read_bytes()
    entry = gzipped.FIXED + 8
    head = data[: gzipped.FIXED - 4]
    entries = data[gzipped.FIXED : entry] + struct.pack("<II", len(other), table(packed)[1][1])
    entries += data[entry + 8 : gzipped.FIXED + 8 * BLOCKS]
    first = data[gzipped.FIXED + 8 * BLOCKS : start]
    packed.write_bytes(head + struct.pack("<I", zlib.crc32(entries)) + entries + first + other + data[end:])
    repaired(backend, packed, outside((BLOCK, 2 * BLOCK)))
