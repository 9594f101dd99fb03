"""Copies on files: what goes wrong while one goes on or takes the place of another, and what programs without the lock
do meanwhile.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.backends.base import Backend, Mark, Stat
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.config import Where
from potofs.journal import reading
from tests.backends.kit import joined, open_filesystem, record, records, stored

WHEN = 1_705_314_600_123_456_789
MORE = joined(records(2, 4))


@pytest.fixture
def current(users: Path) -> Path:
    """The running conversation of mia."""
    return users / "mia/dialogs/current.yaml"


def begun(backend: Backend) -> Stat:
    """A copy of two messages, with a time of its own."""
    backend.put_current("mia", joined(records(0, 2)), WHEN)
    return backend.stat("mia")


def is_as_it_was(backend: Backend, before: Stat) -> None:
    """Asserts that nothing of it has changed, and nothing of what is known of it."""
    assert stored(backend, "mia") == joined(records(0, 2))
    assert backend.stat("mia")[:3] == before[:3]
    assert backend.totals().messages == 2
    assert list(backend.check("mia", repair=False)) == []


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("written", [0, 1, 30, len(MORE) - 1])
def test_a_copy_that_does_not_fit_leaves_bytes_and_time_as_they_were(
    on_files: Callable[..., Backend], current: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    backend = on_files()
    before = begun(backend)
    write = os.write

    def short(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(descriptor, data[:written]) if written else full()

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space left") as caught:
        backend.extend("mia", before, MORE, 7)
    monkeypatch.undo()
    assert caught.value.filename == str(current)
    is_as_it_was(backend, before)
    assert backend.extend("mia", before, MORE, 7)
    assert stored(backend, "mia") == joined(records(0, 4))


def test_a_copy_whose_time_cannot_be_set_is_not_added(
    on_files: Callable[..., Backend], current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files()
    before = begun(backend)
    utime = os.utime
    refused: list[int] = []

    def refuse(path: int | str, *, ns: tuple[int, int]) -> None:
        if isinstance(path, int) and not refused:
            refused.append(path)
            raise PermissionError(errno.EPERM, "Operation not permitted")
        utime(path, ns=ns)

    monkeypatch.setattr(os, "utime", refuse)
    with pytest.raises(PermissionError) as caught:
        backend.extend("mia", before, MORE, 7)
    assert caught.value.filename == str(current)
    is_as_it_was(backend, before)


@pytest.mark.parametrize("options", [{}, {"foreignWriters": "true"}])
def test_what_another_program_appends_behind_a_copy_that_fails_is_not_cut_off(
    on_files: Callable[..., Backend], current: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    backend = on_files(**options)
    before = begun(backend)
    write = os.write
    theirs = b"\n---\n" + joined(records(8, 9))

    def short(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", and_then_theirs)
        return write(descriptor, data[:30])

    def and_then_theirs(*_: object) -> int:
        monkeypatch.undo()
        with current.open("ab") as file:
            file.write(theirs)
        return full()

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space left"):
        backend.extend("mia", before, MORE, 7)
    assert stored(backend, "mia") == joined(records(0, 2)) + MORE[:30] + theirs
    assert backend.append("mia", records(8, 9)).stored == 0


def test_a_program_that_takes_no_lock_and_comes_in_between_is_told_of_and_loses_nothing(
    on_files: Callable[..., Backend], current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files(foreignWriters="true")
    before = begun(backend)
    write = os.write

    def after_theirs(descriptor: int, data: bytes) -> int:
        monkeypatch.undo()
        with current.open("ab") as file:
            file.write(joined(records(8, 9)))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", after_theirs)
    with pytest.raises(OSError, match="appended at the same time") as caught:
        backend.extend("mia", before, MORE, 7)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(current))
    assert stored(backend, "mia") == joined([*records(0, 2), *records(8, 9), *records(2, 4)])
    assert backend.append("mia", [*records(8, 9), *records(2, 4)]).stored == 0
    assert backend.totals().messages == 5


KILLED = """
import os, sys
from pathlib import Path
from tests.backends import test_filesystem_copying as test
from tests.backends.kit import open_filesystem

backend = open_filesystem(Path(sys.argv[1]))
write = os.write

def killed(descriptor, data):
    write(descriptor, data[: int(sys.argv[2])])
    os.kill(os.getpid(), 9)

if sys.argv[2] == "time":
    os.utime = lambda *_, **__: os.kill(os.getpid(), 9)
else:
    os.write = killed
backend.extend("mia", backend.stat("mia"), test.MORE, 7)
"""


@pytest.mark.parametrize("at", ["0", "1", "40", str(len(MORE)), "time"])
def test_a_copy_whose_writer_is_killed_goes_on_from_where_it_was(tmp_path: Path, at: str) -> None:
    """What is there is what the copy begins with, and whoever comes next counts it."""
    backend = open_filesystem(tmp_path)
    begun(backend)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), at]
    assert subprocess.run(arguments, cwd=Path(__file__).parents[2], check=False).returncode == -9
    whole = joined(records(0, 4))
    there = stored(backend, "mia")
    assert whole.startswith(there)
    assert len(there) >= len(joined(records(0, 2)))
    assert backend.extend("mia", backend.stat("mia"), whole[len(there) :], 7)
    assert (stored(backend, "mia"), backend.stat("mia").mtime_ns) == (whole, 7)
    assert backend.totals()[1:5] == (1, 0, 4, len(whole))
    assert list(backend.check("mia", repair=False)) == []
    assert backend.append("mia", records(0, 4)).stored == 0


def test_only_what_is_added_is_looked_at_and_a_new_server_need_not_read_it_all(tmp_path: Path) -> None:
    scanned: list[int] = []

    def opened() -> Backend:
        def scan(data: bytes) -> list[Mark]:
            scanned.append(len(data))
            return list(reading.marks(data))

        backend = FilesystemBackend(Where("file", str(tmp_path / "journal"), {"fsync": "never"}), scan)
        backend.prepare(create=True)
        return backend

    one = opened()
    one.append("mia", records(0, 1))
    del scanned[:]
    more = joined(records(1, 600))
    assert one.extend("mia", one.stat("mia"), more, 7)
    assert sum(scanned) == len(more)
    one.close()
    del scanned[:]
    other = opened()
    assert other.extend("mia", other.stat("mia"), joined(records(600, 601)), 7)
    assert sum(scanned) == len(joined(records(600, 601)))
    assert other.totals().messages == 601
    assert list(other.check("mia", repair=False)) == []
    other.close()


def test_a_profile_that_does_not_fit_leaves_the_one_that_was_there(
    on_files: Callable[..., Backend], users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files()
    backend.create_user("mia", b"userId: mia\n")
    before = backend.profile_changed("mia")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        backend.put_profile("mia", b"other\n", 7)
    monkeypatch.undo()
    assert caught.value.filename == str(users / "mia/metadata.yaml")
    assert (backend.read_profile("mia"), backend.profile_changed("mia")) == (b"userId: mia\n", before)
    assert sorted(os.listdir(users / "mia")) == [".lock", "dialogs", "metadata.yaml"]


def test_what_is_set_aside_again_changes_nothing_where_it_is_there(
    on_files: Callable[..., Backend], users: Path
) -> None:
    backend = on_files()
    backend.set_aside("mia", b"one", "aside", mtime_ns=WHEN)
    assert os.stat(users / "mia/dialogs/rejected/aside.yaml").st_mtime_ns == WHEN
    assert (users / "mia/dialogs/rejected/aside.yaml").read_bytes() == b"one"
    assert list(backend.check("mia", repair=False)) == []


def test_the_folders_of_a_user_get_the_time_of_the_copy(on_files: Callable[..., Backend], users: Path) -> None:
    backend = on_files()
    backend.append("mia", [record("a")])
    backend.set_aside("mia", b"refused")
    backend.append("noah", [record("a")])
    backend.set_changed("mia", WHEN)
    backend.set_changed("noah", WHEN)
    backend.set_changed(None, WHEN)
    folders = ["", *(f"{user}/dialogs{name}" for user in ("mia", "noah") for name in ("", "/archived"))]
    assert {os.stat(users / name).st_mtime_ns for name in [*folders, "mia/dialogs/rejected"]} == {WHEN}
    assert not (users / "noah/dialogs/rejected").exists()
    assert list(backend.check("mia", repair=False)) == []
