"""`potofs mounts`: what is mounted, who serves it, and how it is, without ever waiting for one that hangs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from potofs.cli import mounting
from potofs.errors import DeadlineExceeded
from potofs.mount import asking, overview, running
from potofs.mount.overview import Overview
from tests.mounts import Mount, is_mounted, potofs, processes_of, system_user, wait_until


def listed(mount: Mount) -> dict[str, Any]:
    """What is said of a mount."""
    done = potofs("mounts", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = [line for line in json.loads(done.stdout) if line["mountpoint"] == str(mount.path)]
    return dict(found)


def test_it_says_where_and_by_whom_and_since_when(mount: Mount, root: Path) -> None:
    found = listed(mount)
    assert (found["backend"], found["state"], found["pid"]) == (f"file://{root}", "ok", mount.daemon)
    made = time.strptime(found["since"].partition(".")[0], "%Y-%m-%dT%H:%M:%S")
    assert abs(time.mktime(made) - time.timezone - time.time()) < 60


def test_the_table_has_a_line_for_each(root: Path, mount_at: Callable[..., Mount]) -> None:
    one, other = mount_at(root), mount_at("memory:")
    done = potofs("mounts")
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["MOUNTPOINT", "BACKEND", "STATE", "PID", "SINCE", "REQ/S", "OPEN"]
    for mount, backend in ((one, f"file://{root}"), (other, "memory:")):
        (line,) = [line for line in lines if line.startswith(f"{mount.path} ")]
        assert line.split()[1].startswith(backend)
        assert line.split()[2:4] == ["ok", str(mount.daemon)]


def test_a_password_is_not_shown(mount_at: Callable[..., Mount], tmp_path: Path) -> None:
    from tests import redis_servers

    server = redis_servers.Server(tmp_path / "redis", requirepass="s3cret")
    try:
        mount = mount_at(f"redis://:s3cret@{server.place}")
        assert listed(mount)["backend"] == f"redis://:***@{server.place}"
        mount.finish()
    finally:
        server.kill()


def test_one_that_hangs_is_said_to_and_nobody_waits_for_it(root: Path, mount_at: Callable[..., Mount]) -> None:
    mount, other = mount_at(root), mount_at(root)
    daemon = mount.daemon
    os.kill(daemon, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        # Through a pipe: what is left behind may not hold it open.
        done = subprocess.run(
            [sys.executable, "-m", "potofs", "mounts", "--json"], stdout=subprocess.PIPE, check=True, timeout=30
        )
        assert time.monotonic() - begun < 10
        states = {line["mountpoint"]: line["state"] for line in json.loads(done.stdout)}
        assert states[str(mount.path)] == "hung"
        assert states[str(other.path)] == "ok"
        refused = potofs("mount", mount.path, "--root", root)
        assert (refused.returncode, refused.stderr) == (
            1,
            f"potofs: {mount.path} has a mount that does not answer: potofs umount --lazy {mount.path} takes it away\n",
        )
        assert potofs("umount", "--lazy", other.path).returncode == 0
    finally:
        os.kill(daemon, signal.SIGCONT)
    # Whoever looked goes away with the answer, or it would keep the mount busy.
    wait_until(lambda: processes_of(mount.path) == processes_of_daemon(mount), "nobody looks any more")
    assert listed(mount)["state"] == "ok"


def test_one_that_hangs_can_be_taken_away(mount: Mount) -> None:
    daemon = mount.daemon
    os.kill(daemon, signal.SIGSTOP)
    try:
        # So long that the kernel does not remember any more what it was told.
        wait_until(lambda: listed(mount)["state"] == "hung", "it does not answer")
        done = potofs("umount", "--lazy", mount.path)
        # It stays behind, and that is said.
        assert (done.returncode, done.stderr) == (0, stopped(mount.path, daemon))
        assert not is_mounted(mount.path)
    finally:
        os.kill(daemon, signal.SIGCONT)
    wait_until(lambda: not processes_of(mount.path), "the daemon ends")


def test_whoever_unmounts_one_that_was_stopped_is_told_soon_which_process_it_is_and_how_to_end_it(mount: Mount) -> None:
    daemon = mount.daemon
    os.kill(daemon, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        done = potofs("umount", mount.path)
        assert time.monotonic() - begun < 10
        assert (done.returncode, done.stderr) == (1, stopped(mount.path, daemon))
        assert not is_mounted(mount.path)
    finally:
        os.kill(daemon, signal.SIGCONT)
    wait_until(lambda: not processes_of(mount.path), "the daemon ends")


def stopped(place: Path, daemon: int) -> str:
    return (
        f"potofs: {place} is unmounted, but its daemon, process {daemon}, is stopped: kill -CONT {daemon} has it end, "
        f"kill -9 {daemon} ends it at once\n"
    )


def test_a_daemon_that_does_not_end_is_named(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "_END", 0.0)
    monkeypatch.setattr(running.Watched, "is_stopped", lambda _: False)
    daemon = mount.daemon
    os.kill(daemon, signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceeded, match=f"process {daemon}, has not ended after 0 s: .* kill -9 {daemon} "):
            mounting.stop(str(mount.path), lazy=False)
    finally:
        os.kill(daemon, signal.SIGCONT)
    wait_until(lambda: not processes_of(mount.path), "the daemon ends")


def test_another_users_mount_is_not_taken_away_and_it_is_said_whose_it_is(mount: Mount) -> None:
    """Also to somebody without a folder of their own, in which nothing can be looked for."""
    for options in ("", "--lazy "):
        program = (
            f'unset XDG_RUNTIME_DIR; HOME=/nonexistent PYTHONPATH="{Path(__file__).parents[2]}" "{sys.executable}" '
            f'-m potofs umount {options}"{mount.path}"'
        )
        done = system_user(65534, program, Path("/"))
        assert (done.returncode, done.stderr) == (
            1,
            f"potofs: {mount.path} is a mount of root: only they or root can take it away\n",
        )
    assert is_mounted(mount.path)


def processes_of_daemon(mount: Mount) -> list[int]:
    return [
        process
        for process in processes_of(mount.path)
        if b"probe.py" not in Path(f"/proc/{process}/cmdline").read_bytes()
    ]


def test_one_whose_daemon_was_killed_is_dead(mount: Mount) -> None:
    daemon = mount.daemon
    # Its helper first, which would take the mount away.
    for process in sorted(processes_of(mount.path), key=daemon.__eq__):
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: not processes_of(mount.path), "the daemon and its helper are gone")
    assert is_mounted(mount.path)
    found = listed(mount)
    assert (found["state"], found["pid"], found["openFiles"]) == ("dead", None, None)
    # What it has said of itself goes with its mount.
    word = Path(running.word_of(str(mount.path)))
    assert word.exists()
    assert potofs("umount", mount.path).returncode == 0
    assert not is_mounted(mount.path)
    assert not word.exists()


def test_another_user_is_told_what_the_system_says(mount: Mount, tmp_path: Path) -> None:
    program = f'HOME=/nonexistent PYTHONPATH="{Path(__file__).parents[2]}" "{sys.executable}" -m potofs mounts --json'
    done = system_user(65534, program, Path("/"))
    assert done.returncode == 0, done.stderr
    (found,) = [line for line in json.loads(done.stdout) if line["mountpoint"] == str(mount.path)]
    assert (found["state"], found["pid"], found["backend"]) == ("closed", None, f"file://{tmp_path}/journal")


def test_nothing_mounted_is_an_empty_list(tmp_path: Path) -> None:
    script = f'umount -l -a -t fuse.potofs; "{sys.executable}" -m potofs mounts --json'
    done = subprocess.run(["unshare", "--mount", "bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_how_busy_it_is_leaves_out_the_looks_themselves(tmp_path: Path) -> None:
    """On a folder with the file that a mount has."""

    def metrics(lookups: int, reads: int, open_files: int) -> str:
        return (
            "# HELP potofs_requests_total Requests.\n# TYPE potofs_requests_total counter\n"
            f'potofs_requests_total{{operation="lookup"}} {lookups}.0\n'
            f'potofs_requests_total{{operation="read"}} {reads}.0\n'
            f"potofs_requests_totally 1e9\npotofs_open_files {open_files}.0\n"
        )

    looks = [(10.0, metrics(100, 50, 3)), (10.1, metrics(103, 52, 3)), (12.1, metrics(120, 80, 5))]
    assert overview._figures(looks) == (20.0, 4)
    # What others ask between the first two is no part of a look.
    busy = [(10.0, metrics(100, 50, 3)), (10.1, metrics(150, 90, 3)), (12.1, metrics(200, 90, 5))]
    assert overview._figures(busy) == (20.0, 4)
    assert overview._figures(looks[:1]) == (None, 2)
    assert overview._figures([]) == (None, None)
    (tmp_path / "system").mkdir()
    (tmp_path / "system/metrics.prom").write_text(metrics(1, 1, 1))
    (answer,) = asking.ask([str(tmp_path)], 0.0)
    assert answer is not None
    assert overview._figures(answer.samples) == (0.0, 0)
    assert asking.ask([str(tmp_path)]) == [(0, [])]
    assert overview._figures([(0.0, "nothing of ours\n")] * 3) == (None, None)


@pytest.mark.parametrize("figure", ["x", "nan", "-inf", "1e308"])
def test_figures_that_are_none_are_not_shown(figure: str) -> None:
    names = ("potofs_requests_total", "potofs_open_files")
    # Two of each, whose sum may be none either.
    text = "".join(f'{name}{{a="{label}"}} {figure}\n' for name in names for label in "bc")
    assert overview._figures([(0.0, text), (0.1, text), (0.6, text)]) == (None, None)


def test_metrics_without_an_end_hold_up_nobody(tmp_path: Path) -> None:
    (tmp_path / "system").mkdir()
    metrics = tmp_path / "system/metrics.prom"
    metrics.symlink_to("/dev/zero")
    begun = time.monotonic()
    (answer,) = asking.ask([str(tmp_path)], 0.0)
    assert answer is not None
    assert len(json.dumps(answer.samples)) < 10 << 20
    metrics.unlink()
    os.mkfifo(metrics)
    (answer,) = asking.ask([str(tmp_path)], 0.0)
    assert answer is not None
    assert answer.errno == 0
    assert time.monotonic() - begun < 20


def test_it_believes_no_file_that_another_user_could_have_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "runtime_directory", lambda: str(tmp_path))
    word = Path(running.word_of("/srv/chats"))
    uid = os.geteuid()
    with running.announced("/srv/chats", "file:///a"):
        found = running.daemon_of("/srv/chats", uid)
        assert found is not None
        assert found[:2] == (os.getpid(), "file:///a")
        elsewhere = word.rename(tmp_path / "elsewhere")
        # A link to one that is well.
        word.symlink_to(elsewhere)
        assert running.daemon_of("/srv/chats", uid) is None
        word.unlink()
        os.mkfifo(word)
        assert running.daemon_of("/srv/chats", uid) is None
        word.unlink()
        elsewhere.rename(word)
        # No more is read than a daemon says.
        with word.open("a") as file:
            file.write("x" * 100_000)
        found = running.daemon_of("/srv/chats", uid)
        assert found is not None
        assert len(found.backend) < 4096
        if uid == 0:
            os.chown(word, 65534, 65534)
            assert running.daemon_of("/srv/chats", uid) is None


def test_one_whose_journal_takes_long_to_count_is_well(root: Path, mount_at: Callable[..., Mount]) -> None:
    """A server that hangs has figures take as long as its deadline."""
    from tests import redis_servers

    server = redis_servers.Server(root.parent / "redis")
    try:
        mount = mount_at(f"redis://{server.place}?timeoutMs=10000")
        mount.expect_warning(".")
        server.signal(signal.SIGSTOP)
        try:
            found = listed(mount)
            assert (found["state"], found["requestsPerSecond"]) == ("ok", None)
        finally:
            server.signal(signal.SIGCONT)
        # Whoever looks at its metrics has gone, or is answered.
        wait_until(lambda: processes_of(mount.path) == processes_of_daemon(mount), "nobody looks any more")
        mount.finish()
    finally:
        server.kill()


def test_what_others_ask_is_counted_each_time(mount: Mount) -> None:
    ended = threading.Event()

    def ask_on() -> None:
        while not ended.is_set():
            # Not remembered, as nobody is called so.
            assert not (mount.users / "nobody").exists()

    with ThreadPoolExecutor(1) as others:
        asked = others.submit(ask_on)
        try:
            assert all(listed(mount)["requestsPerSecond"] > 0 for _ in range(3))
        finally:
            ended.set()
        asked.result()
    wait_until(lambda: listed(mount)["requestsPerSecond"] == 0, "nobody asks any more")


def test_a_name_breaks_no_line_of_the_table() -> None:
    from potofs.cli import listing

    row = listing._row(Overview("/a\nb\x1b[31m/ü", "file:///a", "ok", 1, None, 0.04, None))
    assert row == ("/a\\nb\\x1b[31m/ü", "file:///a", "ok", "1", "-", "0.0", "-")
