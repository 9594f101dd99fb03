"""The totals on files: exact after every change, cheap, and true again after whatever happened."""

import errno
import fcntl
import gzip
import os
import random
import shutil
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from potofs.backends.base import Archived, Backend, Fence, Totals
from potofs.backends.filesystem import totals
from potofs.backends.filesystem.accounts import Accounts
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.config import Where
from potofs.errors import DeadlineExceeded, WouldBlock
from potofs.journal import reading
from tests.backends import writer
from tests.backends.killed import Killed
from tests.backends.kit import joined, open_filesystem, record, records


def walked(users: Path) -> Totals:
    """What reading everything says."""
    backend = FilesystemBackend(Where("file", str(users.parent)), reading.marks)
    return backend._accounts.walked()


@pytest.fixture
def backend(on_files: Callable[..., Backend]) -> Backend:
    return on_files(fsync="never", archiveThreshold="20")


def test_totals_are_what_reading_everything_says_after_every_change(
    on_files: Callable[..., Backend], users: Path
) -> None:
    servers = [on_files(fsync="never", archiveThreshold="20") for _ in range(2)]
    chance = random.Random(2)
    assert servers[0].totals() == Totals(0, 0, 0, 0, 0, None, None)
    for number in range(300):
        user, backend = chance.choice(["mia", "noah", "a/b"]), chance.choice(servers)
        archives = [archive.name for archive in backend.archives(user)]
        step = chance.randrange(8)
        if step == 0 and archives:
            backend.compress(user, chance.choice(archives))
        elif step == 1 and archives:
            backend.restore(user, chance.choice(archives))
        elif step == 2 and archives:
            backend.rename_archive(user, chance.choice(archives), f"name {number}")
        elif step == 3 and archives:
            backend.set_times(user, chance.choice(archives), number * 10**12)
        elif step == 4:
            backend.put_archive(user, f"put {number}", joined(records(number, number + 3)) + b"torn", 10**15)
        else:
            backend.append(user, records(number, number + chance.randrange(1, 9)))
        assert chance.choice(servers).totals() == walked(users)


def test_totals_of_messages_and_times(backend: Backend) -> None:
    backend.create_user("zoe", b"")
    backend.append("mia", [record("late", time="2024-03-01T00:00:00.000Z")])
    backend.archive("mia")
    backend.append("mia", [record("early", time="2024-01-01T00:00:00.000Z"), record("between", time="2024-02-01")])
    size = sum(archive.stored_size for archive in backend.archives("mia")) + backend.stat("mia").size
    early, late = 1_704_067_200 * 10**9, 1_709_251_200 * 10**9
    assert backend.totals() == Totals(2, 1, 1, 3, size, early, late)


@pytest.mark.parametrize("year", ["0001", "1600", "2263", "9999"])
def test_messages_of_any_year_are_stored_and_counted(on_files: Callable[..., Backend], users: Path, year: str) -> None:
    """Figures have 64 bits, and times of messages have more."""
    opened = len(os.listdir("/proc/self/fd"))
    backend = on_files(fsync="never", archiveThreshold="0", maxConversationLength="0")
    far = record("far", time=f"{year}-01-01T00:00:00.000Z")
    assert backend.append("mia", [far]).stored == 1
    assert backend.append("mia", [far]).stored == 0
    found = backend.totals()
    assert found.first_ns == found.last_ns
    assert abs(found.first_ns or 0) > 1 << 62, "as far away as it can be said"
    backend.archive("mia", "far")
    backend.append("mia", records(0, 600))  # So many that a sidecar is kept.
    backend.append("mia", [record("further", time=f"{year}-01-01T00:00:00.000Z")])
    backend.archive("mia", "long")
    backend.restore("mia", "far")
    backend.put_current("noah", far.data, 10**15)
    backend.put_archive("noah", "far", far.data, 10**15)
    backend.set_times("noah", "far", 10**19)  # In 2286.
    assert backend.totals() == walked(users)
    assert backend.totals().messages == 1 + 601 + 2
    other = on_files(fsync="never")
    assert other.append("mia", records(900, 901)).stored == 1
    assert other.totals() == backend.totals() == walked(users)
    for user in (None, "mia", "noah"):
        assert list(other.check(user, repair=True)) == []
    for server in (backend, other):
        server.close()
    assert len(os.listdir("/proc/self/fd")) == opened


@pytest.mark.expects_warning("could not be counted")
def test_whatever_goes_wrong_in_counting_the_append_is_stored_and_nothing_stays_open(
    backend: Backend, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.append("mia", records(0, 1))

    def fails(*_: object) -> None:
        raise struct.error("int too large to convert")

    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(totals.TotalsFile, "change", fails)
    for number in range(1, 4):
        assert backend.append("mia", records(number, number + 1)).stored == 1
    assert len(os.listdir("/proc/self/fd")) == opened
    monkeypatch.undo()
    backend.append("mia", records(4, 5))
    assert backend.totals() == walked(users)


def test_an_append_that_fails_after_it_was_written_leaves_nothing_open(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.append("mia", records(0, 1))

    def killed(*_: object, **more: object) -> None:
        raise Killed

    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(Accounts, "count", killed)
    with pytest.raises(Killed):
        backend.append("mia", records(1, 2))
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_change_under_way_while_it_is_closed_writes_into_no_other_file(
    backend: Backend, users: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whose number would be that of the file that was closed."""
    backend.append("mia", records(0, 1))
    real = totals.TotalsFile._write
    closing = threading.Thread(target=backend.close)
    others: list[int] = []

    def interrupted(*arguments: Any) -> bytes:
        closing.start()
        closing.join(0.1)
        others.extend(os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT) for _ in range(4))
        return real(*arguments)

    monkeypatch.setattr(totals.TotalsFile, "_write", interrupted)
    assert backend.append("mia", records(1, 2)).stored == 1
    closing.join()
    for descriptor in others:
        os.close(descriptor)
    assert (tmp_path / "other").stat().st_size == 0
    monkeypatch.undo()
    assert backend.totals() == walked(users)
    backend.append("mia", records(2, 3))
    assert backend.totals() == walked(users), "and it is opened again"
    backend.close()


def test_totals_read_no_conversation_and_look_at_no_user(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, users: Path
) -> None:
    for user in ("mia", "noah"):
        backend.append(user, records(0, 30))
    expected = backend.totals()
    assert expected == walked(users)
    opened: list[str] = []
    real = os.open

    def noted(path: str, *arguments: int) -> int:
        opened.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", noted)
    monkeypatch.setattr(os, "scandir", None)
    assert backend.totals() == expected
    # The users changed last in two shards, by another open file: whether their records followed.
    assert len([path for path in opened if path.endswith(".lock")]) <= 2
    assert [path for path in opened if path.endswith((".yaml", ".gz"))] == []


@pytest.mark.parametrize("written", [0, 1])
def test_a_process_killed_while_it_counts_is_made_up_for_by_the_next_change(
    on_files: Callable[..., Backend], users: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Before the shard's record, or between that and the user's."""
    backend = on_files(fsync="never")
    backend.append("mia", records(0, 3))
    before = backend.totals()
    pwrite, done = os.pwrite, [0]

    def killed(descriptor: int, data: bytes, offset: int) -> int:
        if done[0] == written:
            raise Killed
        done[0] += 1
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", killed)
    with pytest.raises(Killed):
        backend.append("mia", records(3, 5))
    monkeypatch.undo()
    for server in (on_files(fsync="never"), backend):
        assert server.totals() == before, "the append is not counted yet, and not by half"
    other = on_files(fsync="never")
    other.append("mia", records(5, 6))
    assert backend.totals() == other.totals() == walked(users)


def test_what_cannot_be_counted_is_done_all_the_same(
    backend: Backend, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.append("mia", records(0, 1))

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert backend.append("mia", records(1, 2)).stored == 1
    assert backend.totals() == walked(users), "and read where it cannot be kept"
    monkeypatch.undo()
    backend.append("mia", records(2, 3))
    assert backend.totals() == walked(users)


@pytest.mark.parametrize("foreign", ["false", "true"])
def test_on_a_full_disk_what_cannot_be_kept_is_read(
    on_files: Callable[..., Backend], users: Path, monkeypatch: pytest.MonkeyPatch, foreign: str
) -> None:
    backend = on_files(fsync="never", foreignWriters=foreign)
    backend.append("mia", records(0, 3))
    backend.totals()
    with (users / "mia/dialogs/current.yaml").open("ab") as file:
        file.write(joined(records(3, 5)))
    right = walked(users)
    for sums in (users.parent / "system/totals", None):
        if sums is not None and foreign == "false":
            # As after the machine's start.
            sums.unlink()

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        assert backend.totals() == right
        monkeypatch.undo()
    assert backend.totals() == right


def test_a_disk_that_fails_is_told_of_by_the_files_name(
    backend: Backend, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.append("mia", records(0, 1))

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(OSError, match="output error") as caught:
        backend.totals()
    assert caught.value.filename == str(users.parent / "system/totals")


def test_one_who_was_stopped_in_a_shard_holds_up_nobody_for_long(
    backend: Backend, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.append("mia", records(0, 1))
    backend.totals()
    monkeypatch.setattr(totals, "_PATIENCE", 0.002)
    with (users.parent / "system/totals").open("r+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, totals._LOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
        assert backend.append("mia", records(1, 2)).stored == 1
        with pytest.raises(DeadlineExceeded):
            backend.totals()
    backend.append("mia", records(2, 3))
    assert backend.totals() == walked(users)


def test_one_who_may_not_wait_counts_nothing_that_has_to_be_read(
    on_files: Callable[..., Backend], users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files(fsync="never")
    backend.append("mia", records(0, 1))
    (users / "mia/dialogs/archived/older.yaml").write_bytes(joined(records(10, 5000)))
    (users / "mia/dialogs/archived/newest.yaml").write_bytes(joined(records(5, 9)))
    read: list[str] = []
    real = Accounts.read

    def noted(self: Accounts, user: str, archive: Archived) -> tuple[int, int, int] | None:
        read.append(archive.name)
        return real(self, user, archive)

    monkeypatch.setattr(Accounts, "read", noted)
    assert backend.append("mia", records(1, 2), wait=False).stored == 1
    assert read == []
    with pytest.raises(WouldBlock):
        backend.append("mia", records(2, 3), wait=False)
    assert backend.append("mia", records(2, 3)).stored == 1
    assert sorted(read) == ["newest", "older"]
    assert backend.append("mia", records(3, 4), wait=False).stored == 1
    assert len(read) == 2
    assert backend.totals() == walked(users)
    (users / "mia/dialogs/archived/another.yaml").write_bytes(joined(records(5, 9)))
    assert backend.append("mia", records(4, 5), wait=False).stored == 1
    assert backend.totals() == walked(users), "whoever asks has it counted"


def test_one_who_may_not_wait_does_not_wait_for_a_shard(
    backend: Backend, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(backend, FilesystemBackend)
    backend.append("mia", records(0, 1))
    backend.totals()
    monkeypatch.setattr(totals, "_PATIENCE", 60)
    started = time.monotonic()
    with (users.parent / "system/totals").open("r+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, totals._LOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
        assert backend.append("mia", records(1, 2), wait=False).stored == 1
    with ExitStack() as held:
        for guard in backend._accounts.sums._guards:
            held.enter_context(guard)
        assert backend.append("mia", records(2, 3), wait=False).stored == 1
    assert time.monotonic() - started < 20
    assert backend.append("mia", records(3, 4), wait=False).stored == 1
    assert backend.totals() == walked(users)


def test_threads_and_processes_together_count_every_message_once(tmp_path: Path, users: Path) -> None:
    options = ("fsync=never", "archiveThreshold=30")
    open_filesystem(tmp_path).totals()
    processes = [writer.start(tmp_path, user, user, 0, 60, *options, threads=2) for user in ("mia", "noah")]
    for process in processes:
        writer.begin(process)
    backend = open_filesystem(tmp_path, fsync="never", archiveThreshold="30")
    threads = [
        threading.Thread(target=lambda user=user: [backend.append(user, [one]) for one in records(0, 100)])
        for user in ("mia", "zoe", "zoe2")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        process.communicate(timeout=60)
    assert backend.totals() == walked(users)
    assert backend.totals().messages == 2 * 120 + 300


def test_after_processes_were_killed_the_next_change_makes_it_exact(tmp_path: Path, users: Path) -> None:
    chance = random.Random(4)
    open_filesystem(tmp_path).totals()
    for turn in range(8):
        process = writer.start(tmp_path, "mia", "w", turn * 1000, 0, "fsync=never", "archiveThreshold=30")
        assert process.stdout is not None
        writer.begin(process)
        for _ in range(chance.randint(1, 200)):
            process.stdout.readline()
        os.kill(process.pid, 9)
        process.communicate(timeout=60)
    backend = open_filesystem(tmp_path, fsync="never")
    backend.append("mia", records(9000, 9001))
    assert backend.totals() == walked(users)


def test_a_user_that_only_has_what_was_set_aside_counts(backend: Backend, users: Path) -> None:
    backend.totals()
    backend.set_aside("mia", b"refused")
    assert backend.totals() == walked(users) == Totals(1, 0, 0, 0, 0, None, None)


# Counting anew


def test_a_journal_that_was_never_counted_is_counted_once(on_files: Callable[..., Backend], users: Path) -> None:
    backend = on_files(fsync="never")
    for user in ("mia", "noah"):
        backend.append(user, records(0, 150))
    shutil.rmtree(users.parent / "system")
    for path in users.rglob(".*"):
        path.unlink()
    fresh = on_files(fsync="never")
    assert fresh.totals() == walked(users)
    fresh.append("mia", records(150, 151))
    assert fresh.totals() == walked(users)


def test_a_copy_of_the_tree_and_another_run_of_the_machine_are_counted_anew(
    backend: Backend, on_files: Callable[..., Backend], users: Path, tmp_path: Path
) -> None:
    backend.append("mia", records(0, 3))
    backend.totals()
    (tmp_path / "there").mkdir()
    shutil.copytree(users.parent, tmp_path / "there/journal")
    copied = tmp_path / "there/journal/system/totals"
    with copied.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(256 * 512))  # As if the machine had failed before it was on disk.
    assert open_filesystem(tmp_path / "there").totals() == walked(tmp_path / "there/journal/users")


def test_users_and_archives_removed_behind_its_back_are_made_up_for_by_counting_anew(
    backend: Backend, users: Path
) -> None:
    assert isinstance(backend, FilesystemBackend)
    for user in ("mia", "noah"):
        backend.append(user, records(0, 30))
    backend.totals()
    shutil.rmtree(users / "noah")
    for path in (users / "mia/dialogs/archived").iterdir():
        path.unlink()
    backend.recount()
    assert backend.totals() == walked(users)


def test_where_there_are_no_locks_for_ranges_everything_is_read(
    backend: Backend, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(totals.TotalsFile, "_lock", no_locks)
    assert backend.append("mia", records(0, 30)).stored == 30
    assert backend.totals() == walked(users)
    assert backend.totals().messages == 30


def test_one_damaged_archive_does_not_keep_the_others_from_being_read(backend: Backend, users: Path) -> None:
    backend.append("mia", records(0, 3))
    data = bytearray(gzip.compress(joined(records(3, 9))))
    data[12] ^= 0xFF
    (users / "mia/dialogs/archived/damaged.yaml.gz").write_bytes(data)
    backend.append("mia", records(9, 10))
    found = walked(users)
    assert (found.conversations, found.archives, found.messages) == (1, 1, 4)
    assert found == backend.totals()


def test_users_that_come_while_it_counts_anew_are_counted(backend: Backend, users: Path) -> None:
    assert isinstance(backend, FilesystemBackend)
    done = threading.Event()

    def add() -> None:
        number = 0
        while not done.is_set():
            number += 1
            backend.append(f"user {number}", records(0, 2))

    adding = threading.Thread(target=add)
    adding.start()
    for _ in range(3):
        backend.recount()
    done.set()
    adding.join()
    assert backend.totals() == walked(users)


def test_what_programs_without_the_lock_wrote_is_counted_where_they_are_expected(
    on_files: Callable[..., Backend], users: Path
) -> None:
    backend = on_files(fsync="never", foreignWriters="true")
    backend.append("mia", records(0, 3))
    backend.totals()
    with (users / "mia/dialogs/current.yaml").open("ab") as file:
        file.write(joined(records(3, 5)))
    (users / "noah/dialogs").mkdir(parents=True)
    (users / "noah/dialogs/current.yaml").write_bytes(joined(records(0, 1)))
    found = backend.totals()
    assert found == walked(users)._replace(users=found.users)
    assert found.messages == 6


def test_what_programs_without_the_lock_wrote_is_counted_at_the_next_change_elsewhere(
    backend: Backend, users: Path
) -> None:
    backend.append("mia", records(0, 3))
    backend.totals()
    with (users / "mia/dialogs/current.yaml").open("ab") as file:
        file.write(joined(records(3, 5)))
    backend.append("mia", records(5, 6))
    assert backend.totals() == walked(users)


def test_a_fence_does_not_keep_anybody_from_counting(backend: Backend, users: Path) -> None:
    backend.append("mia", records(0, 3))
    backend.set_fence(Fence("frozen", 1))
    assert backend.totals() == walked(users)


def test_a_damaged_file_of_sums_is_made_anew(on_files: Callable[..., Backend], users: Path) -> None:
    backend = on_files(fsync="never")
    backend.append("mia", records(0, 3))
    for seed in range(5):
        (users.parent / "system/totals").write_bytes(random.Random(seed).randbytes(5000))
        other = on_files(fsync="never")
        assert other.totals() == walked(users)
        assert list(other.check(None, repair=False)) == []


def test_the_index_of_archives_may_be_damaged_or_gone(on_files: Callable[..., Backend], users: Path) -> None:
    backend = on_files(fsync="never", archiveThreshold="5")
    for number in range(0, 50, 5):
        backend.append("mia", records(number, number + 5))
    index = users / "mia/.archives"
    data = bytearray(index.read_bytes())
    data[60] ^= 1
    index.write_bytes(data[:-7])
    backend.append("mia", records(50, 55))
    assert backend.totals() == walked(users)
    index.unlink()
    backend.append("mia", records(55, 60))
    assert backend.totals() == walked(users)
