"""What a daemon takes of the machine's memory does not grow with the archives that there are, nor with its threads."""

import os
import subprocess
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from potofs import open_journal
from potofs.fuse.inodes import MANY
from tests import redis_servers
from tests.mounts import Mount, wait_until

ARCHIVES = 3 * MANY
#: What is remembered when nothing more is let go: as many archives, and what leads to them.
MOST = MANY + 50
RECORD = b"role: user\ncontent: Hello\ntimestamp: 2024-01-15T10:30:00.000Z\n---\n"
#: The address space that glibc sets aside for the heap of a thread, and where it begins (bytes).
HEAP = 1 << 26


def remembered(mount: Mount) -> float:
    text = (mount.path / "system/metrics.prom").read_text()
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == "potofs_remembered_inodes"]
    return float(family.samples[0].value)


def seen(folder: Path) -> dict[str, tuple[int, int]]:
    """Every archive's number and size."""
    with os.scandir(folder) as entries:
        return {entry.name: (entry.stat().st_ino, entry.stat().st_size) for entry in entries}


def heaps(process: int) -> int:
    """How many heaps of threads a process has, beside its own."""
    found = 0
    mappings = [line.split()[0] for line in Path(f"/proc/{process}/maps").read_text().splitlines()]
    ranges = [tuple(int(end, 16) for end in mapping.split("-")) for mapping in mappings]
    for (start, used), (rest, end) in pairwise(ranges):
        found += start % HEAP == 0 and used == rest and end == start + HEAP
    return found


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
        wait_until(lambda: remembered(mount) < MOST, "most of them are forgotten")
        assert os.readlink(f"/proc/{sleeper.pid}/cwd") == str(folder)
        # Also those that were forgotten are what they were, and what is open stays so.
        assert os.readlink(f"/proc/self/fd/{held}") == str(folder / "0.yaml")
        assert (os.fstat(held).st_ino, os.pread(held, 1000, 0)) == (before["0.yaml"][0], RECORD)
        assert (folder / f"{ARCHIVES - 1}.yaml").read_bytes() == RECORD
        assert seen(folder) == before
        with (folder / "1.yaml").open("rb") as opened:
            # It was about to be forgotten, and is in use again.
            wait_until(lambda: remembered(mount) < MOST, "the others are forgotten again")
            assert os.readlink(f"/proc/self/fd/{opened.fileno()}") == str(folder / "1.yaml")
    finally:
        os.close(held)
        sleeper.kill()
        sleeper.wait()


def test_threads_have_no_heaps_of_their_own(mount_at: Callable[..., Mount], tmp_path: Path) -> None:
    mount = mount_at(f"file://{tmp_path}/journal?fsync=always")

    def append(user: str) -> None:
        (mount.users / user).mkdir()
        with mount.current(user).open("ab", buffering=0) as file:
            file.write(RECORD)

    threads = [threading.Thread(target=append, args=(f"user {number}",)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(Path(f"/proc/{mount.daemon}/task").iterdir())) > 1
    assert heaps(mount.daemon) == 0
