"""A mount's life: begun, killed, repaired, refused, ended."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyfuse3
import pytest

from potofs import ChatMessage, DialogueJournal, config, open_journal
from potofs.cli import mounting
from potofs.mount import daemon, logs, owners, running
from potofs.mount.mountpoints import MountError
from potofs.mount.options import MountOptions
from tests.mounts import Mount, is_mounted, mounted, opened_to_append, potofs, processes_of, run, wait_until

#: What the kernel says of a mount whose daemon is gone.
GONE = (errno.ENOTCONN, errno.ECONNABORTED)


def message(number: int) -> str:
    return f'role: user\ncontent: number {number}\ntimestamp: "2024-01-15T10:30:{number:02d}.000Z"\n---\n'


def test_a_mount_answers_when_the_command_returns(mount: Mount) -> None:
    assert os.listdir(mount.path) == ["config", "system", "users"]
    assert is_mounted(mount.path)
    assert f"is mounted at {mount.path}" in mount.log.read_text()


def test_without_any_option_the_journal_is_below_the_present_folder(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    try:
        assert potofs("mount", "./mnt", "--log", place / "log", cwd=place).returncode == 0
        (place / "mnt/users/mia").mkdir()
        assert (place / "data/dialogues/users/mia/dialogs/archived").is_dir()
    finally:
        done = potofs("umount", "mnt", cwd=place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wait_until(lambda: not processes_of(place / "mnt"), "nobody serves the place")


def test_a_root_and_a_mountpoint_may_have_any_name(tmp_path: Path) -> None:
    for name in ("Jürgen", "日本 語", "a,b", "back\\slash", "per%20cent", "'\"$x"):
        place = tmp_path / name
        with mounted(place / "journal", place / "mnt") as mount:
            (mount.users / "mia").mkdir()
            assert (place / "journal/users/mia").is_dir()


def test_umount_ends_the_daemon_and_leaves_the_folder_empty(mount: Mount) -> None:
    daemon = mount.daemon
    assert potofs("umount", mount.path).returncode == 0
    assert daemon not in processes_of(mount.path)
    assert os.listdir(mount.path) == []
    done = potofs("umount", mount.path)
    assert (done.returncode, done.stderr) == (1, f"potofs: nothing of potofs is mounted at {mount.path}\n")


def test_a_killed_daemon_loses_nothing_and_the_same_command_mounts_again(
    mount: Mount, journal: DialogueJournal
) -> None:
    (mount.users / "mia").mkdir()
    with opened_to_append(mount.current("mia")) as held:
        for number in range(30):
            os.write(held, message(number).encode())
        os.write(held, b"role: user\n")
        mount.kill()
        with pytest.raises(OSError) as dead:
            os.write(held, b"content: unfinished\n---\n")
        assert dead.value.errno in GONE
    mount.start()
    assert mount.current("mia").read_text() == "".join(map(message, range(30)))
    with mount.current("mia").open("a") as again:
        again.write(message(30))
    assert len(journal.get_conversation("mia")) == 31


def test_a_dead_mount_is_repaired_by_mounting_over_it(mount: Mount) -> None:
    """With its helper killed as well, nobody has taken the mount away."""
    for process in processes_of(mount.path):
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: not processes_of(mount.path), "the daemon and its helper are gone")
    if is_mounted(mount.path):
        with pytest.raises(OSError) as dead:
            os.listdir(mount.path)
        assert dead.value.errno in GONE
    mount.start()
    assert os.listdir(mount.path) == ["config", "system", "users"]


def test_a_place_with_a_mount_is_not_mounted_twice(mount: Mount, root: Path) -> None:
    done = potofs("mount", mount.path, "--root", root)
    assert done.returncode == 1
    assert done.stderr == (f"potofs: {mount.path} has a potofs mount already: potofs umount {mount.path} ends it\n")
    assert os.listdir(mount.path) == ["config", "system", "users"]


def test_a_folder_with_something_in_it_is_not_hidden_unless_asked(
    root: Path, tmp_path: Path, mount_at: Callable[..., Mount]
) -> None:
    place = tmp_path / "mnt0"
    place.mkdir()
    (place / "precious").touch()
    done = potofs("mount", place, "--root", root)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not empty" in done.stderr
    assert "--nonempty" in done.stderr
    mount = mount_at(root, "--nonempty")
    assert mount.path == place
    assert os.listdir(place) == ["config", "system", "users"]
    mount.finish()
    assert os.listdir(place) == ["precious"]


def test_a_mountpoint_inside_the_journal_is_refused_and_the_other_way_round(tmp_path: Path) -> None:
    inside = potofs("mount", tmp_path / "journal/mnt", "--root", tmp_path / "journal")
    around = potofs("mount", tmp_path, "--root", tmp_path / "journal")
    for done in (inside, around):
        assert done.returncode == 1
        assert "cannot be inside one another" in done.stderr


def test_a_mount_in_use_is_not_taken_away_unless_asked(mount: Mount) -> None:
    (mount.users / "mia").mkdir()
    with mount.current("mia").open("ab", buffering=0) as held:
        held.write(message(1).encode())
        done = potofs("umount", mount.path)
        assert done.returncode == 1
        assert "is in use" in done.stderr
        held.write(message(2).encode())
        assert potofs("umount", "--lazy", mount.path).returncode == 0
        assert not is_mounted(mount.path)
        held.write(message(3).encode())
        held.seek(0)
    wait_until(lambda: not processes_of(mount.path), "the daemon ends with the last open file")


def test_a_mount_that_is_in_use_for_a_moment_only_is_taken_away(mount: Mount) -> None:
    descriptor = os.open(mount.path, os.O_RDONLY)
    closing = threading.Timer(0.3, os.close, (descriptor,))
    closing.start()
    try:
        done = potofs("umount", mount.path)
    finally:
        closing.join()
    assert (done.returncode, done.stderr) == (0, "")


def test_a_place_can_be_mounted_again_while_programs_still_have_files_of_the_last_mount_open(mount: Mount) -> None:
    (mount.users / "mia").mkdir()
    with mount.current("mia").open("ab", buffering=0) as held:
        held.write(message(1).encode())
        assert potofs("umount", "--lazy", mount.path).returncode == 0
        mount.start()
        held.write(message(2).encode())
        assert mount.current("mia").read_text() == message(1) + message(2)
    assert potofs("umount", mount.path).returncode == 0


def test_places_whose_long_paths_end_alike_are_told_apart(tmp_path: Path, root: Path) -> None:
    ends = [tmp_path / name / ("日" * 44) / "mnt" for name in ("a", "b")]
    for end in ends:
        end.parent.mkdir(parents=True)
    with mounted(root, ends[0]) as one, mounted(root, ends[1]) as other:
        assert one.daemon != other.daemon


def test_a_mountpoint_may_be_a_link(tmp_path: Path, root: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with mounted(root, tmp_path / "real") as mount:
        assert "already" in potofs("mount", tmp_path / "link", "--root", root).stderr
        assert os.listdir(tmp_path / "link") == ["config", "system", "users"]
        mount.kill()
        assert potofs("mount", tmp_path / "link", "--root", root, "--log", mount.log).returncode == 0
        assert os.listdir(tmp_path / "real") == ["config", "system", "users"]
        assert potofs("umount", tmp_path / "link").returncode == 0
        assert not is_mounted(tmp_path / "real")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_sets_aside_what_was_not_finished(
    mount: Mount, root: Path, number: signal.Signals
) -> None:
    mount.expect_warning("are kept in rejected/")
    (mount.users / "mia").mkdir()
    with opened_to_append(mount.current("mia")) as held:
        os.write(held, message(1).encode() + b"role: user\ncontent: unfinished")
        os.kill(mount.daemon, number)
        wait_until(lambda: not processes_of(mount.path), "the daemon has ended")
        with pytest.raises(OSError) as dead:
            os.write(held, b"\n---\n")
        assert dead.value.errno in GONE
    assert not is_mounted(mount.path)
    assert (root / "users/mia/dialogs/current.yaml").read_text() == message(1)
    (kept,) = (root / "users/mia/dialogs/rejected").iterdir()
    assert kept.read_bytes() == b"role: user\ncontent: unfinished"


def test_a_signal_ends_it_while_writers_are_at_work_and_what_was_acknowledged_is_there(
    mount: Mount, journal: DialogueJournal
) -> None:
    mount.expect_warning("are kept in rejected/")
    users = [f"user{number}" for number in range(4)]
    acknowledged: dict[str, int] = {}

    def write(user: str) -> None:
        (mount.users / user).mkdir()
        with opened_to_append(mount.current(user)) as held, suppress(OSError):
            for number in range(1_000_000):
                # In two pieces: one waits in the daemon for the other.
                os.write(held, b"role: user\ncontent: |-\n")
                os.write(held, f'  number {number}\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'.encode())
                acknowledged[user] = number + 1

    writers = [threading.Thread(target=write, args=(user,)) for user in users]
    for writer in writers:
        writer.start()
    wait_until(lambda: len(acknowledged) == 4 and min(acknowledged.values()) > 20, "all have written something")
    os.kill(mount.daemon, signal.SIGTERM)
    for writer in writers:
        writer.join()
    wait_until(lambda: not processes_of(mount.path), "the daemon has ended")
    assert not is_mounted(mount.path)
    for user in users:
        archives = sorted(archive.name for archive in journal.backend.archives(user))
        found = [
            message.content
            for archive in (*archives, None)
            for message in journal.read_conversation(user, archive)
            if isinstance(message, ChatMessage)
        ]
        # One more may have been stored whose writer was not told.
        assert len(found) in (acknowledged[user], acknowledged[user] + 1)
        assert sorted(found) == sorted(f"number {number}" for number in range(len(found)))
    assert list(journal.fsck()) == []


def test_a_log_is_rotated_before_it_is_too_large(tmp_path: Path) -> None:
    record = logging.LogRecord("potofs", logging.INFO, "", 0, "x" * 60_000, None, None)
    umask = os.umask(0)
    try:
        handler = logs.handler_for(str(tmp_path / "log"))
        for _ in range(400):
            handler.emit(record)
    finally:
        os.umask(umask)
    handler.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == ["log", "log.1", "log.2", "log.3"]
    assert max(sizes.values()) <= 4 << 20
    # What users said may be quoted in it.
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_daemons_log_is_its_owners_alone(mount: Mount) -> None:
    assert mount.log.stat().st_mode & 0o777 == 0o600


def test_sighup_changes_nothing(mount: Mount) -> None:
    os.kill(mount.daemon, signal.SIGHUP)
    wait_until(lambda: "SIGHUP" in mount.log.read_text(), "the daemon has noticed")
    assert os.listdir(mount.path) == ["config", "system", "users"]


def test_in_the_foreground_it_logs_to_standard_error_until_it_is_interrupted(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    with subprocess.Popen(
        [sys.executable, "-m", "potofs", "mount", place, "--root", root, "--foreground"],
        stderr=subprocess.PIPE,
        text=True,
    ) as daemon:
        try:
            assert daemon.stderr is not None
            assert "is mounted at" in daemon.stderr.readline()
            assert os.listdir(place) == ["config", "system", "users"]
            daemon.send_signal(signal.SIGINT)
            assert daemon.wait(30) == 0
        finally:
            daemon.kill()
        assert "Traceback" not in daemon.stderr.read()
    assert not is_mounted(place)


def test_two_mounts_of_one_root_show_the_same(root: Path, mount_at: Callable[..., Mount]) -> None:
    one, other = mount_at(root), mount_at(root)
    (one.users / "mia").mkdir()
    for number in range(10):
        with (one, other)[number % 2].current("mia").open("a") as file:
            file.write(message(number))
        for mount in (one, other):
            assert mount.current("mia").read_text() == "".join(map(message, range(number + 1)))
    assert one.current("mia").stat().st_ino == other.current("mia").stat().st_ino


def test_inode_numbers_stay_across_mounts(mount: Mount, journal: DialogueJournal) -> None:
    journal.add_message("mia", ChatMessage("user", "Hello", "2024-01-15T10:30:00.000Z"))

    def numbers() -> dict[Path, int]:
        return {path: path.stat().st_ino for path in mount.path.rglob("*")}

    before = numbers()
    assert len(set(before.values())) == len(before)
    assert potofs("umount", mount.path).returncode == 0
    mount.start()
    assert numbers() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--backend=carrier-pigeon:///x"], "no backend is called 'carrier-pigeon'"),
        (["--backend=file:///tmp/x?archiveTreshold=5"], "archiveThreshold"),
        (["--backend=file:///tmp/x?fsync=perhaps"], "fsync"),
        (
            ["--root=/proc/nowhere"],
            "/proc/nowhere: No such file or directory: no journal can be made here, name another",
        ),
        (["--root=/etc/hostname"], "/etc/hostname"),
    ],
)
def test_a_journal_that_cannot_be_reached_is_not_mounted(tmp_path: Path, arguments: list[str], reason: str) -> None:
    done = potofs("mount", tmp_path / "mnt", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert reason in done.stderr
    assert done.stderr.startswith("potofs: ")
    assert done.stderr.count("\n") == 1
    assert not is_mounted(tmp_path / "mnt")


def test_without_fusermount3_it_says_which_package_is_missing(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = potofs("mount", tmp_path / "mnt", "--root", root)
    assert (done.returncode, done.stderr) == (1, "potofs: fusermount3 is missing: install the package fuse3\n")


def test_why_the_system_does_not_mount_it_is_said(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """libfuse writes it to standard error, and says no more than that it has failed."""

    def fail(*_: object) -> None:
        os.write(2, b"fusermount3: user has no write access to mountpoint /mnt\n")
        raise RuntimeError("fuse_session_mount failed")

    monkeypatch.setattr(pyfuse3, "init", fail)
    with open_journal("memory:") as journal:
        served = daemon.Served(journal, "/mnt", "memory:", MountOptions(), owners.permissions(MountOptions()))
        with pytest.raises(MountError) as refused:
            daemon.serve(served, lambda: None)
    assert str(refused.value) == "/mnt could not be mounted: user has no write access to mountpoint /mnt"
    assert "user has no write access" in capfd.readouterr().err


def test_a_log_that_cannot_be_written_is_said_before_anything_is_mounted(tmp_path: Path, root: Path) -> None:
    done = potofs("mount", tmp_path / "mnt", "--root", root, "--log", "/proc/none/log")
    assert (done.returncode, done.stderr) == (1, "potofs: /proc/none/log: No such file or directory\n")
    assert not is_mounted(tmp_path / "mnt")


def test_a_mountpoint_that_cannot_be_made_is_said_and_leaves_no_log_behind(root: Path) -> None:
    done = potofs("mount", "/proc/nowhere", "--root", root)
    assert (done.returncode, done.stderr) == (
        1,
        "potofs: /proc/nowhere cannot be made: No such file or directory; name a folder that is there, or a place "
        "where one can be made\n",
    )
    assert not Path(running.log_file("/proc/nowhere")).exists()


def test_what_libfuse_says_of_a_mount_that_fails_is_said(root: Path, tmp_path: Path) -> None:
    """Its own reason, and not only in the log. No system takes a source that is longer than a page."""
    place, log = tmp_path / "mnt", tmp_path / "log"
    log.write_text("fuse: of another time\n")
    with pytest.raises(MountError) as refused:
        mounting.start(str(place), config.root(str(root)), MountOptions(log=str(log)), "x" * 5000)
    assert str(refused.value) == f"{place} could not be mounted: mount failed: Invalid argument"
    assert not is_mounted(place)


def test_a_refused_mount_leaves_no_folder_behind(tmp_path: Path, root: Path) -> None:
    (tmp_path / "file").touch()
    for mountpoint, where, reason in (
        (root / "mnt", root, "cannot be inside one another"),
        (tmp_path / "new", tmp_path / "new/journal", "cannot be inside one another"),
        (tmp_path / "new", tmp_path / "file", "Not a directory"),
        (tmp_path / "file", root, "is not a folder"),
    ):
        done = potofs("mount", mountpoint, "--root", where)
        assert done.returncode == 1
        assert reason in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_a_journal_inside_a_mount_is_not_mounted(mount: Mount, tmp_path: Path) -> None:
    done = potofs("mount", tmp_path / "other", "--root", mount.path)
    assert done.returncode == 1
    assert "is itself inside the mount" in done.stderr


@pytest.mark.parametrize("way", ["renamed", "removed"])
def test_nothing_of_a_journal_whose_folder_is_gone_is_shown_as_missing_or_empty(
    mount: Mount, root: Path, journal: DialogueJournal, way: str
) -> None:
    """Else a backup would take it for an order to remove what it has."""
    mount.expect_warning("the journal's folder is gone")
    for user in ("mia", "max"):
        journal.add_message(user, ChatMessage("user", "Hello", "2024-01-15T10:30:00.000Z"))
        journal.archive_conversation(user, "first")
        journal.add_message(user, ChatMessage("user", "Hello again", "2024-01-15T10:31:00.000Z"))
    # Of mia the kernel remembers for a second what was there, and nothing of max.
    before = [*(mount.users / "mia").rglob("*")]
    if way == "renamed":
        root.rename(root.with_name("elsewhere"))
    else:
        shutil.rmtree(root)
    for user in ("mia", "max"):
        folder, current = mount.users / user, mount.current(user)
        of_user: list[Callable[[], object]] = [
            current.read_bytes,
            current.stat,
            partial(current.open, "a"),
            partial(os.listdir, folder),
            partial(os.listdir, folder / "dialogs"),
            partial(os.listdir, folder / "dialogs/archived"),
            (folder / "metadata.yaml").read_bytes,
            (folder / "dialogs/archived/second.yaml").stat,
        ]
        for attempt in of_user:
            with pytest.raises(OSError) as gone:
                attempt()
            assert gone.value.errno == errno.ENODEV
    of_all: tuple[Callable[[], object], ...] = (
        lambda: os.listdir(mount.users),
        lambda: (mount.users / "noah").mkdir(),
        lambda: (mount.path / "system/stats.yaml").read_bytes(),
        lambda: (mount.path / "system/cleanup.log").read_bytes(),
        lambda: os.statvfs(mount.path),
    )
    for attempt in of_all:
        with pytest.raises(OSError) as gone:
            attempt()
        assert gone.value.errno == errno.ENODEV
    assert "the journal's folder is gone" in (mount.path / "system/health.yaml").read_text()
    copied = run("rsync", "-a", "--delete", f"{mount.users}/", f"{root}.copy/")
    assert copied.returncode != 0
    assert not root.exists()
    if way == "renamed":
        root.with_name("elsewhere").rename(root)
        assert {*(mount.users / "mia").rglob("*")} == {*before}


def test_what_a_journal_lies_on_cannot_be_taken_away_while_it_is_mounted(mount: Mount, root: Path) -> None:
    """A descriptor on its folder is what keeps a disk from being unmounted."""
    held = {os.readlink(path) for path in Path(f"/proc/{mount.daemon}/fd").iterdir()}
    assert str(root) in held
