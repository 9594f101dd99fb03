"""What is forced to disk, when, and what becomes of an append that the disk refuses."""

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from potofs.backends.base import Backend, Record
from potofs.backends.filesystem import durability, files
from potofs.backends.filesystem.conversations import Conversations, Opened
from potofs.backends.filesystem.sync import GroupSync
from potofs.errors import NotFound, WouldBlock
from tests.backends.kit import close_all, joined, names_of, open_filesystem, record, records, stored
from tests.mounts import wait_until


class Disk:
    """What the system was asked to make durable, in order, as paths below the users' folder; and what it answers."""

    def __init__(self, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._users = users
        self.asked: list[str] = []
        self.fails = False
        real = {name: getattr(os, name) for name in ("fdatasync", "fsync", "pwrite")}
        rename_new = files.rename_new

        def sync(descriptor: int) -> None:
            self._note("", os.readlink(f"/proc/self/fd/{descriptor}"))
            if self.fails:
                raise OSError(errno.EIO, "Input/output error")
            real["fdatasync"](descriptor)

        def rename(old: str, new: str) -> None:
            self._note("rename ", new)
            rename_new(old, new)

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            self._note("write again ", os.readlink(f"/proc/self/fd/{descriptor}"))
            written: int = real["pwrite"](descriptor, data, offset)
            return written

        monkeypatch.setattr(files, "rename_new", rename)
        for name, fake in {"fdatasync": sync, "fsync": sync, "pwrite": pwrite}.items():
            monkeypatch.setattr(os, name, fake)

    def _note(self, what: str, path: str) -> None:
        # Counts are derived, and never forced.
        if not path.endswith((".lock", ".archives", "system/totals")):
            self.asked.append(what + os.path.relpath(path, self._users))

    def take(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def disk(users: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(users, monkeypatch)


FOLDERS = ["mia/dialogs", "mia", "."]
CURRENT = "mia/dialogs/current.yaml"


def test_always_means_before_an_append_returns(on_files: Callable[..., Backend], disk: Disk) -> None:
    backend = on_files()
    disk.take()
    backend.append("mia", records(0, 1))
    assert disk.take() == [CURRENT, *FOLDERS], "and with it every folder up to that of all users"
    backend.append("mia", records(1, 5))
    assert disk.take() == [CURRENT]
    backend.append("mia", records(1, 5))
    assert disk.take() == [CURRENT], "the first try may not have come this far"
    assert backend.append_blocks
    assert not backend.sync_on_close


def test_no_server_relies_on_another_for_the_names_of_what_it_appended_to(
    on_files: Callable[..., Backend], disk: Disk
) -> None:
    on_files(fsync="never").append("mia", records(0, 1))
    assert disk.take()[1:] == [], "only the root was made durable, if that"
    on_files().append("mia", records(1, 2))
    assert disk.take()[-4:] == [CURRENT, *FOLDERS]


def test_close_means_when_it_is_told_to(on_files: Callable[..., Backend], disk: Disk) -> None:
    backend = on_files(fsync="close")
    disk.take()
    for number in range(10):
        backend.append("mia", records(number, number + 1), wait=False)
    assert disk.take() == []
    backend.sync("mia")
    assert disk.take() == [CURRENT, "mia/dialogs/archived", *FOLDERS]
    assert not backend.append_blocks
    assert backend.sync_on_close


def rest(users: Path) -> None:
    """Waits until whatever changes mia's archives gives their folder another time than it has."""
    changed = os.stat(users / "mia/dialogs/archived").st_ctime_ns
    wait_until(lambda: time.time_ns() - changed > 2 * durability._TICK, "the clock of files has moved on")


@pytest.mark.parametrize("fsync", ["always", "close", "never"])
def test_archives_that_were_on_disk_are_not_looked_at_again(
    on_files: Callable[..., Backend], disk: Disk, users: Path, looks: list[str], fsync: str
) -> None:
    """Of many, that would take longer than the disk, at each fsync or close."""
    backend = on_files(fsync=fsync)
    for number in range(3):
        backend.put_archive("mia", f"{number}", b"x", number)
    backend.append("mia", records(0, 1))
    rest(users)
    backend.sync("mia")
    disk.take()
    looks.clear()
    for number in range(1, 4):
        backend.append("mia", records(number, number + 1))
        backend.sync("mia")
    assert looks == []
    assert disk.take().count(CURRENT) >= 3
    backend.archive("mia", "new")
    disk.take()
    looks.clear()
    backend.sync("mia")
    assert looks == ["mia"]
    archives = ["new"] if fsync != "never" else ["0", "1", "2", "new"]
    assert disk.take() == [
        *(f"mia/dialogs/archived/{name}.yaml" for name in archives),
        "mia/dialogs/archived",
        *FOLDERS,
    ]


def test_what_another_server_has_archived_is_on_disk_when_it_was_told_to_be(
    on_files: Callable[..., Backend], disk: Disk, users: Path
) -> None:
    """That one was told never to wait for a disk, and archives what this one has appended, and what comes next."""
    backend, other = on_files(fsync="close"), on_files(fsync="never")
    backend.append("mia", records(0, 1))
    other.archive("mia", "first")
    rest(users)
    backend.sync("mia")
    assert "mia/dialogs/archived/first.yaml" in disk.take()
    for number, name in enumerate(["second", "third"], 1):
        backend.append("mia", records(number, number + 1))
        other.archive("mia", name)
    disk.take()
    backend.sync("mia")
    assert disk.take() == [
        "mia/dialogs/archived/second.yaml",
        "mia/dialogs/archived/third.yaml",
        "mia/dialogs/archived",
        *FOLDERS,
    ]


def test_what_is_archived_while_the_running_conversation_is_synced_is_found(
    on_files: Callable[..., Backend], disk: Disk, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, other = on_files(fsync="close"), on_files(fsync="never")
    backend.append("mia", records(0, 1))
    rest(users)
    backend.sync("mia")
    backend.append("mia", records(1, 2))
    opened = Conversations.open

    def open_late(self: Conversations, user: str, archive: str | None) -> Opened:
        if archive is None and not other.archives("mia"):
            other.archive("mia", "meanwhile")
        return opened(self, user, archive)

    disk.take()
    monkeypatch.setattr(Conversations, "open", open_late)
    backend.sync("mia")
    assert "mia/dialogs/archived/meanwhile.yaml" in disk.take()


def test_two_changes_within_one_tick_of_the_clock_are_not_taken_for_one(
    on_files: Callable[..., Backend], looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "_TICK", 3600 * 10**9)
    backend = on_files(fsync="close")
    backend.append("mia", records(0, 1))
    backend.archive("mia", "first")
    for _ in range(2):
        looks.clear()
        backend.sync("mia")
        assert looks == ["mia"], "its folder may get the same time once more"


def test_what_a_disk_refused_is_written_again_though_it_was_archived_meanwhile(
    tmp_path: Path, on_files: Callable[..., Backend], disk: Disk, users: Path
) -> None:
    backend, other = open_filesystem(tmp_path, fsync="close"), on_files(fsync="never")
    backend.append("mia", records(0, 1))
    other.archive("mia", "first")
    rest(users)
    backend.sync("mia")
    archive = "mia/dialogs/archived/first.yaml"
    disk.fails = True
    with pytest.raises(OSError, match="disk did not take"), open(users / archive, "rb") as file:
        # As whoever appended to it before may have found out just now.
        backend._syncs.sync(file.fileno())
    disk.fails = False
    disk.take()
    backend.sync("mia")
    assert disk.take()[:2] == [f"write again {archive}", archive]
    backend.sync("mia")
    assert archive not in disk.take()


def test_close_never_makes_whoever_may_not_wait_wait_for_the_disk(on_files: Callable[..., Backend], disk: Disk) -> None:
    """Archiving does; so that is left to whoever may."""
    backend = on_files(fsync="close", archiveThreshold="3")
    backend.append("mia", records(0, 2), wait=False)
    disk.take()
    with pytest.raises(WouldBlock):
        backend.append("mia", records(2, 3), wait=False)
    assert stored(backend, "mia") == joined(records(0, 2))
    assert disk.take() == []
    name = backend.append("mia", records(2, 3)).archived_as
    assert name is not None
    assert stored(backend, "mia", name) == joined(records(0, 3))


def test_never_means_only_when_somebody_asks(on_files: Callable[..., Backend], disk: Disk) -> None:
    backend = on_files(fsync="never", archiveThreshold="2")
    backend.create_user("mia", b"x")
    for number in range(5):
        backend.append("mia", records(number, number + 1), wait=False)
    backend.put_archive("mia", "copied", b"x", 1)
    backend.set_aside("mia", b"x")
    assert [asked for asked in disk.take() if not asked.startswith("rename")] == []
    backend.sync("mia")
    archives = [f"mia/dialogs/archived/{name}.yaml" for name in names_of(backend, "mia")]
    assert len(archives) == 3
    assert disk.take() == [CURRENT, *archives, "mia/dialogs/archived", *FOLDERS]


def test_an_archive_is_on_disk_before_it_has_its_name_and_never_without_one(
    on_files: Callable[..., Backend], disk: Disk
) -> None:
    backend = on_files()
    backend.append("mia", records(0, 1))
    disk.take()
    backend.archive("mia", "refund")
    assert disk.take() == [CURRENT, "rename mia/dialogs/archived/refund.yaml", "mia/dialogs/archived", "mia/dialogs"]


def test_restoring_is_durable_like_archiving(on_files: Callable[..., Backend], disk: Disk) -> None:
    backend = on_files()
    backend.append("mia", records(0, 1))
    backend.archive("mia", "refund")
    disk.take()
    backend.restore("mia", "refund")
    assert disk.take() == [f"rename {CURRENT}", "mia/dialogs", "mia/dialogs/archived"]


def test_no_archive_is_taken_away_before_its_compressed_form_is_on_disk_whatever_the_setting(
    on_files: Callable[..., Backend], disk: Disk
) -> None:
    backend = on_files(fsync="never")
    backend.append("mia", records(0, 100))
    (archive,) = names_of(backend, "mia")
    disk.take()
    backend.compress("mia", archive)
    asked = [line for line in disk.take() if "write again" not in line]
    assert asked[0].endswith(".new")
    assert asked[1:3] == [f"rename mia/dialogs/archived/{archive}.yaml.gz", "mia/dialogs/archived"]
    assert asked[3].endswith(".id")
    assert asked[4:] == ["mia/dialogs/archived"]
    backend.restore("mia", archive)
    asked = [line for line in disk.take() if "write again" not in line]
    assert asked[0].endswith(".id"), "its bytes, before it has its name"
    assert asked[1:] == [f"rename {CURRENT}", "mia/dialogs", "mia/dialogs/archived"]


def test_a_copy_and_a_new_user_are_durable_with_their_folders(on_files: Callable[..., Backend], disk: Disk) -> None:
    backend = on_files()
    disk.take()
    backend.put_archive("mia", "refund", b"x", 1)
    assert disk.take()[1:] == ["rename mia/dialogs/archived/refund.yaml", "mia/dialogs/archived", *FOLDERS]
    backend.create_user("noah", b"x")
    assert disk.take()[1:] == ["noah", "noah/dialogs", "noah", "."]


def test_a_copy_that_goes_on_and_a_profile_are_durable(on_files: Callable[..., Backend], disk: Disk) -> None:
    backend = on_files(fsync="close")
    backend.append("mia", records(0, 1), wait=False)
    disk.take()
    assert backend.extend("mia", backend.stat("mia"), joined(records(1, 2)), 7)
    assert disk.take() == [CURRENT, *FOLDERS], "and its name, which is no older"
    assert backend.extend("mia", backend.stat("mia"), joined(records(2, 3)), 7)
    assert disk.take() == [CURRENT]
    backend.put_profile("mia", b"x", 7)
    assert disk.take()[1:] == ["mia"]
    backend.set_aside("mia", b"x", "aside")
    assert [asked for asked in disk.take() if not asked.endswith(".new")] == [
        "mia/dialogs",
        "mia/dialogs/rejected",
        *FOLDERS,
    ]
    backend = on_files(fsync="never")
    assert backend.extend("mia", backend.stat("mia"), joined(records(3, 4)), 7)
    assert disk.take() == []


def test_a_copy_that_the_disk_does_not_take_is_reported(on_files: Callable[..., Backend], disk: Disk) -> None:
    backend = on_files()
    backend.append("mia", records(0, 1))
    disk.fails = True
    with pytest.raises(OSError, match="disk did not take"):
        backend.extend("mia", backend.stat("mia"), joined(records(1, 2)), 7)
    disk.fails = False
    disk.take()
    assert backend.extend("mia", backend.stat("mia"), joined(records(2, 3)), 8)
    assert disk.take()[:2] == [f"write again {CURRENT}", CURRENT]
    assert (stored(backend, "mia"), backend.stat("mia").mtime_ns) == (joined(records(0, 3)), 8)


def test_a_root_that_was_made_is_durable(on_files: Callable[..., Backend], disk: Disk) -> None:
    on_files()
    assert disk.take() == ["../..", ".."]


# A disk that fails


def test_a_failed_sync_is_reported_and_not_tried_again_silently(on_files: Callable[..., Backend], disk: Disk) -> None:
    """A second fdatasync would say that all is well. So all bytes are written once more before the next one counts."""
    backend = on_files()
    backend.append("mia", records(0, 1))
    disk.take()
    disk.fails = True
    for _ in range(2):
        with pytest.raises(OSError, match="disk did not take") as caught:
            backend.append("mia", records(1, 2))
        assert caught.value.errno == errno.EIO
    assert disk.take() == [CURRENT, f"write again {CURRENT}", CURRENT]
    disk.fails = False
    assert backend.append("mia", records(1, 2)).stored == 0
    assert disk.take()[:2] == [f"write again {CURRENT}", CURRENT]
    backend.append("mia", records(2, 3))
    assert disk.take() == [CURRENT]
    assert stored(backend, "mia") == joined(records(0, 3))


def test_what_the_disk_lost_is_stored_by_the_second_try(
    on_files: Callable[..., Backend], disk: Disk, users: Path
) -> None:
    backend = on_files()
    backend.append("mia", records(0, 2))
    disk.fails = True
    with pytest.raises(OSError, match="disk did not take"):
        backend.append("mia", records(2, 3))
    disk.fails = False
    # The kernel drops what it could not write, and reads what is there.
    os.truncate(users / CURRENT, len(joined(records(0, 2))))
    assert backend.append("mia", records(2, 3)).stored == 1
    assert stored(backend, "mia") == joined(records(0, 3))


def test_no_archive_is_made_of_what_the_disk_refused(on_files: Callable[..., Backend], disk: Disk) -> None:
    backend = on_files(fsync="close", archiveThreshold="3")
    backend.append("mia", records(0, 2))
    disk.fails = True
    for attempt in (
        lambda: backend.sync("mia"),
        lambda: backend.archive("mia"),
        lambda: backend.append("mia", records(2, 3)),
    ):
        with pytest.raises(OSError, match="disk did not take"):
            attempt()
    disk.fails = False
    assert backend.archives("mia") == []
    disk.take()
    backend.sync("mia")
    assert disk.take()[:2] == [f"write again {CURRENT}", CURRENT]
    name = backend.append("mia", records(2, 3)).archived_as
    assert name is not None
    assert stored(backend, "mia", name) == joined(records(0, 3))


# Appends that wait together


@pytest.mark.parametrize("fails", [False, True])
def test_all_who_wait_for_one_file_share_the_next_sync_and_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    syncs, path = GroupSync(), tmp_path / "file"
    path.write_bytes(b"x")
    calls: list[int] = []
    go_on = threading.Event()
    results: list[BaseException | None] = []

    def fdatasync(descriptor: int) -> None:
        calls.append(descriptor)
        assert go_on.wait(30)
        if fails and len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")

    def sync() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            syncs.sync(descriptor)
            results.append(None)
        except OSError as error:
            results.append(error)
        finally:
            os.close(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    first = threading.Thread(target=sync)
    first.start()
    wait_until(lambda: len(calls) == 1, "the first is at it")
    others = [threading.Thread(target=sync) for _ in range(5)]
    for thread in others:
        thread.start()
    wait_until(lambda: [turns.wanted_by for turns in syncs._turns.values()] == [6], "all are there")
    go_on.set()
    for thread in [first, *others]:
        thread.join()
    assert len(calls) == 2, "the one that ran may have begun before the others had written"
    assert len(results) == 6
    assert [error.errno for error in results if isinstance(error, OSError)] == ([errno.EIO] * 5 if fails else [])
    assert syncs._turns == {}


# A full disk


class SmallDisk:
    """A place with little room, and something in it that can be taken away."""

    def __init__(self, place: Path, make_room: Callable[[], None]) -> None:
        self.place = place
        self.make_room = make_room


@pytest.fixture(params=["real", "pretended"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    """A tiny file system; where nobody may mount one, and once more anyway, writes that fail as on one."""
    if request.param == "real" and os.geteuid() == 0:
        place = tmp_path / "small"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
        try:
            ballast = place / "ballast"
            ballast.write_bytes(bytes(128 << 10))
            yield SmallDisk(place, ballast.unlink)
        finally:
            close_all()
            subprocess.run(["umount", place], check=True)
        return
    write, left = os.write, [64 << 10]

    def limited(descriptor: int, data: bytes) -> int:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(tmp_path)):
            return write(descriptor, data)
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(descriptor, data[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(os, "write", limited)
    yield SmallDisk(tmp_path, lambda: left.__setitem__(0, 1 << 20))


def test_a_full_disk_leaves_no_half_record_and_appends_go_on_once_there_is_room(small_disk: SmallDisk) -> None:
    backend = open_filesystem(small_disk.place)
    backend.append("mia", records(0, 1))
    done = [joined(records(0, 1))]

    def batch() -> list[Record]:
        return [record(f"{len(done)} " + "x" * 30_000), *records(len(done), len(done) + 1)]

    def fill() -> None:
        while len(done) < 50:
            backend.append("mia", batch())
            done.append(joined(batch()))
            assert stored(backend, "mia") == b"".join(done)

    with pytest.raises(OSError) as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    assert len(done) > 1
    assert stored(backend, "mia") == b"".join(done)
    with pytest.raises(OSError) as caught:
        backend.put_archive("mia", "copy", bytes(200_000), 1)
    assert caught.value.errno == errno.ENOSPC
    assert backend.archives("mia") == []
    assert os.listdir(small_disk.place / "journal/users/mia/dialogs/archived") == []
    before = backend.stat("mia")
    with pytest.raises(OSError) as caught:
        backend.extend("mia", before, bytes(200_000), 1)
    assert caught.value.errno == errno.ENOSPC
    assert backend.stat("mia")[:3] == before[:3]
    assert stored(backend, "mia") == b"".join(done)
    small_disk.make_room()
    assert backend.append("mia", batch()).stored == 2
    assert stored(backend, "mia") == b"".join(done) + joined(batch())
    backend.close()


def test_a_first_append_to_a_full_disk_leaves_no_conversation(small_disk: SmallDisk) -> None:
    backend = open_filesystem(small_disk.place)
    with pytest.raises(OSError) as caught:
        backend.append("mia", [record("x" * 250_000)])
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(NotFound):
        backend.stat("mia")
    small_disk.make_room()
    assert backend.append("mia", records(0, 1)).stored == 1
    assert stored(backend, "mia") == joined(records(0, 1))


def test_an_append_is_no_failure_because_its_conversation_cannot_be_archived(
    on_files: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is stored: reported as failed it would be given once more, and be there twice."""
    backend = on_files(archiveThreshold="3")
    rename = files.rename_new

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    backend.append("mia", records(0, 2))
    monkeypatch.setattr(files, "rename_new", full)
    with caplog.at_level("WARNING"):
        assert backend.append("mia", records(2, 3)) == (1, None)
    assert "long enough to be archived, but cannot be" in caplog.text
    caplog.clear()
    monkeypatch.setattr(files, "rename_new", rename)
    stored_as = backend.append("mia", records(3, 4)).archived_as
    assert stored_as is not None
    assert stored(backend, "mia", stored_as) == joined(records(0, 4))
