"""Copies on files: what goes wrong while one goes on or takes the place of another, and what programs without the lock
do meanwhile.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from potofs.backends.base import Backend, Fence, Mark, Stat
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.config import Where
from potofs.errors import AlreadyExists, Fenced
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
    assert sum(scanned) == len(joined(records(0, 1))) + len(more), "what is so short is not kept on disk"
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


# A long copy, while its user goes on

LONG = records(0, 600)


class Server:
    """A server at a place, and what happens whenever it has read much, or has written a file that has no name yet."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.meanwhile: Callable[[], object] = lambda: None
        #: Bytes that it has looked at.
        self.scanned = 0
        options = {"lockTimeoutMs": "100", "archiveThreshold": "0", "maxConversationLength": "0"}
        self.backend = FilesystemBackend(Where("file", str(place / "journal"), options), self._scan)
        self.backend.prepare(create=True)
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._sync)

    def _scan(self, data: bytes) -> list[Mark]:
        self.scanned += len(data)
        if len(data) > 10_000:
            self._interrupt()
        return list(reading.marks(data))

    def _sync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".new"):
            self._interrupt()

    def _interrupt(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        self.meanwhile = meanwhile


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(tmp_path, monkeypatch)
    yield server
    server.backend.close()


def is_consistent(backend: FilesystemBackend, users: Path) -> None:
    """Asserts that nothing is wrong, left over, or counted that is not there."""
    assert list(backend.check("mia", repair=False)) == []
    assert backend.totals() == backend._accounts.walked()
    assert list(users.rglob("*.new")) == []


@pytest.mark.parametrize("copy", ["current", "archive", "more", "nothing kept"])
def test_a_long_copy_holds_up_nobody_and_need_not_be_read_once_it_is_there(
    server: Server, on_files: Callable[..., Backend], users: Path, copy: str
) -> None:
    backend, other = server.backend, on_files(lockTimeoutMs="100", archiveThreshold="0", maxConversationLength="0")
    backend.create_user("mia", b"")
    there = {"more": 2, "nothing kept": 300}.get(copy, 0)
    if there:
        backend.put_current("mia", joined(LONG[:there]), WHEN)
    if copy == "nothing kept":
        (users / "mia/.current.idx").unlink()
    changes: list[int] = []

    def somebody_changes_something() -> None:
        changes.append(len(changes))
        other.put_profile("mia", b"profile %d" % len(changes), 7)

    server.meanwhile = somebody_changes_something
    match copy:
        case "current":
            backend.put_current("mia", joined(LONG), WHEN)
        case "archive":
            backend.put_archive("mia", "long", joined(LONG), WHEN)
        case _:
            assert backend.extend("mia", backend.stat("mia"), joined(LONG[there:]), WHEN)
    assert len(changes) > 0
    server.meanwhile = lambda: None
    server.scanned = 0
    assert stored(backend, "mia", "long" if copy == "archive" else None) == joined(LONG)
    assert backend.append("mia", LONG[-3:]).stored == 0
    assert backend.append("mia", [record("later")]).stored == 1
    assert backend.totals().messages == 601
    assert server.scanned < 1000
    assert other.append("mia", [*LONG[:3], record("later")]).stored == 0
    is_consistent(backend, users)


def test_a_copy_is_the_newest_archive_or_not_whatever_was_known_of_archives(
    server: Server, on_files: Callable[..., Backend], users: Path
) -> None:
    backend, other = server.backend, on_files()
    other.put_archive("mia", "between", joined(records(700, 702)), 50)
    backend.put_archive("mia", "old", joined(LONG), 40)
    assert backend.append("mia", [*records(700, 702), *LONG[:2]]).stored == 2, "only the newest is looked into"
    backend.put_archive("mia", "older", joined(records(800, 802)), 30)
    assert backend.append("mia", [*records(700, 702), *records(800, 802)]).stored == 2
    server.scanned = 0
    backend.put_archive("mia", "new", joined(records(900, 902)), 60)
    assert backend.append("mia", [*records(900, 902), *records(700, 702)]).stored == 2
    assert server.scanned == len(joined(records(900, 902)))
    is_consistent(backend, users)


def test_whoever_is_quicker_than_a_copy_keeps_the_name_and_nothing_is_left(
    server: Server, on_files: Callable[..., Backend], users: Path
) -> None:
    backend, other = server.backend, on_files()
    server.meanwhile = lambda: other.append("mia", records(0, 1))
    with pytest.raises(AlreadyExists, match="running conversation"):
        backend.put_current("mia", joined(LONG), WHEN)
    assert stored(backend, "mia") == joined(records(0, 1))
    server.meanwhile = lambda: other.put_archive("mia", "one", b"theirs", 5) if not other.archives("mia") else None
    with pytest.raises(AlreadyExists):
        backend.put_archive("mia", "one", joined(LONG), WHEN)
    assert stored(backend, "mia", "one") == b"theirs"
    server.meanwhile = lambda: other.append("mia", [record("quicker")])
    assert not backend.extend("mia", backend.stat("mia"), joined(LONG[1:]), WHEN)
    assert stored(backend, "mia") == joined([*records(0, 1), record("quicker")])
    assert backend.append("mia", LONG[1:3]).stored == 2
    is_consistent(backend, users)


def test_a_copy_that_goes_on_is_known_as_what_is_there_and_not_as_what_was(
    server: Server, current: Path, users: Path
) -> None:
    """Another program has put as many other bytes in their place meanwhile."""
    backend = server.backend
    backend.put_current("mia", joined(records(0, 2)), WHEN)
    others = joined(records(5, 7))
    assert len(others) == current.stat().st_size

    def theirs() -> None:
        # Only while it is looked at ahead.
        if current.read_bytes() == joined(records(0, 2)):
            current.write_bytes(others)

    server.meanwhile = theirs
    assert backend.extend("mia", backend.stat("mia"), joined(LONG[7:]), WHEN)
    assert backend.append("mia", records(5, 7)).stored == 0
    assert backend.append("mia", records(0, 2)).stored == 2
    is_consistent(backend, users)


def test_a_copy_that_may_not_be_made_is_not_begun(server: Server, users: Path) -> None:
    backend = server.backend
    backend.append("mia", records(0, 1))
    backend.put_archive("mia", "one", joined(records(3, 4)), WHEN)
    before = {path: path.stat().st_mtime_ns for path in users.rglob("*")}
    server.scanned = 0
    with pytest.raises(AlreadyExists):
        backend.put_archive("mia", "one", joined(LONG), WHEN)
    with pytest.raises(AlreadyExists):
        backend.put_current("mia", joined(LONG), WHEN)
    backend.set_fence(Fence("frozen", 1))
    with pytest.raises(Fenced):
        backend.put_archive("mia", "two", joined(LONG), WHEN)
    with pytest.raises(Fenced):
        backend.put_current("mia", joined(LONG), WHEN)
    assert server.scanned == 0
    assert {path: path.stat().st_mtime_ns for path in users.rglob("*")} == before
