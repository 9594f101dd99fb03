"""Many at once: no record is lost, torn, doubled, or out of its writer's order."""

import fcntl
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs import ChatMessage, DialogueJournal
from tests.mounts import Mount, run, wait_until

RECORDS = 500

# Through the mount, as programs do that have never heard of potofs: one open file, one write a record.
THROUGH_THE_MOUNT = """
import sys
with open(sys.argv[1], "ab", buffering=0) as file:
    for number in range(int(sys.argv[3])):
        text = f"writer {sys.argv[2]} says {number}\\n  and more of it"
        file.write(f"role: user\\ncontent: |-\\n  {text}\\nmetadata:\\n  tokens: {number}\\n---\\n".encode())
"""
THROUGH_THE_LIBRARY = """
import sys
from potofs import ChatMessage, open_journal
with open_journal(f"file://{sys.argv[1]}") as journal:
    for number in range(int(sys.argv[3])):
        text = f"writer {sys.argv[2]} says {number}\\nand more of it"
        journal.add_message("mia", ChatMessage("user", text, metadata={"tokens": number}))
"""


def append_at_once(mounts: list[Mount], root: Path) -> None:
    """Four processes through the mounts, in turn, and one through the library."""
    commands: list[list[str | Path]] = [
        [sys.executable, "-c", THROUGH_THE_MOUNT, mounts[writer % len(mounts)].current("mia"), str(writer)]
        for writer in range(4)
    ]
    commands.append([sys.executable, "-c", THROUGH_THE_LIBRARY, root, "4"])
    writers = [subprocess.Popen([*command, str(RECORDS)], stderr=subprocess.PIPE, text=True) for command in commands]
    for writer in writers:
        _, complaint = writer.communicate(timeout=100)
        assert (complaint, writer.returncode) == ("", 0)


def said_over_all(journal: DialogueJournal) -> list[str]:
    """What is in the archives, in their order, and the running conversation."""
    archives = sorted(journal.backend.archives("mia"), key=lambda archive: archive.name)
    found = []
    for name in [*(archive.name for archive in archives), None]:
        for entry in journal.read_conversation("mia", name):
            assert isinstance(entry, ChatMessage), entry
            found.append(entry.content)
    return found


def test_every_record_is_there_whole_once_and_in_its_writer_s_order(
    root: Path, journal: DialogueJournal, mount_at: Callable[..., Mount]
) -> None:
    mounts = [mount_at(root), mount_at(root)]
    (mounts[0].users / "mia").mkdir()
    append_at_once(mounts, root)
    by_writer = defaultdict(list)
    for content in said_over_all(journal):
        who, _, what = content.partition(" says ")
        by_writer[who].append(what.replace("\n  ", "\n"))
    expected = [f"{number}\nand more of it" for number in range(RECORDS)]
    assert by_writer == {f"writer {number}": expected for number in range(5)}
    # Archived by itself exactly as often as there are full hundreds, whoever crossed the threshold.
    archives = journal.backend.archives("mia")
    assert len(archives) == 5 * RECORDS // 100
    assert all(len(list(journal.read_conversation("mia", archive.name))) == 100 for archive in archives)
    # And the Unix tools count the same.
    for mount in mounts:
        counted = run("grep", "-rhc", "^---$", mount.dialogs("mia")).stdout.split()
        assert sum(map(int, counted)) == 5 * RECORDS


# As a shell does with `>>`: every record opens the file anew, and closing may be what completes it.
OPENING_EACH_TIME = """
import sys
for number in range(int(sys.argv[3])):
    with open(sys.argv[1], "ab", buffering=0) as file:
        file.write(f"role: user\\ncontent: writer {sys.argv[2]} says {number}\\n".encode())
"""


@pytest.mark.parametrize("fsync", ["never", "close", "always"])
def test_whoever_opens_a_conversation_that_is_being_archived_finds_the_new_one(
    root: Path, journal: DialogueJournal, mount_at: Callable[..., Mount], fsync: str
) -> None:
    mount = mount_at(f"file://{root}?fsync={fsync}&archiveThreshold=5")
    (mount.users / "mia").mkdir()
    each = 150
    command: list[str | Path] = [sys.executable, "-c", OPENING_EACH_TIME, mount.current("mia")]
    writers = [
        subprocess.Popen([*command, str(writer), str(each)], stderr=subprocess.PIPE, text=True) for writer in range(4)
    ]
    for writer in writers:
        _, complaint = writer.communicate(timeout=100)
        assert (complaint, writer.returncode) == ("", 0)
    by_writer = defaultdict(list)
    for content in said_over_all(journal):
        who, _, what = content.partition(" says ")
        by_writer[who].append(what)
    assert by_writer == {f"writer {number}": list(map(str, range(each))) for number in range(4)}
    assert len(journal.backend.archives("mia")) == 4 * each // 5


def test_while_one_user_s_lock_is_held_elsewhere_all_others_go_on(root: Path, mount_at: Callable[..., Mount]) -> None:
    mount = mount_at(f"file://{root}?lockTimeoutMs=60000")
    users = ["mia", "max", "noah", "zoe"]
    for user in users:
        (mount.users / user).mkdir()
    with (root / "users/mia/.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # More of them than there are worker threads for one user.
        command: list[str | Path] = [sys.executable, "-c", THROUGH_THE_MOUNT, mount.current("mia")]
        waiting = [subprocess.Popen([*command, str(writer), "1"]) for writer in range(9)]
        wait_until(lambda: sum(map(is_writing, waiting)) == 9, "all writers of mia wait in their write")
        for user in users[1:]:
            assert run(sys.executable, "-c", THROUGH_THE_MOUNT, mount.current(user), "0", "20").returncode == 0
            assert run("grep", "-c", "^---$", mount.current(user)).stdout == "20\n"
        assert [process.poll() for process in waiting] == [None] * 9
        assert run("ls", mount.dialogs("mia")).stdout == "archived\n"
    for process in waiting:
        assert process.wait(30) == 0
    assert run("grep", "-c", "^---$", mount.current("mia")).stdout == "9\n"


def is_writing(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process waits in the kernel for a file system's answer."""
    waits_in = Path(f"/proc/{process.pid}/wchan").read_text()
    return "request_wait" in waits_in or "fuse" in waits_in
