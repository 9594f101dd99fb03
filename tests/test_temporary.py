"""Bytes that wait for a while: in memory, then in a file, wherever one can be made."""

import errno
import os
from io import BytesIO
from pathlib import Path

import pytest

from potofs import temporary
from potofs.temporary import Spooled


def folder_of(spooled: Spooled) -> str:
    assert not isinstance(spooled._file, BytesIO)
    return os.path.dirname(os.readlink(f"/proc/self/fd/{spooled._file.fileno()}"))


def test_few_bytes_need_no_file_and_many_go_on_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Spooled(10) as spooled:
        spooled.write(b"0123456789")
        assert isinstance(spooled._file, BytesIO)
        spooled.seek(5)
        spooled.write(b"abcdefg")
        assert folder_of(spooled) == str(tmp_path)
        assert os.listdir(tmp_path) == [], "it has no name"
        spooled.seek(0)
        assert spooled.read() == b"01234abcdefg"
        spooled.truncate(7)
        spooled.seek(2)
        assert spooled.read(100) == b"234ab"


@pytest.mark.parametrize("place", ["gone", "a file", "read-only"])
def test_where_the_environment_says_a_file_cannot_be_made_it_lies_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "a file":
        (tmp_path / place).touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", "/proc" if place == "read-only" else str(tmp_path / place))
    monkeypatch.setattr(temporary, "_FOLDERS", (str(tmp_path / "nor here"), str(elsewhere)))
    with Spooled(0) as spooled:
        spooled.write(b"x")
        assert folder_of(spooled) == str(elsewhere)


def test_the_folder_may_go_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    with Spooled(10) as spooled:
        spooled.write(b"x")
        folder.rmdir()
        spooled.write(bytes(10))
        assert folder_of(spooled) == "/var/tmp"


def test_without_any_folder_it_is_said_what_to_do_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr(temporary, "_FOLDERS", (str(tmp_path / "nor here"),))
    with Spooled(3) as spooled:
        spooled.write(b"abc")
        with pytest.raises(OSError, match=r"gone, .*nor here .*: set TMPDIR to a folder that takes one") as caught:
            spooled.write(b"d")
        assert caught.value.errno == errno.EIO, "ENOENT would be taken for what is looked at"
        spooled.seek(0)
        assert spooled.read() == b"abc"


def test_what_the_disk_does_not_take_is_told_by_the_write() -> None:
    with Spooled(0) as spooled:
        spooled.write(b"abc")
        assert not isinstance(spooled._file, BytesIO)
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, spooled._file.fileno())
        os.close(full)
        with pytest.raises(OSError) as caught:
            spooled.write(b"d")
        assert caught.value.errno == errno.ENOSPC
