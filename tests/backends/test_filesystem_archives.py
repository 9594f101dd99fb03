"""Restoring and renaming archives on files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.backends.base import Backend
from potofs.backends.filesystem import files
from potofs.errors import AlreadyExists, InvalidName, NotFound, WouldBlock
from tests.backends.killed import Killed
from tests.backends.kit import everything, joined, names_of, record, records, stored


@pytest.fixture
def backend(on_files: Callable[..., Backend]) -> Backend:
    return on_files(fsync="never")


def filled(backend: Backend, name: str, first: int, count: int) -> int:
    """Makes an archive and returns its number."""
    backend.append("mia", records(first, first + count))
    backend.archive("mia", name)
    return backend.stat("mia", name).id


def test_a_restored_archive_is_the_running_conversation_with_its_number_and_time(backend: Backend) -> None:
    filled(backend, "refund", 0, 3)
    before = backend.stat("mia", "refund")
    assert backend.restore("mia", "refund") is None
    assert backend.stat("mia")[:3] == before[:3]
    assert stored(backend, "mia") == joined(records(0, 3))
    assert backend.archives("mia") == []
    assert backend.append("mia", records(2, 4)).stored == 1
    assert stored(backend, "mia") == joined(records(0, 4))


def test_restoring_archives_the_running_conversation_first(backend: Backend) -> None:
    filled(backend, "refund", 0, 3)
    backend.append("mia", records(3, 5))
    running = backend.stat("mia").id
    swapped = backend.restore("mia", "refund")
    assert swapped is not None
    assert names_of(backend, "mia") == [swapped]
    assert backend.stat("mia", swapped).id == running
    assert stored(backend, "mia", swapped) == joined(records(3, 5))
    assert stored(backend, "mia") == joined(records(0, 3))
    assert backend.append("mia", records(0, 6)).stored == 1, "what was given before is known in both"


def test_restoring_without_leave_to_swap_changes_nothing(backend: Backend) -> None:
    filled(backend, "refund", 0, 3)
    backend.append("mia", records(3, 5))
    with pytest.raises(AlreadyExists):
        backend.restore("mia", "refund", swap=False)
    assert stored(backend, "mia") == joined(records(3, 5))
    assert stored(backend, "mia", "refund") == joined(records(0, 3))


@pytest.mark.parametrize("swap", [True, False])
def test_an_empty_running_conversation_is_none(backend: Backend, users: Path, swap: bool) -> None:
    filled(backend, "refund", 0, 3)
    (users / "mia/dialogs/current.yaml").touch()
    assert backend.restore("mia", "refund", swap=swap) is None
    assert stored(backend, "mia") == joined(records(0, 3))
    assert backend.archives("mia") == []


def test_what_is_not_there_cannot_be_restored_or_renamed(backend: Backend) -> None:
    backend.append("mia", records(0, 1))
    for user in ("mia", "nobody"):
        with pytest.raises(NotFound):
            backend.restore(user, "refund")
        with pytest.raises(NotFound):
            backend.rename_archive(user, "refund", "other")
    assert stored(backend, "mia") == joined(records(0, 1))
    assert not backend.has_user("nobody")


def test_killed_between_the_two_renames_nothing_is_lost_and_restoring_again_does_the_rest(
    on_files: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files(fsync="never")
    number = filled(backend, "refund", 0, 3)
    backend.append("mia", records(3, 5))
    rename = files.rename_new

    def killed(old: str, new: str) -> None:
        if new.endswith("current.yaml"):
            raise Killed
        rename(old, new)

    monkeypatch.setattr(files, "rename_new", killed)
    with pytest.raises(Killed):
        backend.restore("mia", "refund")
    monkeypatch.undo()
    again = on_files(fsync="never")
    assert sorted(everything(again, "mia")) == sorted(one.data for one in records(0, 5))
    assert again.restore("mia", "refund") is None
    assert again.stat("mia").id == number
    assert sorted(everything(again, "mia")) == sorted(one.data for one in records(0, 5))


def test_a_conversation_that_a_program_without_the_lock_began_meanwhile_is_not_replaced(
    backend: Backend, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(backend, "refund", 0, 3)
    current = users / "mia/dialogs/current.yaml"
    rename = files.rename_new

    def late(old: str, new: str) -> None:
        current.write_bytes(joined(records(5, 6)))
        rename(old, new)

    monkeypatch.setattr(files, "rename_new", late)
    with pytest.raises(AlreadyExists):
        backend.restore("mia", "refund")
    assert current.read_bytes() == joined(records(5, 6))
    assert stored(backend, "mia", "refund") == joined(records(0, 3))


def test_every_server_sees_what_another_restored(on_files: Callable[..., Backend]) -> None:
    one, other = on_files(archiveThreshold="4"), on_files(archiveThreshold="4")
    filled(one, "refund", 0, 3)
    assert other.append("mia", records(0, 3)).stored == 0, "known in the newest archive"
    other.restore("mia", "refund")
    assert one.append("mia", records(0, 3)).stored == 0
    assert one.append("mia", records(3, 4)).archived_as is not None


# Renaming


def test_a_renamed_archive_keeps_all_but_its_name(backend: Backend) -> None:
    filled(backend, "refund", 0, 3)
    before = backend.stat("mia", "refund")
    backend.rename_archive("mia", "refund", "a/b")
    assert names_of(backend, "mia") == ["a/b"]
    assert backend.stat("mia", "a/b")[:3] == before[:3]
    assert stored(backend, "mia", "a/b") == joined(records(0, 3))


def test_a_name_that_is_taken_is_not_given_again(backend: Backend) -> None:
    filled(backend, "refund", 0, 3)
    filled(backend, "other", 3, 1)
    for name in ("other", "refund"):
        with pytest.raises(AlreadyExists):
            backend.rename_archive("mia", "refund", name)
    for name in ("current", ""):
        with pytest.raises(InvalidName):
            backend.rename_archive("mia", "refund", name)
    assert stored(backend, "mia", "refund") == joined(records(0, 3))
    assert stored(backend, "mia", "other") == joined(records(3, 4))


def test_where_the_system_cannot_rename_without_replacing_nothing_is_replaced_either(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_renameat2", None)
    filled(backend, "refund", 0, 3)
    backend.rename_archive("mia", "refund", "other")
    assert names_of(backend, "mia") == ["other"]
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        files.rename_new(f"{tmp_path}/one", f"{tmp_path}/two")
    assert {name: (tmp_path / name).read_text() for name in ("one", "two")} == {"one": "one", "two": "two"}
    assert os.stat(tmp_path / "two").st_nlink == 1


# Many of them


@pytest.mark.parametrize("retry", [True, False])
def test_whoever_may_not_wait_looks_at_few_archives_and_leaves_many_to_whoever_may(
    on_files: Callable[..., Backend], looks: list[str], users: Path, retry: bool
) -> None:
    """For as long as it takes, everybody else who uses a mount would wait."""
    backend, other = on_files(fsync="never"), on_files(fsync="never")

    def append(number: int, *, wait: bool) -> None:
        backend.append("mia", [record(f"{number}", retry=retry)], wait=wait)

    for number in range(32):
        other.put_archive("mia", f"{number}", b"x", number)
    append(0, wait=False)
    # As a program leaves it that counts nothing.
    (users / "mia/dialogs/archived/32.yaml").write_bytes(b"x")
    looks.clear()
    if not retry:
        # It is stored; what it changed is counted by the next.
        append(1, wait=False)
    with pytest.raises(WouldBlock):
        append(2, wait=False)
    assert looks == []
    append(2, wait=True)
    looks.clear()
    append(3, wait=False)
    assert looks == [], "what is known of them goes on to be true"
    assert (backend.totals().archives, backend.totals().messages) == (33, 3 if retry else 4)
