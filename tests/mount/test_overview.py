"""`potofs mounts`: what is mounted, who serves it, and how it is, without ever waiting for one that hangs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potofs.mount import asking, overview
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
        assert (done.returncode, done.stderr) == (0, "")
        assert not is_mounted(mount.path)
    finally:
        os.kill(daemon, signal.SIGCONT)
    wait_until(lambda: not processes_of(mount.path), "the daemon ends")


def processes_of_daemon(mount: Mount) -> list[int]:
    return [
        process
        for process in processes_of(mount.path)
        if b"probe.py" not in Path(f"/proc/{process}/cmdline").read_bytes()
    ]


def test_one_whose_daemon_was_killed_is_dead(mount: Mount) -> None:
    for process in processes_of(mount.path):
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: not processes_of(mount.path), "the daemon and its helper are gone")
    assert is_mounted(mount.path)
    found = listed(mount)
    assert (found["state"], found["pid"], found["openFiles"]) == ("dead", None, None)


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
    assert overview._figures(looks[:1]) == (None, 2)
    assert overview._figures([]) == (None, None)
    (tmp_path / "system").mkdir()
    (tmp_path / "system/metrics.prom").write_text(metrics(1, 1, 1))
    (answer,) = asking.ask([str(tmp_path)])
    assert answer is not None
    assert overview._figures(answer.samples) == (0.0, 0)
    assert overview._figures([(0.0, "nothing of ours\n")] * 3) == (None, None)


def test_a_name_breaks_no_line_of_the_table() -> None:
    from potofs.cli import listing

    row = listing._row(Overview("/a\nb\x1b[31m/ü", "file:///a", "ok", 1, None, 0.04, None))
    assert row == ("/a\\nb\\x1b[31m/ü", "file:///a", "ok", "1", "-", "0.0", "-")
