"""The owner map: each system user enters their own folder and no other; a mistake is said with its line."""

import os
import pwd
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from potofs import ChatMessage, open_journal
from potofs.errors import ConfigError
from potofs.fuse.permissions import Owner, Owners
from potofs.mount import owners
from tests.mounts import Mount, is_mounted, potofs, processes_of, system_user, wait_until

MIA, NOAH, STRANGER = 5001, 5002, 5003
RECORD = 'role: user\ncontent: number {0}\ntimestamp: "2024-01-15T10:30:{0:02d}.000Z"\n---\n'


@pytest.fixture
def owner_map(tmp_path: Path) -> Path:
    path = tmp_path / "owners.yaml"
    path.write_text(f"users:\n  mia: {MIA}\n  noah: {NOAH}\n")
    return path


@pytest.fixture
def mount(root: Path, owner_map: Path, mount_at: Callable[..., Mount]) -> Mount:
    """A mount that others may enter, with three users, of whom two are mapped."""
    with open_journal(f"file://{root}") as journal:
        for user in ("mia", "noah", "zoe"):
            journal.add_message(user, ChatMessage("user", "number 1", "2024-01-15T10:30:01.000Z"))
    return mount_at(root, "-o", "allow_other", f"--owners={owner_map}")


def succeeds(uid: int, script: str, mount: Mount) -> str:
    done = system_user(uid, script, mount.path)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def is_refused(uid: int, script: str, mount: Mount) -> None:
    done = system_user(uid, script, mount.path)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_each_enters_their_own_folder_and_lists_no_ids(mount: Mount) -> None:
    for uid, own, other in ((MIA, "mia", "noah"), (NOAH, "noah", "mia")):
        assert succeeds(uid, f"cat users/{own}/dialogs/current.yaml", mount) == RECORD.format(1)
        assert succeeds(uid, f"ls users/{own}", mount).split() == ["dialogs", "metadata.yaml"]
        assert "totalMessages: 1" in succeeds(uid, f"cat users/{own}/metadata.yaml", mount)
        for stranger in (other, "zoe"):
            for script in ("ls users/{}", "cat users/{}/dialogs/current.yaml", "cat users/{}/metadata.yaml"):
                is_refused(uid, script.format(stranger), mount)
            is_refused(uid, f"echo x >> users/{stranger}/dialogs/current.yaml", mount)
            is_refused(uid, f"mv users/{stranger}/dialogs/current.yaml users/{stranger}/dialogs/archived/", mount)
            is_refused(uid, f"mv users/{own}/dialogs/current.yaml users/{stranger}/dialogs/archived/", mount)
        for script in ("ls .", "ls users", "mkdir users/new", "mkdir new", f"rmdir users/{other}", "touch users/x"):
            is_refused(uid, script, mount)
    for script in ("ls users", "ls users/mia", "cat users/noah/dialogs/current.yaml"):
        is_refused(STRANGER, script, mount)


def test_owners_and_modes_are_shown(mount: Mount) -> None:
    own = f"{os.getuid()} {os.getgid()}"
    shown = succeeds(0, "stat -c '%A %u %g %n' . users users/* users/mia/dialogs users/mia/dialogs/current.yaml", mount)
    assert shown.splitlines() == [
        f"drwx--x--x {own} .",
        f"drwx--x--x {own} users",
        f"drwx------ {MIA} {MIA} users/mia",
        f"drwx------ {NOAH} {NOAH} users/noah",
        f"drwx------ {own} users/zoe",
        f"drwx------ {MIA} {MIA} users/mia/dialogs",
        f"-rw------- {MIA} {MIA} users/mia/dialogs/current.yaml",
    ]


def test_in_their_own_folder_they_do_what_there_is_to_do(mount: Mount, root: Path) -> None:
    mount.expect_warning("user 'mia'")
    own = "users/mia/dialogs"
    succeeds(MIA, f"printf '{RECORD.format(2)}' >> {own}/current.yaml", mount)
    succeeds(MIA, f"touch {own}/current.yaml", mount)
    succeeds(MIA, f"mv {own}/current.yaml {own}/archived/refund.yaml", mount)
    assert succeeds(MIA, f"ls {own} {own}/archived", mount).split() == [
        *(f"{own}:", "archived", f"{own}/archived:", "refund.yaml")
    ]
    # One that is not there yet is theirs to begin.
    succeeds(MIA, f"printf '{RECORD.format(3)}' >> {own}/current.yaml", mount)
    assert succeeds(MIA, f"cat {own}/archived/refund.yaml", mount) == RECORD.format(1) + RECORD.format(2)
    assert system_user(MIA, f"/bin/echo 'role: user' >> {own}/current.yaml", mount.path).returncode != 0
    wait_until((mount.dialogs("mia") / "rejected").is_dir, "what was no message is set aside")
    is_refused(NOAH, f"ls {own}/rejected", mount)
    is_refused(NOAH, f"cat {own}/archived/refund.yaml", mount)
    assert succeeds(MIA, f"cat {own}/rejected/*", mount) == "role: user\n"
    succeeds(MIA, f"rm {own}/rejected/*", mount)
    # What nobody may do, they may not either, and it is refused for that reason.
    for script in (f"rm {own}/current.yaml", "mkdir users/mia/new", f"chmod 777 {own}"):
        done = system_user(MIA, script, mount.path)
        assert done.returncode != 0
        assert "Operation not permitted" in done.stderr
    # As owner of the archive: to give it away is not theirs to do.
    assert system_user(MIA, f"chown {NOAH} {own}/archived/refund.yaml", mount.path).returncode != 0
    assert (root / "users/mia/dialogs/current.yaml").read_text() == RECORD.format(3)


def test_what_they_copy_in_their_own_folder_is_theirs(mount: Mount) -> None:
    own = "users/mia/dialogs"
    succeeds(MIA, f"cp {own}/current.yaml {own}/archived/copy.yaml && cp {own}/current.yaml {own}/.scratch", mount)
    for name in ("archived/copy.yaml", ".scratch"):
        assert succeeds(MIA, f"stat -c '%u %a' {own}/{name}", mount) == f"{MIA} 600\n"
        assert succeeds(MIA, f"cat {own}/{name}", mount) == RECORD.format(1)
        is_refused(NOAH, f"cat {own}/{name}", mount)
    # As whoever restores a backup as root does: a copy is its owner's, whatever the copy was.
    succeeds(0, f"cp {own}/current.yaml {own}/.new && chown {NOAH} {own}/.new && mv {own}/.new {own}/archived/", mount)
    is_refused(NOAH, f"cat {own}/archived/copy.yaml", mount)
    succeeds(0, f"mv {own}/archived/.new {own}/archived/new.yaml", mount)
    assert succeeds(MIA, f"stat -c '%u %a' {own}/archived/new.yaml", mount) == f"{MIA} 600\n"
    is_refused(NOAH, f"printf x > {own}/.mine", mount)
    succeeds(MIA, f"rm {own}/.scratch", mount)


def test_no_mask_opens_a_folder_to_all(root: Path, owner_map: Path, mount_at: Callable[..., Mount]) -> None:
    mount = mount_at(root, "-o", f"allow_other,umask=000,gid=4242,owners={owner_map}")
    for user in ("mia", "noah"):
        (mount.users / user).mkdir()
    is_refused(NOAH, "ls users/mia", mount)
    is_refused(NOAH, "ls users", mount)
    assert system_user(STRANGER, "ls users/mia users", mount.path, gid=4242).returncode == 0


def test_a_mask_opens_a_folder_to_no_group_but_one_that_was_named(
    root: Path, owner_map: Path, mount_at: Callable[..., Mount]
) -> None:
    mount = mount_at(root, "-o", f"allow_other,umask=027,owners={owner_map}")
    for user in ("mia", "zoe"):
        mount.dialogs(user).parent.mkdir()
        mount.current(user).write_text(RECORD.format(1))
    # That of the mount, and that of the owner, whom somebody else may share it with.
    for gid in (os.getgid(), MIA):
        for user in ("mia", "zoe"):
            for script in (f"ls users/{user}", f"cat users/{user}/dialogs/current.yaml"):
                done = system_user(STRANGER, script, mount.path, gid=gid)
                assert done.returncode != 0
                assert "Permission denied" in done.stderr


def test_sighup_reads_it_again_and_one_with_a_mistake_changes_nothing(mount: Mount, owner_map: Path) -> None:
    def reload(text: str, word: str) -> None:
        before = mount.log.stat().st_size
        owner_map.write_text(text)
        os.kill(mount.daemon, signal.SIGHUP)
        wait_until(lambda: word in mount.log.read_bytes()[before:].decode(), f"the log says {word}")

    def enters(uid: int, user: str) -> Callable[[], bool]:
        return lambda: system_user(uid, f"cat users/{user}/dialogs/current.yaml", mount.path).returncode == 0

    assert enters(NOAH, "noah")()
    mount.expect_warning("the owner map stays as it was")
    reload(f"users:\n  mia: {MIA}\n  mia: {NOAH}\n", f"{owner_map}, line 3: 'mia' stands twice")
    assert enters(NOAH, "noah")()
    assert not enters(NOAH, "mia")()
    reload(f"users:\n  mia: {NOAH}\ndefault: {STRANGER}\n", "is in force")
    # The kernel may remember for a second.
    assert wait_until(lambda: not enters(MIA, "mia")(), "who is not the owner any more does not enter") < 2
    assert wait_until(enters(NOAH, "mia"), "the new owner does") < 2
    assert wait_until(enters(STRANGER, "zoe"), "everybody else's are the default's") < 2
    assert not enters(NOAH, "noah")()
    owner_map.unlink()
    os.kill(mount.daemon, signal.SIGHUP)
    wait_until(lambda: f"{owner_map}: No such file" in mount.log.read_text(), "the log says what is missing")
    assert enters(NOAH, "mia")()


@contextmanager
def hanging(pipe: Path) -> Iterator[None]:
    """A pipe, that somebody opens and to which nothing is written as long as it lasts."""
    writers: list[int] = []

    def has_reader() -> bool:
        with suppress(OSError):
            writers.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    wait_until(has_reader, f"{pipe} is read")
    try:
        yield
    finally:
        os.close(*writers)


def test_a_reload_that_hangs_keeps_nobody_from_ending_the_mount(mount: Mount, owner_map: Path) -> None:
    owner_map.unlink()
    os.mkfifo(owner_map)
    os.kill(mount.daemon, signal.SIGHUP)
    with hanging(owner_map):
        assert os.listdir(mount.path) == ["config", "system", "users"]
        os.kill(mount.daemon, signal.SIGTERM)
        wait_until(lambda: not processes_of(mount.path), "the daemon has ended")
        assert not is_mounted(mount.path)


def test_names_and_numbers_stand_for_system_users(tmp_path: Path) -> None:
    path = tmp_path / "owners.yaml"
    path.write_text("# all of them\nusers:\n  mia: nobody\n  007: 5002\n  yes: '5003'\n  a/b: root\ndefault: daemon\n")
    found = owners.read(str(path), None)
    assert found == Owners(
        {
            "mia": Owner(65534, pwd.getpwnam("nobody").pw_gid),
            "007": Owner(5002, 5002),
            "yes": Owner(5003, 5003),
            "a/b": Owner(0, 0),
        },
        Owner(1, pwd.getpwnam("daemon").pw_gid),
    )
    assert owners.read(str(path), 4242).by_user["mia"] == Owner(65534, 4242)
    path.write_text("default: 5002")
    assert owners.read(str(path), None) == Owners({}, Owner(5002, 5002))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ": this is not a map: write `users:`, and below it a line `id: system user` for each"),
        ("- mia\n", ", line 1: this is not a map: write "),
        ("users:\n- mia: 1\n", ", line 2: users is not a map: write "),
        ("users:\n  mia: 1\n  noah: 2\n  mia: 3\n", ", line 4: 'mia' stands twice: take one of them out"),
        ("users: {mia: 1}\nusers: {noah: 2}\n", ", line 2: 'users' stands twice"),
        ("users:\n  mia: 1\n  noah: no-such-user\n", ", line 3: there is no system user 'no-such-user': make one"),
        ("users:\n  mia: 1\ndefault: no-such-user\n", ", line 3: there is no system user 'no-such-user'"),
        ("users:\n  mia:\n", ", line 2: a system user is a name or a number"),
        ("users:\n  mia: [1, 2]\n", ", line 2: a system user is a name or a number"),
        ("users:\n  mia: 4294967295\n", ", line 2: no system user has the number 4294967295"),
        ("users:\n  ? [mia]\n  : 1\n", ", line 2: an id has to be text"),
        ("mia: 1\n", ", line 1: unknown key 'mia': there are users and default"),
        ("users: {\n", ", line 2: while parsing a flow node, did not find expected node content"),
        ("users:\n  mia: 1\n--- 2\n", ", line 3: expected a single document in the stream, but found another document"),
        (b"users:\n  \xff: 1\n", ": not UTF-8: invalid start byte"),
    ],
)
def test_a_mistake_is_said_with_its_line(tmp_path: Path, text: str | bytes, reason: str) -> None:
    path = tmp_path / "owners.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as refused:
        owners.read(str(path), None)
    assert str(refused.value).startswith(f"{path}{reason}")


def test_a_mistake_is_said_before_anything_is_mounted(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "owners.yaml"
    path.write_text("users:\n  mia: no-such-user\n")
    for missing in (path, tmp_path / "none.yaml"):
        done = potofs("mount", tmp_path / "mnt", "--root", root, "--owners", missing)
        assert done.returncode == 1
        assert re.fullmatch(rf"potofs: {missing}(, line 2: there is|: No such file).*\n", done.stderr)
        assert not is_mounted(tmp_path / "mnt")
    assert not root.exists()
