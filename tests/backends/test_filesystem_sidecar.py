"""What is kept beside a long conversation: a new process reads only what came after it, and is never led astray."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.backends.base import Mark
from potofs.backends.filesystem import index
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.config import Where
from potofs.journal import reading
from tests.backends.kit import joined, records, said, stored

#: A server of its own each time, and the sizes of what it scanned.
Server = tuple[FilesystemBackend, list[int]]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    monkeypatch.setattr(index, "_KEPT_EVERY", 10)

    def server(**more: str) -> Server:
        scanned: list[int] = []

        def scan(data: bytes) -> list[Mark]:
            scanned.append(len(data))
            return list(reading.marks(data))

        options = {"archiveThreshold": "0", "maxConversationLength": "0", "fsync": "never", **more}
        backend = FilesystemBackend(Where("file", str(tmp_path / "journal"), options), scan)
        backend.prepare(create=True)
        return backend, scanned

    return server


@pytest.fixture
def sidecar(users: Path) -> Path:
    return users / "mia/.current.idx"


def test_a_new_process_reads_only_what_came_since_it_was_kept(server: Callable[..., Server]) -> None:
    backend, _ = server()
    for one in records(0, 95):
        backend.append("mia", [one])
    fresh, scanned = server(archiveThreshold="97")
    assert fresh.append("mia", records(0, 96)).stored == 1
    assert 0 < sum(scanned) <= len(joined(records(90, 95)))
    assert fresh.append("mia", records(96, 97)).archived_as is not None, "and it counts what it did not read"
    assert fresh.totals().messages == 97


def test_a_short_conversation_has_none(server: Callable[..., Server], sidecar: Path) -> None:
    backend, _ = server()
    backend.append("mia", records(0, 9))
    assert not sidecar.exists()
    backend.append("mia", records(9, 10))
    assert sidecar.exists()


def test_two_servers_keep_it_in_turn(server: Callable[..., Server]) -> None:
    servers = [server()[0], server()[0]]
    for number in range(60):
        servers[number % 2].append("mia", records(number, number + 1))
        if number % 25 == 0:
            servers[0] = server()[0]
    fresh, scanned = server()
    assert fresh.append("mia", records(0, 60)).stored == 0
    assert sum(scanned) <= len(joined(records(0, 20)))
    assert fresh.append("mia", records(59, 61)).stored == 1


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "garbage", "empty"])
def test_it_may_be_damaged_or_gone(server: Callable[..., Server], sidecar: Path, damage: str) -> None:
    for first in range(0, 60, 10):
        server()[0].append("mia", records(first, first + 10))
    data = sidecar.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    sidecar.unlink()
    kept = {"cut": data[: len(data) * 2 // 3], "flipped": bytes(flipped), "garbage": b"garbage" * 100, "empty": b""}
    if damage in kept:
        sidecar.write_bytes(kept[damage])
    fresh, _ = server()
    assert fresh.append("mia", records(0, 61)).stored == 1
    assert fresh.append("mia", records(61, 80)).stored == 19
    assert server()[0].append("mia", records(0, 80)).stored == 0
    assert said(stored(fresh, "mia")) == [f"message {number}" for number in range(80)]


def test_it_is_not_believed_of_bytes_that_are_others(server: Callable[..., Server], users: Path) -> None:
    """Cut and written again behind its back: the same file, of the same size, with other messages."""
    server()[0].append("mia", records(0, 20))
    current = users / "mia/dialogs/current.yaml"
    os.truncate(current, 0)
    with current.open("ab") as file:
        file.write(joined(records(20, 40)))
    fresh, _ = server()
    assert fresh.append("mia", records(20, 40)).stored == 0
    assert fresh.append("mia", records(0, 1)).stored == 1


def test_it_is_of_one_conversation_and_serves_it_again_when_that_is_restored(server: Callable[..., Server]) -> None:
    backend, _ = server()
    backend.append("mia", records(0, 30))
    backend.archive("mia", "long")
    backend.append("mia", records(30, 35))
    assert server()[0].append("mia", records(30, 36)).stored == 1
    backend.restore("mia", "long")
    fresh, scanned = server()
    assert fresh.append("mia", records(29, 30)).stored == 0
    assert sum(scanned) == 0


def test_a_tail_is_never_part_of_it(server: Callable[..., Server], users: Path) -> None:
    backend, _ = server()
    backend.append("mia", records(0, 20))
    with (users / "mia/dialogs/current.yaml").open("ab") as file:
        file.write(records(20, 21)[0].data.removesuffix(b"---\n"))
    fresh, _ = server(archiveThreshold="22")
    assert fresh.append("mia", records(20, 21)).stored == 0
    assert fresh.append("mia", records(21, 22)).archived_as is not None


def test_an_append_does_not_fail_for_it(server: Callable[..., Server], sidecar: Path) -> None:
    backend, _ = server()
    backend.append("mia", records(0, 1))
    sidecar.mkdir()
    assert backend.append("mia", records(1, 30)).stored == 29
    assert server()[0].append("mia", records(0, 31)).stored == 1
