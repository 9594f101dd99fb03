"""The same mount on every backend: what is appended is said, whatever keeps the bytes."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs import ChatMessage, open_journal
from tests import redis_servers
from tests.mounts import Mount, potofs, run, shell, wait_until

RECORD = 'role: user\ncontent: {}\ntimestamp: "2024-01-15T10:30:{:02d}.000Z"\n---\n'


def record(number: int) -> str:
    return RECORD.format(f"number {number}", number)


@pytest.fixture
def on_redis(tmp_path: Path) -> str:
    """The URL of a journal on a Redis server, under a prefix of its own."""
    return f"redis://{redis_servers.shared().place}?prefix={tmp_path.name}:"


@pytest.fixture(params=["files", "redis", "memory"])
def mount(request: pytest.FixtureRequest, root: Path, mount_at: Callable[..., Mount]) -> Mount:
    """A mount of each backend in turn."""
    if request.param == "redis":
        return mount_at(str(request.getfixturevalue("on_redis")))
    return mount_at("memory:" if request.param == "memory" else root)


def test_a_conversation_is_begun_read_and_gone_on_with(mount: Mount) -> None:
    assert run("mkdir", mount.users / "mia").returncode == 0
    current = mount.current("mia")
    assert not current.exists()
    assert shell(f"cat >> \"$CURRENT\" <<'END'\n{record(1)}END", CURRENT=current).returncode == 0
    with current.open("a") as file:
        file.write(record(2) + "role: assistant\ncontent: |-\n  two\n  lines\n")
    text = current.read_text()
    assert text.startswith(record(1) + record(2))
    assert re.fullmatch(
        r'role: assistant\ncontent: \|-\n  two\n  lines\ntimestamp: "[^"]+"\n---\n', text[len(record(1) + record(2)) :]
    )
    assert int(run("wc", "-c", current).stdout.split()[0]) == len(text)
    assert run("tail", "-c", "4", current).stdout == "---\n"
    assert run("grep", "-rc", "^---$", mount.dialogs("mia")).stdout == f"{current}:3\n"
    assert run("df", mount.path).returncode == 0
    assert "totalMessages: 3" in (mount.users / "mia/metadata.yaml").read_text()


def test_what_is_no_message_is_refused_and_what_was_begun_is_set_aside(mount: Mount) -> None:
    mount.expect_warning("user 'mia': ")
    (mount.users / "mia").mkdir()
    assert shell('echo hello >> "$CURRENT"', CURRENT=mount.current("mia")).returncode != 0
    assert shell('/bin/echo "role: user" >> "$CURRENT"', CURRENT=mount.current("mia")).returncode != 0
    assert not mount.current("mia").exists()
    # Whoever closes a file does not wait for what follows.
    wait_until((mount.dialogs("mia") / "rejected").is_dir, "what was begun is set aside")
    (kept,) = (mount.dialogs("mia") / "rejected").iterdir()
    assert kept.read_text() == "role: user\n"
    kept.unlink()
    for command in ('> "$CURRENT"', 'rm "$CURRENT"', 'truncate -s 1 "$CURRENT"', 'mkdir "$CURRENT"'):
        with mount.current("mia").open("a") as file:
            file.write(record(1))
        assert shell(command, CURRENT=mount.current("mia")).returncode != 0
        assert mount.current("mia").read_text() == record(1)


def test_many_handles_append_without_losing_anything(mount: Mount) -> None:
    (mount.users / "mia").mkdir()
    with mount.current("mia").open("ab", buffering=0) as one, mount.current("mia").open("ab", buffering=0) as other:
        for number in range(30):
            (one, other)[number % 2].write(record(number).encode())
            assert mount.current("mia").stat().st_size == sum(len(record(n)) for n in range(number + 1))
    assert mount.current("mia").read_text() == "".join(map(record, range(30)))


def test_archiving_is_a_move_where_there_is_archival(root: Path, on_redis: str, mount_at: Callable[..., Mount]) -> None:
    for where in (root, on_redis):
        mount = mount_at(where)
        (mount.users / "mia").mkdir()
        with mount.current("mia").open("a") as file:
            file.write(record(1))
        with mount.current("mia").open("rb", buffering=0) as reader:
            inode = mount.current("mia").stat().st_ino
            os.rename(mount.current("mia"), mount.archived("mia") / "refund.yaml")
            with mount.current("mia").open("a") as file:
                file.write(record(2))
            assert reader.read().decode() == record(1)
        assert os.listdir(mount.archived("mia")) == ["refund.yaml"]
        assert (mount.archived("mia") / "refund.yaml").stat().st_ino == inode
        assert (mount.archived("mia") / "refund.yaml").read_text() == record(1)
        assert mount.current("mia").read_text() == record(2)


def test_where_there_is_no_archival_there_is_no_archived(mount_at: Callable[..., Mount]) -> None:
    mount = mount_at("memory:")
    (mount.users / "mia").mkdir()
    with mount.current("mia").open("a") as file:
        file.write(record(1))
    assert os.listdir(mount.dialogs("mia")) == ["current.yaml"]
    assert run("mv", mount.current("mia"), f"{mount.archived('mia')}/x.yaml").returncode != 0
    assert mount.current("mia").read_text() == record(1)


def test_on_redis_the_mount_and_the_library_and_another_mount_see_the_same(
    on_redis: str, mount_at: Callable[..., Mount]
) -> None:
    one, other = mount_at(on_redis), mount_at(on_redis)
    with open_journal(on_redis) as journal:
        journal.add_message("mia", ChatMessage("user", "number 0", "2024-01-15T10:30:00.000Z"))
        for number in range(1, 10):
            with (one, other)[number % 2].current("mia").open("a") as file:
                file.write(record(number))
            for mount in (one, other):
                assert mount.current("mia").stat().st_size == len(mount.current("mia").read_bytes())
        assert [message.content for message in journal.get_conversation("mia")] == [f"number {n}" for n in range(10)]


def test_a_server_that_hangs_holds_nobody_up_for_longer_than_its_deadline(
    mount_at: Callable[..., Mount], tmp_path: Path
) -> None:
    server = redis_servers.Server(tmp_path / "redis")
    try:
        mount = mount_at(f"redis://{server.place}?timeoutMs=500")
        mount.expect_warning(".")
        (mount.users / "mia").mkdir()
        with mount.current("mia").open("a") as file:
            file.write(record(1))
        server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(OSError, match="timed out"):
                mount.current("mia").read_bytes()
            with pytest.raises(OSError, match="timed out"), mount.current("mia").open("ab", buffering=0) as file:
                file.write(record(2).encode())
        finally:
            server.signal(signal.SIGCONT)
        assert mount.current("mia").read_text().startswith(record(1))
        with mount.current("mia").open("a") as file:
            file.write(record(2))
        assert mount.current("mia").read_text() == record(1) + record(2)
        mount.finish()
    finally:
        server.kill()


def test_a_server_that_is_not_there_is_said_before_anything_is_mounted(tmp_path: Path) -> None:
    done = potofs("mount", tmp_path / "mnt", "--backend", "redis://127.0.0.1:1/0?timeoutMs=500")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "mnt").exists()


def test_a_password_is_in_no_list_of_processes_or_mounts(mount_at: Callable[..., Mount], tmp_path: Path) -> None:
    server = redis_servers.Server(tmp_path / "redis", requirepass="s3cret")
    try:
        mount = mount_at(f"redis://:s3cret@{server.place}")
        assert os.listdir(mount.path) == ["config", "system", "users"]
        shown = Path(f"/proc/{mount.daemon}/cmdline").read_text() + Path("/proc/self/mountinfo").read_text()
        assert "s3cret" not in shown + mount.log.read_text()
        mount.finish()
    finally:
        server.kill()
