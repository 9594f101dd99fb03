"""The filesystem backend's files: where they are, whose they are, and what may lie beside them."""

import errno
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from potofs import DialogueJournal
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.config import Where
from potofs.errors import NotFound
from potofs.journal import reading
from tests.backends.kit import close_all, joined, names_of, open_filesystem, records, stored


def test_the_tree_on_disk_is_the_documents(tmp_path: Path, users: Path) -> None:
    backend = open_filesystem(tmp_path)
    backend.create_user("mia", b"userId: mia\n")
    backend.append("mia", records(0, 1))
    backend.archive("mia", "refund")
    by_time = backend.append("mia", records(1, 101)).archived_as
    backend.append("mia", records(101, 102))
    aside = backend.set_aside("mia", b"refused")
    assert by_time is not None
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z", by_time)
    found = {str(path.relative_to(users)): path.read_bytes() for path in users.rglob("*") if path.is_file()}
    for derived in ("mia/.lock", "mia/.archives"):
        del found[derived]
    assert found == {
        "mia/metadata.yaml": b"userId: mia\n",
        "mia/dialogs/current.yaml": joined(records(101, 102)),
        "mia/dialogs/archived/refund.yaml": joined(records(0, 1)),
        f"mia/dialogs/archived/{by_time}.yaml": joined(records(1, 101)),
        f"mia/dialogs/rejected/{aside}.yaml": b"refused",
    }


def test_ids_are_spelled_so_that_they_stay_in_their_folder(tmp_path: Path, users: Path) -> None:
    backend = open_filesystem(tmp_path)
    for user in ("..", "a/b", "100%", ".hidden", "nul\0"):
        backend.append(user, records(0, 1))
    assert sorted(os.listdir(users)) == ["%2E.", "%2Ehidden", "100%25", "a%2Fb", "nul%00"]
    assert os.listdir(tmp_path) == ["journal"]


def make_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path, _: Path) -> None:
    path.mkdir()


def make_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(joined(records(0, 1)))
    path.symlink_to(tmp_path / "elsewhere")


@pytest.mark.parametrize("archive", [None, "old"])
@pytest.mark.parametrize("make", [make_pipe, make_folder, make_link])
@pytest.mark.expects_warning("the running conversation is not counted: .*: this is ")
def test_what_is_no_plain_file_is_refused_by_its_path_and_holds_up_nobody(
    tmp_path: Path, users: Path, make: Callable[[Path, Path], None], archive: str | None
) -> None:
    if make is make_folder and archive:
        return  # No archive is listed that is a folder.
    backend = open_filesystem(tmp_path)
    for user in ("mia", "noah"):
        backend.create_user(user, b"userId: x\n")
    backend.append("noah", records(0, 1))
    path = users / "mia/dialogs" / ("current.yaml" if archive is None else f"archived/{archive}.yaml")
    make(path, tmp_path)
    attempts: list[Callable[[], object]] = [
        lambda: stored(backend, "mia", archive),
        lambda: backend.append("mia", records(1, 2)),
        lambda: backend.stat("mia", archive),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match=r"plain file|directory|symbolic link") as caught:
            attempt()
        assert os.fspath(path) in str(caught.value.filename)
    if make is make_link:
        assert (tmp_path / "elsewhere").read_bytes() == joined(records(0, 1))
    found = list(DialogueJournal(backend).fsck())
    assert {one.user for one in found} == {"mia"}
    assert any(os.fspath(path) in one.what for one in found), found


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder of another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert os.stat(folder).st_dev != os.stat(tmp_path).st_dev
        yield Path(folder)


def test_no_number_of_another_file_system_is_anybodys_here(tmp_path: Path, users: Path, elsewhere: Path) -> None:
    backend = open_filesystem(tmp_path)
    backend.append("mia", records(0, 1))
    (users / "noah").symlink_to(elsewhere)
    backend.append("noah", records(0, 99))
    assert backend.stat("mia").id == os.stat(users / "mia/dialogs/current.yaml").st_ino
    number = backend.stat("noah").id
    assert number != os.stat(elsewhere / "dialogs/current.yaml").st_ino
    assert 0 < number < 2**63
    # As long as it lives, all the same.
    backend.archive("noah", "long")
    assert backend.stat("noah", "long").id == number
    assert backend.compress("noah", "long") > 0
    assert [archive.stat.id for archive in backend.archives("noah")] == [number]
    with backend.open("noah", "long") as reader:
        assert reader.stat().id == number
    backend.restore("noah", "long")
    assert backend.stat("noah").id == open_filesystem(tmp_path).stat("noah").id == number


def test_conversations_are_nobodys_business_but_the_owners(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        backend = open_filesystem(tmp_path / "deep")
        backend.create_user("mia", b"x")
        backend.append("mia", records(0, 1))
        backend.put_archive("mia", "refund", b"x", 1)
        backend.set_aside("mia", b"x")
    finally:
        os.umask(mask)
    made = [tmp_path / "deep", *(tmp_path / "deep").rglob("*")]
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in made if path.is_dir()} == {"0o700"}
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in made if path.is_file()} == {"0o600"}


def test_what_else_lies_there_is_left_alone_and_not_shown(tmp_path: Path, users: Path) -> None:
    backend = open_filesystem(tmp_path)
    backend.append("mia", records(0, 1))
    backend.archive("mia", "refund")
    archived = users / "mia/dialogs/archived"
    others = [users / "notes.txt", users / "%41", users / ".hidden", archived / ".refund.yaml.a1", archived / "x.txt"]
    for path in others:
        path.write_text("mine")
    (archived / "folder.yaml").mkdir()
    (users / "%zz").mkdir()
    (archived / "gone.yaml").symlink_to("nowhere")
    assert list(backend.users()) == ["mia"]
    assert names_of(backend, "mia") == ["refund"]
    assert {path.read_text() for path in others} == {"mine"}


def test_folders_that_another_program_made_need_not_be_complete(tmp_path: Path, users: Path) -> None:
    (users / "mia/dialogs").mkdir(parents=True)
    (users / "mia/dialogs/current.yaml").write_bytes(joined(records(0, 2)))
    backend = open_filesystem(tmp_path)
    assert backend.archives("mia") == []
    backend.sync("mia")
    assert backend.archive("mia", "refund") == "refund"
    assert stored(backend, "mia", "refund") == joined(records(0, 2))


def test_an_archive_put_in_place_leaves_nothing_beside_it(tmp_path: Path, users: Path) -> None:
    backend = open_filesystem(tmp_path)
    backend.put_archive("mia", "refund", b"x", 1)
    with pytest.raises(Exception, match="already"):
        backend.put_archive("mia", "refund", b"y", 1)
    assert os.listdir(users / "mia/dialogs/archived") == ["refund.yaml"]


# The place


def test_a_root_that_is_not_there_is_made_only_if_told_to(tmp_path: Path) -> None:
    where = Where("file", str(tmp_path / "a/b"))
    backend = FilesystemBackend(where, reading.marks)
    with pytest.raises(NotFound, match=re.escape(where.place)):
        backend.prepare(create=False)
    assert os.listdir(tmp_path) == []
    backend.prepare(create=True)
    backend.prepare(create=False)
    assert list(backend.users()) == []


def test_a_root_that_is_no_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("mine")
    for create in (False, True):
        with pytest.raises(NotADirectoryError):
            FilesystemBackend(Where("file", str(tmp_path / "journal")), reading.marks).prepare(create=create)


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Takes the right to read and write a folder away."""
    folder.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
            folder.chmod(0o700)
    else:
        try:
            yield
        finally:
            folder.chmod(0o700)


def test_missing_rights_come_through_as_the_system_says_them(tmp_path: Path, users: Path) -> None:
    backend = open_filesystem(tmp_path)
    backend.append("mia", records(0, 1))
    with as_nobody(tmp_path / "journal"):
        for attempt in (backend.stat, backend.open, backend.archive, backend.archives):
            with pytest.raises(PermissionError):
                attempt("mia")
        with pytest.raises(PermissionError):
            backend.append("mia", records(1, 2))
        with pytest.raises(PermissionError):
            backend.prepare(create=False)
        with pytest.raises(PermissionError):
            backend.create_user("noah", b"")
    assert stored(backend, "mia") == joined(records(0, 1))
    assert os.listdir(users) == ["mia"]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A place with one conversation of mia that nothing can be written to."""
    place = tmp_path / "place"
    open_filesystem(place).append("mia", records(0, 1))
    if os.geteuid() == 0:
        subprocess.run(["mount", "--bind", place, place], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
            yield place
        finally:
            close_all()
            subprocess.run(["umount", place], check=True)
    else:
        folders = [place / "journal/users/mia", *(place / "journal").rglob("*")]
        for path in folders:
            path.chmod(0o500 if path.is_dir() else 0o400)
        yield place
        for path in folders:
            path.chmod(0o700)


def test_a_read_only_root_can_be_read(read_only: Path) -> None:
    backend = open_filesystem(read_only)
    assert stored(backend, "mia") == joined(records(0, 1))
    assert backend.totals().messages == 1
    for attempt in (
        lambda: backend.append("mia", records(1, 2)),
        lambda: backend.archive("mia"),
        lambda: backend.put_archive("mia", "x", b"x", 1),
        lambda: backend.set_aside("mia", b"x"),
        lambda: backend.set_aside("mia", b"x", "aside"),
        lambda: backend.extend("mia", backend.stat("mia"), joined(records(1, 2)), 1),
        lambda: backend.put_profile("mia", b"x", 1),
        lambda: backend.set_changed("mia", 1),
        lambda: backend.set_changed(None, 1),
    ):
        with pytest.raises(OSError):
            attempt()
    assert stored(backend, "mia") == joined(records(0, 1))


def test_a_journal_whose_folder_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    """It may lie on a disk that is to come back, and what was written meanwhile would be hidden below it."""
    backend = open_filesystem(tmp_path)
    backend.append("mia", records(0, 1))
    (tmp_path / "journal").rename(tmp_path / "elsewhere")
    for attempt in (
        lambda: backend.append("mia", records(1, 2)),
        lambda: backend.create_user("max", b""),
        lambda: backend.set_aside("mia", b"x"),
        lambda: backend.set_aside("mia", b"x", "aside"),
        lambda: backend.set_changed(None, 1),
        lambda: list(backend.users()),
        # Nothing is said not to be there: whoever copies the journal would take that for an order to remove it.
        lambda: backend.users_changed(),
        lambda: backend.has_user("mia"),
        lambda: backend.has_user("max"),
        lambda: backend.changes_of(["mia"]),
        lambda: backend.read_profile("mia"),
        lambda: backend.profile_changed("mia"),
        lambda: backend.put_profile("mia", b"x", 1),
        lambda: backend.stat("mia"),
        lambda: backend.stat("mia", "first"),
        lambda: backend.open("mia"),
        lambda: backend.open("mia", "first"),
        lambda: backend.archives("mia"),
        lambda: backend.set_asides("mia"),
        lambda: backend.open_set_aside("mia", "aside"),
        lambda: backend.remove_set_aside("mia", "aside"),
        lambda: backend.archive("mia"),
        lambda: backend.restore("mia", "first"),
        lambda: backend.rename_archive("mia", "first", "second"),
        lambda: backend.compress("mia", "first"),
        lambda: backend.sync("mia"),
        lambda: backend.set_times("mia", None, 1),
        lambda: backend.set_changed("mia", 1),
        lambda: backend.totals(),
        lambda: backend.usage(),
        lambda: backend.log_size(),
        lambda: backend.read_log(0, 1),
    ):
        with pytest.raises(OSError) as gone:
            attempt()
        assert gone.value.errno == errno.ENODEV
    assert not (tmp_path / "journal").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "journal")
    assert list(backend.users()) == ["mia"]


def test_a_listing_that_is_under_way_when_the_folder_goes_does_not_end_as_if_it_were_whole(tmp_path: Path) -> None:
    backend = open_filesystem(tmp_path)
    for number in range(3):
        backend.append(f"user{number}", records(0, 1))
    listing = backend.users()
    next(listing)
    shutil.rmtree(tmp_path / "journal")
    with pytest.raises(OSError) as gone:
        list(listing)
    assert gone.value.errno == errno.ENODEV


def test_half_a_user_does_not_stay_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = open_filesystem(tmp_path)
    link = os.link

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space"):
        backend.create_user("mia", b"x")
    assert not backend.has_user("mia")
    monkeypatch.setattr(os, "link", link)
    backend.create_user("mia", b"x")
    assert backend.read_profile("mia") == b"x"


def test_a_link_that_leads_in_a_circle_hides_no_user(tmp_path: Path) -> None:
    backend = open_filesystem(tmp_path)
    backend.append("mia", records(0, 1))
    (tmp_path / "journal/users/loop").symlink_to("loop")
    assert list(backend.users()) == ["mia"]
