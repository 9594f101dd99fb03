"""What fio and stress-ng read from a mount, they read without an error, and nothing is changed by it.

fio reads files of any kind with any number of jobs, with and without O_DIRECT; with --readonly it refuses to write
whatever it is told. Conversations are read past the kernel's cache, so none can be mapped to be shared (ENODEV), which
is what fio's mmap does; mapped privately, they can.

Of stress-ng's stressors, fstat fits: it opens and looks at all that is in a folder that it is told, from many threads.
sysinfo and mount look at every mount of the machine, whosever it is. All others make folders and files of their own
names first (--temp-path), and on a mount there are only users' folders and conversations.
"""

import hashlib
import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from potofs import ChatMessage, open_journal
from tests import redis_servers
from tests.mounts import Mount, mounted, run

SECONDS = 1


@pytest.fixture(scope="module", params=["files", "redis"])
def spoken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount with an archive and a running conversation of some megabytes each."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "files":
        url = f"file://{folder}/journal?fsync=never"
    else:
        url = f"redis://{redis_servers.shared().place}?prefix={folder.name}:"
    with open_journal(url) as journal:
        for name in ("first", None):
            for number in range(60):
                journal.add_message("mia", ChatMessage("user", f"{name} {number} {'long ' * 10_000}"))
            if name is not None:
                journal.archive_conversation("mia", name)
    with mounted(url, folder / "mnt") as mount:
        yield mount


@pytest.fixture(autouse=True)
def nothing_is_changed(spoken: Mount) -> Iterator[None]:
    """Compares all there is, before and after; and nobody has anything open afterwards."""
    before = everything(spoken.users)
    yield
    assert everything(spoken.users) == before
    assert spoken.complaints() == []


def everything(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def conversation(mount: Mount, name: str) -> Path:
    return mount.current("mia") if name == "current" else mount.archived("mia") / "first.yaml"


def fio(path: Path, *jobs: str) -> dict[str, int]:
    """Runs all jobs at once for a while; the bytes that each has read. Each has to go without an error."""
    common = ["--readonly", "--output-format=json", f"--filename={path}", "--allow_file_create=0"]
    common += ["--time_based", f"--runtime={SECONDS}", "--bs=4k", "--numjobs=2"]
    done = run("fio", *common, *(part for job in jobs for part in job.split()))
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)["jobs"]
    assert {job["jobname"]: job["error"] for job in found} == {job["jobname"]: 0 for job in found}
    return {job["jobname"]: job["read"]["io_bytes"] for job in found}


@pytest.mark.parametrize("name", ["current", "archive"])
def test_fio_reads_anywhere_in_a_conversation_with_and_without_the_cache(spoken: Mount, name: str) -> None:
    read = fio(
        conversation(spoken, name),
        "--name=anywhere --rw=randread --direct=0",
        "--name=past-the-cache --rw=randread --direct=1",
        "--name=from-the-beginning --rw=read --bs=64k",
        "--name=many-at-once --rw=randread --ioengine=libaio --iodepth=8 --direct=1",
        "--name=vectors --rw=randread --ioengine=pvsync --bsrange=1-128k --bs_unaligned",
    )
    assert len(read) == 5
    assert all(read.values()), read


@pytest.mark.parametrize("kind", ["archive", "current"])
def test_a_conversation_cannot_be_mapped_to_be_shared_but_privately(spoken: Mount, kind: str) -> None:
    path = conversation(spoken, kind)
    done = run("fio", "--readonly", "--name=mapped", "--rw=randread", "--ioengine=mmap", f"--filename={path}")
    assert done.returncode != 0
    assert "No such device" in done.stdout + done.stderr
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
        assert memory[:] == path.read_bytes()


def test_stress_ng_looks_at_all_that_is_in_a_folder_from_many_threads(spoken: Mount, tmp_path: Path) -> None:
    common = ["--timeout", f"{SECONDS}s", "--verify", "--metrics-brief", f"--temp-path={tmp_path}"]
    for folder in (spoken.users, spoken.dialogs("mia"), spoken.archived("mia")):
        done = run("stress-ng", "--fstat", "2", "--fstat-dir", folder, *common)
        said = done.stdout + done.stderr
        assert (done.returncode, "successful run completed" in said) == (0, True), said
        (looks,) = [
            line.split("] fstat ")[1].split()[0] for line in said.splitlines() if re.search(r"\] fstat +\d", line)
        ]
        assert int(looks) > 0, said
