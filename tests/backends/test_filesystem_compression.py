"""Compressed archives on files: what they are, that they stay one conversation, and killed or raced compressors."""

import gzip
import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.backends.base import Archived, Backend, Capability, Fence, Reader
from potofs.backends.filesystem import files, gzipped, leases
from potofs.errors import AlreadyExists, Fenced, NotFound
from tests.backends.killed import killed_at
from tests.backends.kit import everything, joined, names_of, open_filesystem, record, records, stored


@pytest.fixture
def backend(on_files: Callable[..., Backend]) -> Backend:
    return on_files(fsync="never", archiveThreshold="0")


@pytest.fixture
def archived(users: Path) -> Path:
    return users / "mia/dialogs/archived"


def noise(size: int) -> bytes:
    """Bytes that compress to about three quarters."""
    return random.Random(1).randbytes(size).hex().encode()[:size]


# One and the same conversation


def test_a_compressed_archive_is_the_same_conversation_in_less_room(backend: Backend, archived: Path) -> None:
    assert Capability.COMPRESSION in backend.capabilities
    backend.append("mia", records(0, 900))
    backend.archive("mia", "refund")
    backend.set_times("mia", "refund", 1_705_314_600_123_456_789)
    before, data = backend.stat("mia", "refund"), joined(records(0, 900))
    saved = backend.compress("mia", "refund")
    after = backend.stat("mia", "refund")
    assert after[:3] == before[:3]
    assert after.ctime_ns >= before.ctime_ns
    assert stored(backend, "mia", "refund") == data
    (listed,) = backend.archives("mia")
    assert listed == Archived("refund", after, len(data) - saved)
    assert 0 < listed.stored_size < len(data) // 4
    assert not (archived / "refund.yaml").exists()
    assert gzip.decompress((archived / "refund.yaml.gz").read_bytes()) == data
    assert backend.compress("mia", "refund") == 0
    assert sum(path.stat().st_size for path in archived.iterdir()) == listed.stored_size


def test_any_gunzip_reads_it_and_it_is_one_member(backend: Backend, archived: Path) -> None:
    backend.put_archive("mia", "refund", noise(300_000), 1)
    backend.compress("mia", "refund")
    path = archived / "refund.yaml.gz"
    assert subprocess.run(["gunzip", "-c", path], capture_output=True, check=True).stdout == noise(300_000)
    engine = zlib.decompressobj(31)
    assert engine.decompress(path.read_bytes()) == noise(300_000)
    assert engine.eof
    assert engine.unused_data == b""


@pytest.mark.parametrize("size", [1000, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3 << 16, 500_000])
def test_any_range_of_a_compressed_archive_can_be_read(backend: Backend, size: int) -> None:
    data = noise(size)
    backend.put_archive("mia", "refund", data, 1)
    assert backend.compress("mia", "refund") > 0
    chance = random.Random(size)
    with backend.open("mia", "refund") as reader:
        assert reader.stat().size == size
        for offset in [0, size - 1, size, size + 10, *(chance.randrange(size) for _ in range(30))]:
            wanted = chance.choice([0, 1, 100, 70_000, size])
            assert reader.read(offset, wanted) == data[offset : offset + wanted]


def test_reading_at_random_inflates_only_the_block_that_is_read(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.put_archive("mia", "refund", noise(1 << 20), 1)
    backend.compress("mia", "refund")
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        data = pread(descriptor, size, offset)
        read.append(len(data))
        return data

    with backend.open("mia", "refund") as reader:
        monkeypatch.setattr(os, "pread", counted)
        assert reader.read(600_000, 100) == noise(1 << 20)[600_000:600_100]
        assert reader.read(600_100, 100) == noise(1 << 20)[600_100:600_200]
        assert sum(read) < 70_000


def test_the_index_of_a_huge_archive_fits_into_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipped, "_BLOCK", 16)
    data = noise(gzipped._MOST_BLOCKS * 16 + 1)
    source, target = tmp_path / "source", tmp_path / "target.gz"
    source.write_bytes(data)
    with files.FileReader(str(source)) as read, target.open("wb") as written:
        gzipped.write(read, len(data), written.fileno(), bytes(8))
    assert gzip.decompress(target.read_bytes()) == data
    with gzipped.GzipReader(str(target), lambda _: None) as reader:
        assert reader.read_all() == data


def test_what_would_not_get_smaller_stays_as_it_is(backend: Backend, archived: Path) -> None:
    for name, data in {"short": b"x", "random": random.Random(1).randbytes(100_000), "empty": b""}.items():
        backend.put_archive("mia", name, data, 1)
        assert backend.compress("mia", name) == 0
        assert stored(backend, "mia", name) == data
    assert sorted(os.listdir(archived)) == ["empty.yaml", "random.yaml", "short.yaml"]
    with pytest.raises(NotFound):
        backend.compress("mia", "other")


def test_no_other_conversation_gets_the_number_of_a_compressed_one(backend: Backend) -> None:
    """ext4 gives a number again as soon as its file has gone."""
    numbers = []
    for turn in range(20):
        backend.append("mia", [record("x" * 1000, time=f"2024-01-15T10:30:{turn:02d}Z")])
        numbers.append(backend.stat("mia").id)
        backend.compress("mia", backend.archive("mia"))
    assert len(set(numbers)) == 20
    assert sorted(archive.stat.id for archive in backend.archives("mia")) == sorted(numbers)


def test_a_second_try_is_known_in_a_compressed_newest_archive(on_files: Callable[..., Backend]) -> None:
    one = on_files()
    one.append("mia", records(0, 50))
    one.compress("mia", one.archive("mia"))
    for server in (one, on_files()):
        assert server.append("mia", records(0, 50)).stored == 0


def test_a_compressed_archive_can_be_renamed_touched_and_has_its_name_for_itself(backend: Backend) -> None:
    backend.append("mia", records(0, 50))
    backend.archive("mia", "refund")
    number = backend.stat("mia", "refund").id
    backend.compress("mia", "refund")
    backend.rename_archive("mia", "refund", "other")
    backend.set_times("mia", "other", 1_000_000_123)
    assert backend.stat("mia", "other")[:3] == (number, len(joined(records(0, 50))), 1_000_000_123)
    backend.append("mia", records(50, 51))
    for attempt in (
        lambda: backend.archive("mia", "other"),
        lambda: backend.put_archive("mia", "other", b"x", 1),
    ):
        with pytest.raises(AlreadyExists):
            attempt()
    backend.archive("mia", "third")
    with pytest.raises(AlreadyExists):
        backend.rename_archive("mia", "third", "other")
    assert stored(backend, "mia", "other") == joined(records(0, 50))


def test_a_compressed_archive_is_restored_with_its_number_and_grows_on(backend: Backend, archived: Path) -> None:
    backend.append("mia", records(0, 50))
    backend.archive("mia", "refund")
    before = backend.stat("mia", "refund")
    backend.compress("mia", "refund")
    backend.append("mia", records(50, 60))
    swapped = backend.restore("mia", "refund")
    assert names_of(backend, "mia") == [swapped]
    assert backend.stat("mia")[:3] == before[:3]
    assert os.listdir(archived) == [f"{swapped}.yaml"]
    assert backend.append("mia", records(0, 61)).stored == 1
    assert stored(backend, "mia") == joined([*records(0, 50), *records(60, 61)])


def test_compressed_restored_and_compressed_again_it_keeps_its_number(backend: Backend) -> None:
    backend.append("mia", records(0, 50))
    number = backend.stat("mia").id
    for turn in range(5):
        backend.archive("mia", f"turn {turn}")
        assert backend.compress("mia", f"turn {turn}") > 0
        backend.restore("mia", f"turn {turn}")
        assert backend.stat("mia").id == number
    assert stored(backend, "mia") == joined(records(0, 50))


# Beside readers


def test_open_readers_go_on_reading_and_the_room_is_freed_once_they_are_done(backend: Backend, archived: Path) -> None:
    data = noise(200_000)
    backend.put_archive("mia", "refund", data, 1)
    backend.put_archive("mia", "other", b"x" * 1000, 1)
    with backend.open("mia", "refund") as reader:
        assert backend.compress("mia", "refund") > 0
        assert reader.read_all() == data
        assert stored(backend, "mia", "refund") == data
        backend.compress("mia", "other")
        assert reader.read_all() == data
    backend.compress("mia", "refund")
    assert sum(path.stat().st_size for path in archived.glob(".*")) == 0
    assert stored(backend, "mia", "refund") == data


def test_a_reader_in_another_process_is_not_cut_off_either(backend: Backend, archived: Path) -> None:
    data = noise(200_000)
    backend.put_archive("mia", "refund", data, 1)
    code = "import sys; file = open(sys.argv[1], 'rb'); print(flush=True); input(); print(len(file.read()))"
    arguments = [sys.executable, "-c", code, str(archived / "refund.yaml")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        backend.compress("mia", "refund")
        assert process.communicate(b"\n")[0] == b"200000\n"


def test_a_reader_of_the_compressed_form_stays_readable_when_it_is_restored_and_grows(backend: Backend) -> None:
    backend.append("mia", records(0, 50))
    backend.archive("mia", "refund")
    backend.compress("mia", "refund")
    with backend.open("mia", "refund") as reader:
        before = reader.stat()
        backend.restore("mia", "refund")
        backend.append("mia", records(50, 51))
        assert reader.read_all() == joined(records(0, 50))
        assert reader.stat()[:3] == before[:3]


def test_where_nobody_can_tell_who_reads_nothing_is_compressed(
    backend: Backend, archived: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_lease", lambda _: False)
    backend.put_archive("mia", "refund", noise(10_000), 1)
    assert backend.compress("mia", "refund") == 0
    assert os.listdir(archived) == ["refund.yaml"]


# Killed, raced


#: What compressing changes.
CHANGES = ((files, "rename_new"), (os, "unlink"), (os, "ftruncate"))


@pytest.mark.parametrize("step", range(6))
def test_a_compressor_killed_anywhere_loses_nothing_and_the_next_finishes(
    on_files: Callable[..., Backend], archived: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    backend = on_files(fsync="never", archiveThreshold="0")
    backend.append("mia", records(0, 100))
    backend.archive("mia", "refund")
    before = backend.stat("mia", "refund")
    with killed_at(step, monkeypatch, *CHANGES) as done:
        backend.compress("mia", "refund")
    assert ("finished" in done) == (step >= 4), done
    again = on_files(fsync="never", archiveThreshold="0")
    for _ in range(2):
        assert names_of(again, "mia") == ["refund"]
        assert again.stat("mia", "refund")[:3] == before[:3]
        assert stored(again, "mia", "refund") == joined(records(0, 100))
        again.compress("mia", "refund")
    assert not (archived / "refund.yaml").exists()
    assert sum(path.stat().st_size for path in archived.glob(".*.id")) == 0


@pytest.mark.parametrize("step", range(5))
def test_restoring_a_compressed_archive_and_killed_anywhere_loses_nothing(
    on_files: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    backend = on_files(fsync="never", archiveThreshold="0")
    backend.append("mia", records(0, 100))
    backend.archive("mia", "refund")
    number = backend.stat("mia", "refund").id
    backend.compress("mia", "refund")
    with killed_at(step, monkeypatch, *CHANGES) as done:
        backend.restore("mia", "refund")
    assert ("finished" in done) == (step >= 3), done
    again = on_files(fsync="never", archiveThreshold="0")
    if done[-1:] == ["rename_new"]:
        # The one moment in which it is seen twice: the other order would show it nowhere.
        assert stored(again, "mia") == stored(again, "mia", "refund") == joined(records(0, 100))
        assert again.stat("mia").id == number != again.stat("mia", "refund").id
    else:
        assert "finished" in done or again.stat("mia", "refund").id == number
    if "finished" not in done:
        assert again.restore("mia", "refund", swap=False) is None
    assert again.archives("mia") == []
    assert everything(again, "mia") == [one.data for one in records(0, 100)]
    assert again.stat("mia").id == number


def half_restored(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that is the running conversation already, for whoever restored it was killed."""
    backend.append("mia", records(0, 100))
    backend.archive("mia", "refund")
    backend.compress("mia", "refund")
    with killed_at(2, monkeypatch, *CHANGES) as done:
        backend.restore("mia", "refund")
    assert done == ["ftruncate", "rename_new"]
    assert names_of(backend, "mia") == ["refund"]


@pytest.mark.parametrize("how", ["restore", "check"])
@pytest.mark.parametrize("more", [0, 3])
def test_an_archive_that_is_running_already_is_not_doubled(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, how: str, more: int
) -> None:
    half_restored(backend, monkeypatch)
    backend.append("mia", records(100, 100 + more))
    if how == "restore":
        assert backend.restore("mia", "refund") is None
    else:
        (found, *_) = backend.check("mia", repair=False)
        assert (found.place, found.what) == (
            "archived/refund.yaml.gz",
            "was restored, and is the running conversation already",
        )
        assert all(one.repaired for one in backend.check("mia", repair=True))
    assert backend.archives("mia") == []
    assert stored(backend, "mia") == joined(records(0, 100 + more))
    assert list(backend.check("mia", repair=False)) == []


@pytest.mark.parametrize("running", [joined(records(0, 99)), joined(records(0, 99)) + joined(records(300, 310)), b""])
def test_an_archive_is_only_taken_away_if_the_running_one_has_all_of_it(
    backend: Backend, users: Path, monkeypatch: pytest.MonkeyPatch, running: bytes
) -> None:
    half_restored(backend, monkeypatch)
    (users / "mia/dialogs/current.yaml").write_bytes(running)
    list(backend.check("mia", repair=True))
    assert stored(backend, "mia", "refund") == joined(records(0, 100))
    swapped = backend.restore("mia", "refund")
    assert stored(backend, "mia") == joined(records(0, 100))
    if running:
        assert swapped is not None
        assert stored(backend, "mia", swapped) == running


def test_an_archive_in_both_forms_moves_as_one(backend: Backend, archived: Path) -> None:
    for name in ("refund", "other"):
        backend.put_archive("mia", name, joined(records(0, 100)), 1)
        (archived / f"{name}.yaml.gz").write_bytes(gzip.compress(joined(records(0, 100))))
    backend.rename_archive("mia", "refund", "moved")
    backend.restore("mia", "other")
    assert names_of(backend, "mia") == ["moved"]
    assert stored(backend, "mia") == stored(backend, "mia", "moved") == joined(records(0, 100))


def test_another_conversation_under_the_compressed_name_is_not_taken_away(backend: Backend, archived: Path) -> None:
    backend.put_archive("mia", "refund", joined(records(0, 100)), 1)
    other = archived / "refund.yaml.gz"
    other.write_bytes(gzip.compress(joined(records(100, 200))))
    assert backend.compress("mia", "refund") == 0
    assert stored(backend, "mia", "refund") == joined(records(0, 100))
    assert gzip.decompress(other.read_bytes()) == joined(records(100, 200))


@pytest.mark.parametrize("how", ["restore", "rename", "check"])
@pytest.mark.parametrize("what", ["another", "a damaged one", "one made here", "one made here, and damaged"])
def test_another_conversation_under_the_compressed_name_does_not_come_back_as_an_archive(
    backend: Backend, archived: Path, monkeypatch: pytest.MonkeyPatch, how: str, what: str
) -> None:
    """As when a process was killed that wrote an archive anew."""
    other = archived / "refund.yaml.gz"
    if what.startswith("one made here"):
        backend.put_archive("mia", "refund", joined(records(0, 101)), 1)
        backend.compress("mia", "refund")
        with killed_at(0, monkeypatch, *CHANGES):
            assert backend.rewrite("mia", "refund", backend.stat("mia", "refund"), joined(records(0, 100)))
        if what.endswith("damaged"):
            # The plain one has as many bytes then, so that they are compared.
            (archived / "refund.yaml").write_bytes(joined(records(0, 101)))
            os.truncate(other, other.stat().st_size - 100)
    else:
        backend.put_archive("mia", "refund", joined(records(0, 100)), 1)
        other.write_bytes(damaged("cut off") if what == "a damaged one" else gzip.compress(joined(records(100, 200))))
    plain, packed = (archived / "refund.yaml").read_bytes(), other.read_bytes()
    assert stored(backend, "mia", "refund") == plain
    if how == "restore":
        backend.restore("mia", "refund")
        assert backend.archives("mia") == []
        assert stored(backend, "mia") == plain
    elif how == "rename":
        backend.rename_archive("mia", "refund", "moved")
        assert names_of(backend, "mia") == ["moved"]
        assert stored(backend, "mia", "moved") == plain
    else:
        assert all(one.repaired for one in backend.check("mia", repair=True))
        assert names_of(backend, "mia") == ["refund"]
    (aside,) = backend.set_asides("mia")
    with backend.open_set_aside("mia", aside.name) as reader:
        assert reader.read_all() == packed


@pytest.mark.parametrize("what", ["compress", "restore", "rename"])
def test_what_happens_to_an_archive_while_it_is_compressed_wins(
    on_files: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Making the other form takes no lock; putting it in place does, and looks again."""
    one, other = (on_files(fsync="never", archiveThreshold="0") for _ in range(2))
    one.append("mia", records(0, 100))
    one.archive("mia", "refund")
    before = one.stat("mia", "refund")
    write = gzipped.write

    def late(source: Reader, size: int, target: int, token: bytes) -> int:
        monkeypatch.undo()
        if what == "compress":
            assert other.compress("mia", "refund") > 0
        elif what == "restore":
            other.restore("mia", "refund")
            other.append("mia", records(100, 101))
        else:
            other.rename_archive("mia", "refund", "other")
        return write(source, size, target, token)

    monkeypatch.setattr(gzipped, "write", late)
    assert one.compress("mia", "refund") == 0
    archive = {"compress": "refund", "restore": None, "rename": "other"}[what]
    assert one.stat("mia", archive).id == before.id
    assert stored(one, "mia", archive) == joined(records(0, 101 if what == "restore" else 100))
    assert len(one.archives("mia")) == (what != "restore")


def test_an_archive_that_another_server_compressed_just_before_is_left_to_it(
    on_files: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (on_files(fsync="never") for _ in range(2))
    one.put_archive("mia", "refund", noise(10_000), 1)
    reader = files.FileReader

    def late(path: str, number_of: files.NumberOf) -> files.FileReader:
        monkeypatch.undo()
        assert other.compress("mia", "refund") > 0
        return reader(path, number_of)

    monkeypatch.setattr(files, "FileReader", late)
    assert one.compress("mia", "refund") == 0
    assert stored(one, "mia", "refund") == noise(10_000)


# What other programs made


@pytest.mark.parametrize("form", ["plain", "members", "named", "padded"])
def test_what_gzip_made_is_read_too(backend: Backend, archived: Path, form: str) -> None:
    data = noise(3_000_000)
    backend.put_archive("mia", "refund", data, 5_000_000_000)
    path = archived / "refund.yaml"
    if form == "named":
        subprocess.run(["gzip", path], check=True)
    else:
        halves = [data[:1_000_000], data[1_000_000:]] if form == "members" else [data]
        packed = b"".join(map(gzip.compress, halves)) + (b"\0" * 512 if form == "padded" else b"")
        path.unlink()
        (archived / "refund.yaml.gz").write_bytes(packed)
    assert backend.stat("mia", "refund").size == len(data)
    chance = random.Random(1)
    with backend.open("mia", "refund") as reader:
        assert reader.read_all() == data
        for _ in range(10):
            offset = chance.randrange(len(data))
            assert reader.read(offset, 5000) == data[offset : offset + 5000]
        assert reader.read(len(data), 10) == b""
    assert backend.compress("mia", "refund") == 0
    assert backend.restore("mia", "refund") is None
    assert stored(backend, "mia") == data
    assert backend.archives("mia") == []


def test_a_copy_of_the_whole_tree_has_numbers_of_its_own(backend: Backend, users: Path, tmp_path: Path) -> None:
    backend.append("mia", records(0, 100))
    backend.compress("mia", backend.archive("mia", "refund"))
    subprocess.run(["cp", "-a", users.parent.parent / "journal", tmp_path / "copy"], check=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "copy").rename(tmp_path / "there/journal")
    copy = open_filesystem(tmp_path / "there", archiveThreshold="0")
    assert stored(copy, "mia", "refund") == joined(records(0, 100))
    assert copy.stat("mia", "refund").id != backend.stat("mia", "refund").id
    number = copy.stat("mia", "refund").id
    copy.restore("mia", "refund")
    assert copy.stat("mia").id == number


def test_a_damaged_one_is_an_error_where_it_is_damaged(backend: Backend, archived: Path) -> None:
    data = noise(200_000)
    backend.put_archive("mia", "refund", data, 1)
    backend.compress("mia", "refund")
    path = archived / "refund.yaml.gz"
    packed = bytearray(path.read_bytes())
    packed[60_000:60_100] = bytes(100)
    path.write_bytes(packed)
    assert backend.stat("mia", "refund").size == len(data)
    with backend.open("mia", "refund") as reader:
        assert reader.read(0, 1000) == data[:1000]
        with pytest.raises(OSError, match="damaged"):
            reader.read_all()
    with pytest.raises(OSError, match="damaged"):
        backend.restore("mia", "refund")
    assert names_of(backend, "mia") == ["refund"]


def damaged(how: str) -> bytes:
    """What gzip made, in two members of 50 records, and what became of it."""
    first, second = (bytearray(gzip.compress(joined(records(n, n + 50)), mtime=0)) for n in (0, 50))
    if how == "a flipped byte in the first":
        first[len(first) // 2] ^= 0xFF
    elif how == "a wrong CRC":
        second[-6] ^= 1
    elif how == "a wrong size":
        second[-1] ^= 1
    elif how == "cut off":
        del second[-20:]
    elif how == "cut off in the trailer":
        del second[-3:]
    return bytes(first + second) + (b"garbage" if how == "something behind it" else b"")


def readable_of(backend: Backend) -> bytes:
    """What can be read of it, piece by piece, before the error."""
    read = b""
    with backend.open("mia", "refund") as reader:
        while True:
            try:
                piece = reader.read(len(read), 100)
            except OSError:
                break
            assert piece, "damage is no end"
            read += piece
        with pytest.raises(OSError, match=r"archived/refund\.yaml of user 'mia' is damaged: `potofs fsck --repair`"):
            reader.read(len(read), 1)
        assert reader.stat().size == len(read) + 1, "whoever reads as much as there is said to be meets the error"
    return read


DAMAGES = (
    "a flipped byte in the first",
    "a wrong CRC",
    "a wrong size",
    "cut off",
    "cut off in the trailer",
    "something behind it",
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_one_of_another_program_is_kept_whole_and_what_can_be_read_takes_its_place(
    backend: Backend, archived: Path, how: str
) -> None:
    backend.append("mia", records(200, 202))
    path = archived / "refund.yaml.gz"
    path.write_bytes(damaged(how))
    readable = readable_of(backend)
    # What a flipped byte inflates to only the checksum tells from what was said.
    assert joined(records(0, 100)).startswith(readable) or how == "a flipped byte in the first"
    with pytest.raises(OSError, match="damaged"):
        backend.restore("mia", "refund")
    assert stored(backend, "mia") == joined(records(200, 202)), "the running conversation stays where it is"
    assert sorted(entry.name for entry in archived.iterdir()) == ["refund.yaml.gz"]
    assert path.read_bytes() == damaged(how)
    (found,) = [one for one in backend.check("mia", repair=True) if one.place == "archived/refund.yaml.gz"]
    assert f"is damaged: only its first {len(readable)} bytes can be read" in found.what
    assert found.repaired
    (aside,) = backend.set_asides("mia")
    assert f"the whole file is rejected/{aside.name}.yaml" in found.what
    with backend.open_set_aside("mia", aside.name) as reader:
        assert reader.read_all() == damaged(how)
    assert stored(backend, "mia", "refund") == readable[: readable.rfind(b"\n---\n") + 5]
    assert sorted(entry.name for entry in archived.iterdir()) == ["refund.yaml"]
    assert list(backend.check("mia", repair=False)) == []


@pytest.mark.parametrize("size", [1, 1000, 2_000_000])
@pytest.mark.parametrize("at", [-6, -12])
def test_every_byte_before_a_wrong_checksum_or_a_missing_one_is_read(
    backend: Backend, archived: Path, at: int, size: int
) -> None:
    data = noise(size)
    packed = bytearray(gzip.compress(data, mtime=0))
    if at == -6:
        packed[at] ^= 1
    else:
        del packed[-8:]
    backend.create_user("mia", b"")
    (archived / "refund.yaml.gz").write_bytes(packed)
    with backend.open("mia", "refund") as reader:
        read = bytearray()

        def read_on() -> None:
            while piece := reader.read(len(read), 1 << 17):
                read.extend(piece)

        with pytest.raises(OSError, match="damaged"):
            read_on()
        assert read == data
        assert reader.stat().size == size + 1
        with pytest.raises(OSError, match="damaged"):
            reader.read(size, 1)
        assert reader.read(0, 10) == data[:10]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_one_is_not_the_same_as_what_can_be_read_of_it(backend: Backend, archived: Path, how: str) -> None:
    backend.create_user("mia", b"")
    path = archived / "refund.yaml.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damaged(how))
    readable = readable_of(backend)
    (archived / "refund.yaml").write_bytes(readable)
    with pytest.raises(OSError, match="damaged"):
        backend.compress("mia", "refund")
    assert path.read_bytes() == damaged(how)
    (found,) = [one for one in backend.check("mia", repair=True) if one.place == "archived/refund.yaml.gz"]
    assert "is damaged" in found.what
    assert found.repaired
    (aside,) = backend.set_asides("mia")
    with backend.open_set_aside("mia", aside.name) as reader:
        assert reader.read_all() == damaged(how)
    assert stored(backend, "mia", "refund") == readable


def test_what_is_written_anew_keeps_a_damaged_one_aside(backend: Backend, archived: Path) -> None:
    backend.append("mia", records(200, 202))
    (archived / "refund.yaml.gz").write_bytes(damaged("cut off"))
    assert backend.rewrite("mia", "refund", backend.stat("mia", "refund"), joined(records(0, 50)))
    assert stored(backend, "mia", "refund") == joined(records(0, 50))
    (aside,) = backend.set_asides("mia")
    with backend.open_set_aside("mia", aside.name) as reader:
        assert reader.read_all() == damaged("cut off")


def test_padding_may_be_as_long_as_it_likes(backend: Backend, archived: Path) -> None:
    backend.append("mia", records(200, 202))
    (archived / "refund.yaml.gz").write_bytes(gzip.compress(joined(records(0, 50))) + bytes(3_000_000))
    backend.restore("mia", "refund")
    assert stored(backend, "mia") == joined(records(0, 50))


def test_what_is_no_gzip_is_no_archive(backend: Backend, archived: Path) -> None:
    backend.create_user("mia", b"")
    (archived / "refund.yaml.gz").write_bytes(b"no gzip")
    assert backend.archives("mia") == []
    with pytest.raises(NotFound):
        backend.stat("mia", "refund")


# Settings


def test_beside_programs_without_the_lock_only_what_was_left_alone_is_compressed(
    on_files: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files(foreignWriters="true", fsync="never")
    backend.append("mia", records(0, 99))
    backend.archive("mia", "refund")
    backend.set_times("mia", "refund", 1)
    assert backend.compress("mia", "refund") == 0
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 3601 * 10**9)
    assert backend.compress("mia", "refund") > 0
    assert stored(backend, "mia", "refund") == joined(records(0, 99))


def test_beside_programs_without_the_lock_a_failed_append_is_isolated_and_not_cut_back(
    on_files: Callable[..., Backend], users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files(foreignWriters="true", fsync="never")
    backend.append("mia", records(0, 1))
    write = os.write

    def short(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(descriptor, data[:20])

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space left"):
        backend.append("mia", records(1, 2))
    monkeypatch.undo()
    backend.append("mia", records(2, 3))
    torn = records(1, 2)[0].data[:20]
    assert stored(backend, "mia").startswith(joined(records(0, 1)) + torn)
    assert stored(backend, "mia").endswith(b"\n---\n" + joined(records(2, 3)))


def test_a_fence_that_is_closed_meanwhile_leaves_the_archive_as_it_was(
    on_files: Callable[..., Backend], archived: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files(fsync="never")
    backend.put_archive("mia", "refund", noise(10_000), 1)
    write = gzipped.write

    def late(source: Reader, size: int, target: int, token: bytes) -> int:
        backend.set_fence(Fence("frozen", 1))
        return write(source, size, target, token)

    monkeypatch.setattr(gzipped, "write", late)
    with pytest.raises(Fenced):
        backend.compress("mia", "refund")
    assert os.listdir(archived) == ["refund.yaml"]
