"""What an append-only file refuses: each with its errno, and nothing changed."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from potofs import ChatMessage, open_journal
from tests.mounts import Mount, mounted, run, shell

SAID = ChatMessage("user", "Where is my order?", "2024-01-15T10:30:00.000Z")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount on which mia and max have an archive and a running conversation each; shared, for nothing changes."""
    place = tmp_path_factory.mktemp("refusals")
    with open_journal(f"file://{place}/journal") as journal:
        for user in ("mia", "max"):
            journal.add_message(user, SAID)
            journal.archive_conversation(user, "older")
            journal.add_message(user, ChatMessage("user", "And now?", "2024-01-16T10:30:00.000Z"))
    with mounted(place / "journal", place / "mnt") as mount:
        yield mount


def everything(directory: Path) -> dict[Path, tuple[int, bytes | list[str]]]:
    """All of a tree: inode numbers, names and contents. The figures in metadata.yaml are made on reading.

    But for the contents of system/, which count who reads them.
    """
    return {
        path: (path.stat().st_ino, sorted(os.listdir(path)) if path.is_dir() else path.read_bytes())
        for path in [directory, *directory.rglob("*")]
        if path.parent.name != "system"
    }


SHELL = {
    "echo": 'echo hello >> "$CURRENT"',
    "overwrite": ': > "$CURRENT"',
    "overwrite_with_text": 'echo hello > "$CURRENT"',
    "tee": 'echo hello | tee "$CURRENT"',
    "tee_append_of_no_message": 'echo hello | tee -a "$CURRENT"',
    "rm": 'rm -f "$CURRENT"',
    "rm_archive": 'rm -f "$ARCHIVE"',
    "rm_recursively": 'rm -rf "$USERS/mia"',
    "rmdir": 'rmdir "$USERS/mia/dialogs/archived"',
    "truncate": 'truncate -s 0 "$CURRENT"',
    "truncate_shorter": 'truncate -s 10 "$CURRENT"',
    "truncate_longer": 'truncate -s +10 "$CURRENT"',
    "truncate_archive": 'truncate -s 0 "$ARCHIVE"',
    "cp_onto": 'cp /etc/hostname "$CURRENT"',
    "cp_beside": 'cp /etc/hostname "$USERS/mia/dialogs/notes.txt"',
    "cp_force": 'cp --remove-destination /etc/hostname "$CURRENT"',
    "mv_onto": 'mv "$ELSEWHERE" "$CURRENT"',
    "sed": 'sed -i s/order/dog/ "$CURRENT"',
    "perl": """perl -pi -e 's/order/dog/' "$CURRENT" || exit; cmp "$CURRENT" "$COPY" && exit 1""",
    "dd": 'dd if=/etc/hostname of="$CURRENT"',
    "dd_conv": 'dd if=/etc/hostname of="$CURRENT" conv=notrunc',
    "ln": 'ln "$CURRENT" "$USERS/mia/dialogs/other.yaml"',
    "ln_s": 'ln -s "$CURRENT" "$USERS/mia/dialogs/other.yaml"',
    "mkfifo": 'mkfifo "$USERS/mia/dialogs/pipe"',
    "chmod": 'chmod 644 "$CURRENT"',
    "chmod_archive": 'chmod 644 "$ARCHIVE"',
    "chown": 'chown 12345 "$CURRENT"',
    "mkdir_in_dialogs": 'mkdir "$USERS/mia/dialogs/2024"',
    "mkdir_beside_users": 'mkdir "$MOUNT/other"',
    "mkdir_hidden": 'mkdir "$USERS/.git"',
    "mkdir_other_spelling": 'mkdir "$USERS/%6Dia"',
    "mv_to_other_user": 'mv "$CURRENT" "$USERS/max/dialogs/archived/stolen.yaml"',
    "mv_onto_other_user": 'mv -f "$CURRENT" "$USERS/max/dialogs/current.yaml"',
    "mv_beside": 'mv "$CURRENT" "$USERS/mia/dialogs/old.yaml"',
    "mv_onto_archive": 'mv -f "$CURRENT" "$ARCHIVE"',
    "mv_to_other_suffix": 'mv "$CURRENT" "$USERS/mia/dialogs/archived/old.txt"',
    "mv_user": 'mv "$USERS/mia" "$USERS/mio"',
    "mv_metadata": 'mv "$USERS/mia/metadata.yaml" "$USERS/mia/dialogs/"',
    "append_to_archive": 'cat "$COPY" >> "$ARCHIVE"',
    "append_to_metadata": 'echo "a: b" >> "$USERS/mia/metadata.yaml"',
    "append_to_stats": 'echo "a: b" >> "$MOUNT/system/stats.yaml"',
    "write_health": 'echo "a: b" > "$MOUNT/system/health.yaml"',
    "rm_log": 'rm "$MOUNT/system/cleanup.log"',
    "truncate_log": 'truncate -s 1 "$MOUNT/system/cleanup.log"',
    "touch_metrics": 'touch "$MOUNT/system/metrics.prom"',
    "chmod_configuration": 'chmod 644 "$MOUNT/config/journal-config.yaml"',
    "mv_configuration": 'mv "$MOUNT/config/journal-config.yaml" "$MOUNT/config/old.yaml"',
    "cp_into_system": 'cp "$COPY" "$MOUNT/system/other.yaml"',
    "mkdir_in_config": 'mkdir "$MOUNT/config/other"',
    "write_metadata": 'echo "a: b" > "$USERS/mia/metadata.yaml"',
}


@pytest.mark.parametrize("command", SHELL.values(), ids=SHELL)
def test_a_command_that_would_change_what_was_said_fails_and_changes_nothing(
    spoken: Mount, tmp_path: Path, command: str
) -> None:
    spoken.expect_warning(": line 1, column 1: this is not a mapping")
    elsewhere, copy = tmp_path / "elsewhere.yaml", tmp_path / "copy.yaml"
    copy.write_bytes(spoken.current("mia").read_bytes())
    elsewhere.write_text("role: user\ncontent: Not what mia said\n---\n")
    before = everything(spoken.path)
    done = shell(
        command,
        MOUNT=spoken.path,
        USERS=spoken.users,
        CURRENT=spoken.current("mia"),
        ARCHIVE=spoken.archived("mia") / "older.yaml",
        ELSEWHERE=elsewhere,
        COPY=copy,
    )
    assert done.returncode != 0
    assert done.stderr != ""
    assert everything(spoken.path) == before


Call = Callable[[Mount], object]


def write_to(path: Path, flags: int) -> None:
    """Opens it so, and writes to its beginning."""
    descriptor = os.open(path, flags)
    try:
        os.write(descriptor, b"Role")
    finally:
        os.close(descriptor)


CALLS: dict[str, tuple[int, Call]] = {
    "write without O_APPEND": (errno.EPERM, lambda at: write_to(at.current("mia"), os.O_WRONLY)),
    "write to what is open to read, too": (errno.EPERM, lambda at: write_to(at.current("mia"), os.O_RDWR)),
    "write to an archive": (errno.EPERM, lambda at: write_to(at.archived("mia") / "older.yaml", os.O_WRONLY)),
    "open with O_TRUNC": (errno.EPERM, lambda at: os.open(at.current("mia"), os.O_WRONLY | os.O_APPEND | os.O_TRUNC)),
    "open for reading with O_TRUNC": (errno.EPERM, lambda at: os.open(at.current("mia"), os.O_RDONLY | os.O_TRUNC)),
    "open an archive to append": (
        errno.EPERM,
        lambda at: os.open(at.archived("mia") / "older.yaml", os.O_WRONLY | os.O_APPEND),
    ),
    "create an unknown name": (
        errno.EPERM,
        lambda at: os.open(at.dialogs("mia") / "a.yaml", os.O_WRONLY | os.O_APPEND | os.O_CREAT),
    ),
    "truncate": (errno.EPERM, lambda at: os.truncate(at.current("mia"), 3)),
    "unlink": (errno.EPERM, lambda at: at.current("mia").unlink()),
    "unlink what is not there": (errno.ENOENT, lambda at: (at.archived("mia") / "none.yaml").unlink()),
    "rmdir": (errno.EPERM, lambda at: at.archived("mia").rmdir()),
    "link": (errno.EPERM, lambda at: os.link(at.current("mia"), at.dialogs("mia") / "l.yaml")),
    "symlink": (errno.EPERM, lambda at: os.symlink("x", at.dialogs("mia") / "l.yaml")),
    "mknod": (errno.EPERM, lambda at: os.mkfifo(at.dialogs("mia") / "p")),
    "chmod": (errno.EPERM, lambda at: at.current("mia").chmod(0o644)),
    "chown": (errno.EPERM, lambda at: os.chown(at.current("mia"), 12345, 12345)),
    "mkdir of a user that exists": (errno.EEXIST, lambda at: (at.users / "mia").mkdir()),
    "mkdir of a hidden name": (errno.EPERM, lambda at: (at.users / ".hidden").mkdir()),
    "mkdir of a name too long": (errno.ENAMETOOLONG, lambda at: (at.users / ("%25" * 86)).mkdir()),
    "mkdir of a name that is no text": (errno.EPERM, lambda at: os.mkdir(os.fsencode(at.users) + b"/\xff")),
    "archive over an archive": (
        errno.EEXIST,
        lambda at: os.rename(at.current("mia"), at.archived("mia") / "older.yaml"),
    ),
    "rename to another user": (errno.EPERM, lambda at: os.rename(at.current("mia"), at.archived("max") / "x.yaml")),
    "rename what is not there": (errno.ENOENT, lambda at: os.rename(at.archived("mia") / "no.yaml", at.path / "x")),
    "rename a user": (errno.EPERM, lambda at: os.rename(at.users / "mia", at.users / "mio")),
    "list a file": (errno.ENOTDIR, lambda at: os.listdir(at.current("mia"))),
    "read a directory": (errno.EISDIR, lambda at: at.users.read_bytes()),
    "write a directory": (errno.EISDIR, lambda at: os.open(at.users, os.O_WRONLY)),
    "look up a user who is not there": (errno.ENOENT, lambda at: os.stat(at.users / "nobody")),
    "set an extended attribute": (errno.EOPNOTSUPP, lambda at: os.setxattr(at.current("mia"), "user.a", b"b")),
}


@pytest.mark.parametrize(("number", "call"), CALLS.values(), ids=CALLS)
def test_a_refused_call_answers_with_its_errno_and_changes_nothing(spoken: Mount, number: int, call: Call) -> None:
    before = everything(spoken.path)
    with pytest.raises(OSError) as refused:
        call(spoken)
    assert errno.errorcode[refused.value.errno or 0] == errno.errorcode[number]
    assert everything(spoken.path) == before


def test_what_tools_set_to_its_present_value_is_taken(spoken: Mount) -> None:
    path = spoken.current("mia")
    present = path.stat()
    before = everything(spoken.path)
    os.truncate(path, present.st_size)
    with path.open("ab") as appending:
        os.ftruncate(appending.fileno(), present.st_size)
    path.chmod(present.st_mode)
    os.chown(path, present.st_uid, present.st_gid)
    os.chown(path, -1, -1)
    assert everything(spoken.path) == before
    os.utime(path, ns=(1_700_000_000_000_000_000, 1_700_000_000_123_456_789))
    assert path.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert run("touch", path).returncode == 0
    assert path.stat().st_mtime_ns > 1_700_000_000_123_456_789


@pytest.mark.parametrize("folder", ["", "dialogs", "dialogs/archived"])
def test_a_name_that_nothing_can_have_is_refused_whatever_is_done_with_it(spoken: Mount, folder: str) -> None:
    place = os.fsencode(spoken.users / f"mia/{folder}") + b"/"
    fine = place + b".fine"
    os.close(os.open(fine, os.O_CREAT | os.O_WRONLY))
    try:
        for name, creating, looking in (
            (b".\xff\xfe", errno.EPERM, errno.ENOENT),
            (b"\xff\xfe.yaml", errno.EPERM, errno.ENOENT),
            (b"." + b"x" * 255, errno.ENAMETOOLONG, errno.ENAMETOOLONG),
            (b"x" * 256, errno.ENAMETOOLONG, errno.ENAMETOOLONG),
        ):
            for attempt, expected in (
                (lambda path: os.open(path, os.O_CREAT | os.O_WRONLY), creating),
                (lambda path: os.rename(fine, path), creating),
                (os.stat, looking),
                (lambda path: os.rename(path, fine), looking),
                (os.unlink, looking),
            ):
                with pytest.raises(OSError, match=re.escape(os.strerror(expected))) as refused:
                    attempt(place + name)
                assert refused.value.errno == expected
        assert b".fine" in os.listdir(place)
    finally:
        os.unlink(fine)
