"""Listing many users: it begins at once, goes on from any place, and shows everybody once, whoever comes and goes."""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from potofs import ChatMessage, open_journal
from potofs.backends.redis.keys import Keys
from tests import redis_servers
from tests.mounts import Mount, run, shell

USERS = 10_000


class Entry(ctypes.Structure):
    """struct dirent of readdir(3)."""

    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("reclen", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.opendir.argtypes = (ctypes.c_char_p,)
libc.readdir.restype = ctypes.POINTER(Entry)
for call in (libc.readdir, libc.telldir, libc.closedir, libc.rewinddir):
    call.argtypes = (ctypes.c_void_p,)
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)


class Directory:
    """A directory, read with the calls of dirent.h."""

    def __init__(self, stream: int) -> None:
        self._stream = stream

    def read(self) -> tuple[str, int] | None:
        """The next name, and the place behind it; None at the end."""
        entry = libc.readdir(self._stream)
        if not entry:
            return None
        return os.fsdecode(entry.contents.name), int(libc.telldir(self._stream))

    def rest(self) -> list[tuple[str, int]]:
        return list(iter(self.read, None))

    def seek(self, place: int) -> None:
        libc.seekdir(self._stream, place)

    def rewind(self) -> None:
        libc.rewinddir(self._stream)


@contextmanager
def opened(path: Path) -> Iterator[Directory]:
    stream = libc.opendir(os.fsencode(path))
    assert stream
    try:
        yield Directory(stream)
    finally:
        libc.closedir(stream)


@pytest.fixture(params=["files", "redis"])
def where(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> str:
    """The URL of a journal on each backend in turn."""
    if request.param == "redis":
        return f"redis://{redis_servers.shared().place}?prefix={tmp_path.name}:"
    return f"file://{root}?fsync=never"


def test_of_many_users_each_is_shown_once_while_others_come_and_go(
    where: str, root: Path, mount_at: Callable[..., Mount]
) -> None:
    names = {f"user-{number:05d}" for number in range(USERS)}
    with open_journal(where) as journal:
        for user in names:
            journal.create_user(user)
        mount = mount_at(where)
        assert int(shell(f"ls -f {mount.users} | wc -l").stdout) == USERS
        assert set(run("find", mount.users, "-maxdepth", "1", "-printf", "%f\n").stdout.split()) == {"users", *names}
        with opened(mount.users) as directory:
            first = [directory.read() for _ in range(100)]
            for number in range(500):
                journal.create_user(f"new-{number}")
            gone = set()
            if where.startswith("file:"):
                # Nothing of potofs removes a user; an administrator may.
                gone = {f"user-{number:05d}" for number in range(0, USERS, 100)}
                for user in gone:
                    shutil.rmtree(root / "users" / user)
            listed = [one for one in [*first, *directory.rest()] if one is not None]
            found = [name for name, _ in listed]
            assert len(found) == len(set(found))
            assert names - gone <= set(found)
            # From a place that was told before, the same follows, but for who is not there any more.
            for position in (0, 50, 99, 100, 5000, len(listed) - 1):
                directory.seek(listed[position][1])
                expected = [name for name in found[position + 1 :] if name not in gone]
                assert [name for name, _ in directory.rest() if name not in gone] == expected
            directory.rewind()
            assert {name for name, _ in directory.rest()} == names - gone | {f"new-{number}" for number in range(500)}


def test_few_entries_are_sorted(where: str, mount_at: Callable[..., Mount]) -> None:
    with open_journal(where) as journal:
        for user in ("max", "mia", "a/b", "zoe"):
            journal.create_user(user)
        for archive in ("b", "a", "c"):
            journal.backend.put_archive("mia", archive, b"role: user\ncontent: x\n", 1)
    mount = mount_at(where)
    assert os.listdir(mount.users) == ["a%2Fb", "max", "mia", "zoe"]
    assert os.listdir(mount.archived("mia")) == ["a.yaml", "b.yaml", "c.yaml"]
    assert os.listdir(mount.path / "system") == ["cleanup.log", "health.yaml", "metrics.prom", "stats.yaml"]


def test_a_directory_is_read_anew_when_it_is_opened_again(where: str, mount_at: Callable[..., Mount]) -> None:
    mount = mount_at(where)
    for number in range(30):
        (mount.users / f"user-{number:02d}").mkdir()
        assert len(os.listdir(mount.users)) == number + 1


def test_a_listing_that_lacks_what_is_there_is_none(tmp_path: Path, mount_at: Callable[..., Mount]) -> None:
    """Of one that looks whole and is not, `rsync --delete` would remove what it lacks."""
    place = redis_servers.shared().place
    mount = mount_at(f"redis://{place}?prefix={tmp_path.name}:")
    mount.expect_warning("cannot be shown|is not a hash")
    with open_journal(mount.where) as journal:
        for user in ("anna", "bert", "carl", "dora"):
            journal.add_message(user, ChatMessage("user", "Hello", "2024-01-15T10:30:00.000Z"))
    backup = tmp_path / "backup"
    assert run("rsync", "-a", f"{mount.users}/", f"{backup}/").returncode == 0
    host, port = place.split("/")[0].rsplit(":", 1)
    key = Keys(f"{tmp_path.name}:").user("carl")
    with redis.Redis(host, int(port)) as client:
        client.delete(key)
        client.set(key, "x")
    listed = run("ls", mount.users)
    assert listed.returncode != 0
    assert listed.stdout.split() == ["anna", "bert", "dora"]
    assert "Input/output error" in listed.stderr
    assert run("rsync", "-a", "--delete", f"{mount.users}/", f"{backup}/").returncode == 23
    assert (backup / "carl/dialogs/current.yaml").exists()


def test_a_listing_lacks_nothing_when_the_folder_for_temporary_files_is_gone(
    root: Path, tmp_path: Path, mount_at: Callable[..., Mount], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon has that of the session that it was started from, and outlives it."""
    with monkeypatch.context() as session:
        session.setenv("TMPDIR", str(tmp_path / "gone"))
        mount = mount_at(root)
    (mount.users / "mia").mkdir()
    archives = root / "users/mia/dialogs/archived"
    names = {f"{'n' * 90}{number:06d}.yaml" for number in range(3000)}
    for name in names:
        (archives / name).touch()
    backup = tmp_path / "backup"
    backup.mkdir()
    for name in names:
        (backup / name).touch()
    assert set(run("ls", "-U", mount.archived("mia")).stdout.split()) == names
    assert run("rsync", "-a", "--delete", f"{mount.archived('mia')}/", f"{backup}/").returncode == 0
    assert set(os.listdir(backup)) == names
    (mount.dialogs("mia") / ".large").write_bytes(bytes(3 << 20))
