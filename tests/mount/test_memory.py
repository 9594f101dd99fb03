"""What a daemon takes of the machine's memory does not grow with the archives that there are."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from potofs import open_journal
from potofs.fuse.inodes import MANY
from tests import redis_servers
from tests.mounts import Mount, wait_until

ARCHIVES = 3 * MANY
RECORD = b"role: user\ncontent: Hello\ntimestamp: 2024-01-15T10:30:00.000Z\n---\n"


def remembered(mount: Mount) -> float:
    text = (mount.path / "system/metrics.prom").read_text()
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == "potofs_remembered_inodes"]
    return float(family.samples[0].value)


def seen(folder: Path) -> dict[str, tuple[int, int]]:
    """Every archive's number and size."""
    with os.scandir(folder) as entries:
        return {entry.name: (entry.stat().st_ino, entry.stat().st_size) for entry in entries}


@pytest.mark.parametrize("backend", ["filesystem", "redis"])
def test_the_kernel_forgets_archives_that_nobody_looks_at_and_nobody_notices(
    backend: str, mount_at: Callable[..., Mount], tmp_path: Path
) -> None:
    places = {
        "filesystem": f"file://{tmp_path}/journal?fsync=never",
        "redis": f"redis://{redis_servers.shared().place}?prefix={tmp_path.name}:",
    }
    with open_journal(places[backend]) as journal:
        journal.create_user("mia")
        for number in range(ARCHIVES):
            journal.backend.put_archive("mia", f"{number}", RECORD, 10**18)
    mount = mount_at(places[backend])
    folder = mount.archived("mia")
    held = os.open(folder / "0.yaml", os.O_RDONLY)
    # Somebody who is in a directory is told where it is, whatever is forgotten.
    sleeper = subprocess.Popen(["sleep", "1000"], cwd=folder)
    try:
        before = seen(folder)
        assert len(before) == ARCHIVES
        assert remembered(mount) > ARCHIVES
        # Each look at a metric is one more chance to find that they were told of long ago.
        wait_until(lambda: remembered(mount) < MANY, "most of them are forgotten")
        assert os.readlink(f"/proc/{sleeper.pid}/cwd") == str(folder)
        # Also those that were forgotten are what they were, and what is open stays so.
        assert os.readlink(f"/proc/self/fd/{held}") == str(folder / "0.yaml")
        assert (os.fstat(held).st_ino, os.pread(held, 1000, 0)) == (before["0.yaml"][0], RECORD)
        assert (folder / f"{ARCHIVES - 1}.yaml").read_bytes() == RECORD
        assert seen(folder) == before
        wait_until(lambda: remembered(mount) < MANY, "they are forgotten again")
    finally:
        os.close(held)
        sleeper.kill()
        sleeper.wait()
