"""Backups through the mount, and journals restored from them: byte for byte, times included."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs import ChatMessage, DialogueJournal, open_journal
from tests import redis_servers
from tests.mounts import Mount, run, shell

RECORD = 'role: user\ncontent: {}\ntimestamp: "2024-01-15T10:{:02d}:{:02d}.000Z"\n---\n'
DAMAGED = b"role: us\n---\n"
CREATED = b'userId: "mia"\ncreatedAt: "2023-05-01T00:00:00.000Z"\npreferences:\n  language: "de"\n'
#: Every file of it a different time.
LONG_AGO = 1_700_000_000_123_456_789


def conversation(first: int, count: int) -> bytes:
    return "".join(RECORD.format(f"number {n}", n // 60, n % 60) for n in range(first, first + count)).encode()


def everything_in(journal: DialogueJournal) -> None:
    """Fills a journal with what is hard to bring back."""
    backend = journal.backend
    for number, user in enumerate(["mia", "a/b", "..", "Zoë"]):
        journal.create_user(user)
        # More than the threshold, a message twice, and damage.
        backend.put_archive(user, "refund/2024", conversation(0, 150) + conversation(0, 1), LONG_AGO + number)
        backend.put_archive(user, "older", conversation(200, 3) + DAMAGED + conversation(203, 2), LONG_AGO - number)
        backend.put_current(
            user, conversation(300, 120) + DAMAGED + conversation(300, 2) + b"role: user\ncon", LONG_AGO + 77 + number
        )
        backend.set_aside(user, b"hello\n", "20240101T000000.000Z", mtime_ns=LONG_AGO + 99)
    backend.put_profile("mia", CREATED, LONG_AGO + 5)
    journal.create_user("silent")
    for user in journal.users():
        backend.set_changed(user, LONG_AGO + 1000)
    backend.set_changed(None, LONG_AGO + 2000)


@pytest.fixture
def source(mount_at: Callable[..., Mount], tmp_path: Path) -> Mount:
    """A mount of a journal that has everything."""
    with open_journal(f"file://{tmp_path}/source") as journal:
        everything_in(journal)
    return mount_at(tmp_path / "source")


@pytest.fixture(params=["files", "redis"])
def target(request: pytest.FixtureRequest, mount_at: Callable[..., Mount], tmp_path: Path) -> Mount:
    """A mount of an empty journal."""
    if request.param == "files":
        return mount_at(tmp_path / "target")
    return mount_at(f"redis://{redis_servers.shared().place}?prefix={tmp_path.name}:")


def picture(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Mode, time and contents of everything in a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            None if path.is_dir() else path.read_bytes(),
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and contents of every file."""
    return {name: (mtime_ns, data) for name, (_, mtime_ns, data) in picture(folder).items() if data is not None}


def rsync(*arguments: str | Path) -> str:
    """What rsync says that it did; it has to end well."""
    done = run("rsync", "-a", "--itemize-changes", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_rsync_out_of_the_mount_takes_everything_and_the_second_time_nothing(source: Mount, tmp_path: Path) -> None:
    rsync(f"{source.users}/", tmp_path / "backup/")
    assert picture(tmp_path / "backup") == picture(source.users)
    assert rsync(f"{source.users}/", tmp_path / "backup/") == ""


def test_tar_out_of_the_mount_takes_everything(source: Mount, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    tar = run("tar", "-C", source.path, "--format=posix", "-cf", tmp_path / "backup.tar", "users")
    assert (tar.returncode, tar.stderr) == (0, "")
    assert run("tar", "-C", tmp_path / "out", "-xpf", tmp_path / "backup.tar").returncode == 0
    assert picture(tmp_path / "out/users") == picture(source.users)


@pytest.mark.parametrize("options", [[], ["--inplace"], ["--append"], ["--append-verify"], ["--whole-file"]], ids=str)
def test_what_rsync_restores_is_the_same_and_a_second_one_transfers_nothing_either_way(
    source: Mount, target: Mount, tmp_path: Path, options: list[str]
) -> None:
    backup = tmp_path / "backup"
    rsync(f"{source.users}/", f"{backup}/")
    rsync(*options, f"{backup}/", f"{target.users}/")
    assert picture(target.users) == picture(source.users)
    assert rsync(*options, f"{backup}/", f"{target.users}/") == ""
    assert rsync(f"{target.users}/", f"{backup}/") == ""


def test_what_tar_restores_is_the_same(source: Mount, target: Mount, tmp_path: Path) -> None:
    tar = tmp_path / "backup.tar"
    assert run("tar", "-C", source.path, "--format=posix", "-cf", tar, "users").returncode == 0
    done = run("tar", "-C", target.path, "-xpf", tar)
    assert (done.returncode, done.stderr) == (0, "")
    assert picture(target.users) == picture(source.users)


def test_what_cp_restores_is_the_same(source: Mount, target: Mount, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert run("cp", "-a", source.users, backup).returncode == 0
    done = run("cp", "-a", f"{backup}/.", f"{target.users}/")
    assert (done.returncode, done.stderr) == (0, "")
    assert picture(target.users) == picture(source.users)


def test_whoever_was_said_something_to_is_not_being_restored_any_more(target: Mount) -> None:
    (target.users / "mia").mkdir()
    # As cp and tar do it.
    target.dialogs("mia").mkdir()
    target.archived("mia").mkdir()
    with target.current("mia").open("ab", buffering=0) as file:
        file.write(b"role: user\ncontent: Hi\n")
        target.dialogs("mia").mkdir()
        file.write(b"---\n")
    for folder in (target.dialogs("mia"), target.archived("mia")):
        with pytest.raises(FileExistsError):
            folder.mkdir()
    with pytest.raises(PermissionError):
        (target.users / "mia/metadata.yaml").unlink()


def test_a_user_is_restored_though_somebody_asks_for_what_is_there_yet(target: Mount) -> None:
    (target.users / "mia").mkdir()
    for _ in range(3):
        assert os.listdir(target.dialogs("mia")) == ["archived"]
        target.dialogs("mia").mkdir()
    target.current("mia").write_bytes(b'role: user\ncontent: Hi\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n')
    target.archived("mia").mkdir()


def test_a_restored_journal_is_one_for_its_library(source: Mount, target: Mount, tmp_path: Path) -> None:
    rsync(f"{source.users}/", f"{target.users}/")
    with open_journal(f"file://{tmp_path}/source") as one, open_journal(_url(target)) as other:
        for user in one.users():
            assert other.read_bytes(user) == one.read_bytes(user)
            assert {archive.name for archive in other.backend.archives(user)} == {
                archive.name for archive in one.backend.archives(user)
            }
        assert other.get_stats().total_messages == one.get_stats().total_messages


def _url(mount: Mount) -> str:
    return mount.where


def test_a_copy_that_was_interrupted_is_gone_on_with(source: Mount, target: Mount, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    rsync(f"{source.users}/", f"{backup}/")
    whole = (backup / "mia/dialogs/current.yaml").read_bytes()
    older = (backup / "mia/dialogs/archived/older.yaml").read_bytes()
    (target.users / "mia").mkdir()
    # As `rsync --inplace` leaves it when it is killed, in the middle of a record.
    target.current("mia").write_bytes(whole[: len(whole) // 2])
    (target.archived("mia") / "older.yaml").write_bytes(older[: len(older) - 10])
    done = run("rsync", "-a", "--append-verify", f"{backup}/", f"{target.users}/")
    # What is shown of mia by then is no beginning of metadata.yaml, which it finds out, and copies it as a whole.
    assert done.returncode == 0
    assert re.fullmatch(r"(WARNING: \S+/metadata.yaml failed verification .*\n)*", done.stderr)
    assert contents(target.users) == contents(source.users)
    assert rsync(f"{backup}/", f"{target.users}/") == ""


def test_an_interrupted_copy_in_place_is_gone_on_with_in_place(source: Mount, target: Mount, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    rsync(f"{source.users}/", f"{backup}/")
    whole = (backup / "mia/dialogs/current.yaml").read_bytes()
    older = (backup / "mia/dialogs/archived/older.yaml").read_bytes()
    (target.users / "mia").mkdir()
    target.current("mia").write_bytes(whole[: len(whole) // 2])
    (target.archived("mia") / "older.yaml").write_bytes(older[: len(older) - 10])
    rsync("--inplace", f"{backup}/", f"{target.users}/")
    assert contents(target.users) == contents(source.users)
    assert rsync(f"{backup}/", f"{target.users}/") == ""


def test_what_is_there_and_something_else_is_left_alone(source: Mount, target: Mount, tmp_path: Path) -> None:
    target.expect_warning("holds something else|ends at byte|do not go on where")
    with open_journal(_url(target)) as journal:
        journal.add_message("mia", ChatMessage("user", "Something else", "2024-03-01T00:00:00.000Z"))
        journal.archive_conversation("mia", "older")
        journal.add_message("mia", ChatMessage("user", "And more", "2024-03-02T00:00:00.000Z"))
    before = contents(target.dialogs("mia"))
    # Where it writes in place, rsync gives up at the first write that is refused (error in file IO); else it goes on.
    for options, codes in (([], {23}), (["--inplace"], {11, 23}), (["--append-verify"], {11, 23})):
        done = run("rsync", "-a", *options, f"{source.users}/", f"{target.users}/")
        assert done.returncode in codes
        assert "Operation not permitted" in done.stderr
        after = contents(target.dialogs("mia"))
        assert {name: after[name][1] for name in before} == {name: data for name, (_, data) in before.items()}
        # Everything else is in place.
        assert contents(target.users / "Zoë") == contents(source.users / "Zoë")


def test_rsync_delete_takes_nothing_away(source: Mount, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = contents(source.users)
    for options in (["--delete"], ["--delete", "--inplace"], ["--delete-excluded", "--exclude=current.yaml"]):
        done = run("rsync", "-a", *options, f"{tmp_path}/empty/", f"{source.users}/")
        assert done.returncode == 23
        assert "Operation not permitted" in done.stderr
        after = contents(source.users)
        # What was rejected may be removed, and nothing else may.
        assert after == {name: entry for name, entry in before.items() if "/rejected/" not in name}


def test_foreign_modes_and_owners_end_in_exit_23_with_everything_in_place(
    source: Mount, target: Mount, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    rsync(f"{source.users}/", f"{backup}/")
    assert shell('chmod -R a+rX "$B" && chown -R 12345:12345 "$B"', B=backup).returncode == 0
    done = run("rsync", "-a", f"{backup}/", f"{target.users}/")
    assert done.returncode == 23
    assert contents(target.users) == contents(source.users)


def test_a_backup_of_files_beside_a_mount_is_no_other_than_one_through_it(
    mount_at: Callable[..., Mount], tmp_path: Path
) -> None:
    """Both are trees of the same names; what only the folder has is hidden, and the mount takes none of it."""
    with open_journal(f"file://{tmp_path}/source") as journal:
        everything_in(journal)
    target = mount_at(tmp_path / "target")
    done = run("rsync", "-a", "--exclude=.*", f"{tmp_path}/source/users/", f"{target.users}/")
    assert (done.returncode, done.stderr) == (0, "")
    with open_journal(f"file://{tmp_path}/target") as restored:
        assert sorted(restored.users()) == sorted(
            os.listdir(tmp_path / "source/users") and ["..", "Zoë", "a/b", "mia", "silent"]
        )
        for user in ("mia", "a/b"):
            with open_journal(f"file://{tmp_path}/source") as one:
                assert restored.read_bytes(user) == one.read_bytes(user)
