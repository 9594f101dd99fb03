"""Archiving by renaming, and archives as files."""

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

from potofs import ChatMessage, DialogueJournal
from tests.mounts import Mount, run, wait_until

FIRST = ChatMessage("user", "Where is my order?", "2024-01-15T10:30:00.000Z")
SECOND = ChatMessage("assistant", "On its way.", "2024-01-15T10:30:02.000Z")


@pytest.fixture
def mia(mount: Mount, journal: DialogueJournal) -> Path:
    """A running conversation of one message."""
    journal.add_message("mia", FIRST)
    return mount.current("mia")


def test_a_name_given_is_the_archive_s_name(mount: Mount, mia: Path, journal: DialogueJournal) -> None:
    said = mia.read_bytes()
    assert run("mv", mia, mount.archived("mia") / "refund.yaml").returncode == 0
    assert os.listdir(mount.archived("mia")) == ["refund.yaml"]
    assert (mount.archived("mia") / "refund.yaml").read_bytes() == said
    assert [archive.name for archive in journal.backend.archives("mia")] == ["refund"]


def test_the_archive_has_the_conversation_s_inode_number_and_times(mount: Mount, mia: Path) -> None:
    before = mia.stat()
    os.rename(mia, mount.archived("mia") / "first.yaml")
    after = (mount.archived("mia") / "first.yaml").stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


def test_moved_under_its_own_name_it_is_called_by_the_time(mount: Mount, mia: Path) -> None:
    os.rename(mia, mount.archived("mia") / "current.yaml")
    (name,) = os.listdir(mount.archived("mia"))
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z\.yaml", name)
    assert not (mount.archived("mia") / "current.yaml").exists()


def test_an_archive_is_never_replaced(mount: Mount, mia: Path, journal: DialogueJournal) -> None:
    journal.archive_conversation("mia", "taken")
    journal.add_message("mia", SECOND)
    with pytest.raises(OSError) as refused:
        os.rename(mia, mount.archived("mia") / "taken.yaml")
    assert refused.value.errno == errno.EEXIST
    assert b"Where is my order?" in (mount.archived("mia") / "taken.yaml").read_bytes()
    assert b"On its way." in mia.read_bytes()


def test_an_archive_takes_no_appends_from_the_moment_that_it_is_one(mount: Mount, mia: Path) -> None:
    archive = mount.archived("mia") / "refund.yaml"
    mia.rename(archive)
    said = archive.read_bytes()
    for _ in range(3):
        with pytest.raises(PermissionError) as refused:
            archive.open("ab")
        assert refused.value.errno == errno.EPERM
    assert archive.read_bytes() == said
    assert not mia.exists()


def test_open_readers_keep_reading_what_they_opened(mount: Mount, mia: Path, journal: DialogueJournal) -> None:
    said = mia.read_bytes()
    with mia.open("rb", buffering=0) as reader:
        assert reader.read(10) == said[:10]
        os.rename(mia, mount.archived("mia") / "first.yaml")
        journal.add_message("mia", SECOND)
        assert reader.read() == said[10:]
        assert os.fstat(reader.fileno()).st_size == len(said)
        assert b"On its way." in mia.read_bytes()


def test_tail_f_goes_on_with_the_new_conversation(mount: Mount, mia: Path, journal: DialogueJournal) -> None:
    with subprocess.Popen(["tail", "-n", "+1", "-F", mia], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
        try:
            assert tail.stdout is not None
            os.set_blocking(tail.stdout.fileno(), False)
            shown = b""

            def shows(text: bytes) -> bool:
                nonlocal shown
                assert tail.stdout is not None
                shown += tail.stdout.read() or b""
                return text in shown

            wait_until(lambda: shows(b"Where is my order?"), "tail shows what was said")
            os.rename(mia, mount.archived("mia") / "first.yaml")
            journal.add_message("mia", SECOND)
            wait_until(lambda: shows(b"On its way."), "tail shows the new conversation")
            assert shown.count(b"Where is my order?") == 1
        finally:
            tail.kill()


def test_a_long_conversation_is_archived_by_itself_while_appending(mount: Mount, mia: Path) -> None:
    with mia.open("a", buffering=1) as file:
        for number in range(250):
            file.write(f"role: user\ncontent: number {number}\n---\n")
    names = sorted(os.listdir(mount.archived("mia")))
    pieces = [(mount.archived("mia") / name).read_text() for name in names] + [mia.read_text()]
    assert [piece.count("---\n") for piece in pieces] == [100, 100, 51]
    assert re.findall(r"number (\d+)", "".join(pieces)) == [str(number) for number in range(250)]


def test_archiving_what_is_not_there_says_so(mount: Mount, mia: Path) -> None:
    os.rename(mia, mount.archived("mia") / "first.yaml")
    with pytest.raises(FileNotFoundError):
        os.rename(mia, mount.archived("mia") / "second.yaml")
    assert os.listdir(mount.archived("mia")) == ["first.yaml"]
