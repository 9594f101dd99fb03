"""system/ and config/ on a real mount: how the journal is, read with the tools that everybody has."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from potofs import ChatMessage, open_journal
from potofs.journal.models import CleanupOptions
from tests import redis_servers
from tests.mounts import Mount, run, shell, wait_until

HELLO = ChatMessage("user", "hello", "2024-01-15T10:30:00.000Z")
RECORD = 'role: user\ncontent: hello\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'
FILES = (
    "system/stats.yaml",
    "system/health.yaml",
    "system/metrics.prom",
    "system/cleanup.log",
    "config/journal-config.yaml",
)


@pytest.fixture(params=["files", "redis", "memory"])
def mount(request: pytest.FixtureRequest, root: Path, mount_at: Callable[..., Mount], tmp_path: Path) -> Mount:
    """A mount of each backend in turn, with a conversation in it."""
    redis = f"redis://{redis_servers.shared().place}?prefix={tmp_path.name}:" if request.param == "redis" else ""
    mount = mount_at({"files": root, "redis": redis, "memory": "memory:"}[request.param])
    (mount.users / "mia").mkdir()
    with mount.current("mia").open("a") as file:
        file.write(RECORD)
    return mount


def metric(mount: Mount, name: str, **labels: str) -> float:
    """A sample of metrics.prom; 0 if it is not there."""
    for family in text_string_to_metric_families((mount.path / "system/metrics.prom").read_text()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0


def test_every_file_has_as_many_bytes_as_it_says(mount: Mount) -> None:
    for name in FILES:
        path = mount.path / name
        for _ in range(3):
            # Not read yet, read a moment ago, and made anew.
            size = path.stat().st_size
            with path.open("rb") as file:
                assert os.fstat(file.fileno()).st_size == len(file.read()) == size
        for tool in ("wc -c <", "cat {} | wc -c #", "dd status=none bs=7 if={} | wc -c #", "tail -c +1 {} | wc -c #"):
            done = shell(f"{tool.format(path)} {path}")
            assert int(done.stdout) > 0 or name == "system/cleanup.log"
    assert run("grep", "-c", "backend", mount.path / "system/stats.yaml").stdout == "1\n"


def test_what_is_copied_once_is_copied_again_only_where_it_changed(mount: Mount, tmp_path: Path) -> None:
    def copied() -> set[str]:
        done = run("rsync", "-a", "--out-format=%n", f"{mount.path}/", tmp_path / "copy")
        assert (done.returncode, done.stderr) == (0, "")
        return {line for line in done.stdout.splitlines() if not line.endswith("/")}

    assert copied() >= {*FILES, "users/mia/dialogs/current.yaml"}
    again = copied()
    assert again <= {"system/health.yaml", "system/metrics.prom"}
    # What was copied is whole.
    assert "totalMessages: 1\n" in (tmp_path / "copy/system/stats.yaml").read_text()
    assert (tmp_path / "copy/system/metrics.prom").read_text().endswith("\n")
    assert yaml.safe_load((tmp_path / "copy/system/health.yaml").read_text())["storage"]["fence"] == "open"


def test_stats_are_those_of_the_library(root: Path, mount_at: Callable[..., Mount]) -> None:
    mount = mount_at(root)
    stats = mount.path / "system/stats.yaml"
    assert yaml.safe_load(stats.read_text())["totalMessages"] == 0
    with open_journal(f"file://{root}") as journal:
        journal.add_message("mia", HELLO)
        wait_until(lambda: yaml.safe_load(stats.read_text())["totalMessages"] == 1, "the message is counted")
        expected = journal.get_stats()
    found = yaml.safe_load(stats.read_text())
    assert found["totalUsers"] == 1
    assert found["storageUsage"] == expected.storage_usage
    assert found["newestMessage"] == expected.newest_message == HELLO.timestamp
    assert found["backend"] == "filesystem"


def test_the_log_of_clean_ups_is_followed(root: Path, mount_at: Callable[..., Mount], tmp_path: Path) -> None:
    mount = mount_at(root)
    followed, log = tmp_path / "followed", root / "system/cleanup.log"
    with (
        open_journal(f"file://{root}") as journal,
        followed.open("wb") as output,
        subprocess.Popen(["tail", "-F", "-n", "+1", mount.path / "system/cleanup.log"], stdout=output) as tail,
    ):
        try:
            for _ in range(3):
                journal.cleanup(CleanupOptions())
                wait_until(lambda: followed.read_bytes() == log.read_bytes(), "the line is shown")
        finally:
            tail.terminate()


def test_what_is_asked_and_appended_is_counted(mount: Mount) -> None:
    mount.expect_warning("user 'mia': ")
    # Somebody who looks at all mounts may have had the figures made a moment ago.
    wait_until(lambda: metric(mount, "potofs_requests_total", operation="write") > 0, "what was said is counted")
    before = metric(mount, "potofs_requests_total", operation="write")
    with mount.current("mia").open("ab", buffering=0) as file:
        file.write(RECORD.replace("10:30:00", "10:30:01").encode())
        file.write(RECORD.replace("10:30:01", "10:30:01").encode())  # Given before.
        with pytest.raises(OSError, match="Invalid"):
            file.write(b"hello\n")
        wait_until(lambda: metric(mount, "potofs_appended_records_total") == 2, "it is counted")
        assert metric(mount, "potofs_open_files") >= 1
    assert metric(mount, "potofs_appended_bytes_total") == 2 * len(RECORD)
    assert metric(mount, "potofs_requests_total", operation="write") == before + 3
    assert metric(mount, "potofs_request_errors_total", operation="write", errno="EINVAL") == 1
    assert metric(mount, "potofs_request_seconds_count", operation="write") == before + 3
    assert shell('/bin/echo "role: user" >> "$CURRENT"', CURRENT=mount.current("mia")).returncode != 0
    wait_until(lambda: metric(mount, "potofs_rejected_total") == 1, "what was set aside is counted")


def test_a_server_that_hangs_is_told_of_within_its_deadline(mount_at: Callable[..., Mount], tmp_path: Path) -> None:
    server = redis_servers.Server(tmp_path / "redis", requirepass="s3cret")
    try:
        mount = mount_at(f"redis://:s3cret@{server.place}?timeoutMs=1000")
        mount.expect_warning(".")
        (mount.users / "mia").mkdir()
        server.signal(signal.SIGSTOP)
        waiting = []
        try:
            # Whoever waits for other things is in nobody's way.
            waiting += [
                subprocess.Popen(["ls", mount.users], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for _ in range(20)
            ]
            begun = time.monotonic()
            health = yaml.safe_load((mount.path / "system/health.yaml").read_text())
            assert time.monotonic() - begun < 2.5
            assert health["status"] == "unhealthy"
            assert "within 1 s" in health["storage"]["reason"]
            # The kernel has forgotten the directories on the way by now.
            begun = time.monotonic()
            assert metric(mount, "potofs_backend_up") == 0
            assert time.monotonic() - begun < 2.5
            with pytest.raises(OSError, match="timed out"):
                (mount.path / "system/stats.yaml").read_bytes()
        finally:
            server.signal(signal.SIGCONT)
            for process in waiting:
                process.wait(timeout=30)

        def is_well() -> bool:
            found = yaml.safe_load((mount.path / "system/health.yaml").read_text())
            return bool(found["storage"]["status"] == "healthy")

        wait_until(is_well, "it is well again")
        shown = "".join((mount.path / name).read_text() for name in FILES)
        assert "s3cret" not in shown
        assert f'url: "redis://:***@{server.place}"' in shown
        mount.finish()
    finally:
        server.kill()
