"""Many writers of one conversation on files: threads, processes, and processes that are killed."""

import os
import random
import re
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from potofs.journal import reading
from potofs.journal.message import ChatMessage
from potofs.journal.reading import Damage
from tests.backends import writer
from tests.backends.kit import everything, joined, names_of, open_filesystem, record, records, said, stored


def by_writer(contents: Sequence[str]) -> dict[str, list[int]]:
    """The numbers of the messages of each writer, in order; every message has to be whole."""
    found: dict[str, list[int]] = defaultdict(list)
    for content in contents:
        name, number = content.split("\n")[0].split(" ")
        assert content == writer.text(name, int(number))
        found[name].append(int(number))
    return found


def finish(process: writer.Process) -> list[int]:
    """Waits for a writer's end, and returns what it says is stored."""
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [int(line) for line in out.split()]


def test_records_of_several_processes_and_threads_are_whole_once_and_in_each_ones_order(tmp_path: Path) -> None:
    """From the first on, which makes the user; and the threshold is crossed by whoever does it, exactly once."""
    options = ("fsync=never", "archiveThreshold=50")
    processes = [writer.start(tmp_path, "new/user", f"w{name}", 0, 100, *options, threads=2) for name in range(2)]
    for process in processes:
        writer.begin(process)
    for process in processes:
        assert sorted(finish(process)) == sorted([*range(100), *range(100)])
    backend = open_filesystem(tmp_path)
    archives = [said(stored(backend, "new/user", name)) for name in names_of(backend, "new/user")]
    assert [len(archive) for archive in archives] == [50] * 8
    found = by_writer([content for archive in archives for content in archive])
    assert found == {name: list(range(100)) for name in ("w00", "w01", "w10", "w11")}


def test_threads_of_one_server_share_it_and_the_disk(tmp_path: Path) -> None:
    backend = open_filesystem(tmp_path, archiveThreshold="0", maxConversationLength="0")

    def write(name: str) -> None:
        for number in range(0, 100, 2):
            backend.append("mia", [writer.message(name, number), writer.message(name, number + 1)])

    threads = [threading.Thread(target=write, args=(f"t{name}",)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contents = said(stored(backend, "mia"))
    assert by_writer(contents) == {f"t{name}": list(range(100)) for name in range(4)}
    heads = [content.split("\n")[0] for content in contents]
    for head, follower in zip(heads[::2], heads[1::2], strict=True):
        name, number = head.split(" ")
        assert follower == f"{name} {int(number) + 1}", "nothing comes between the records of one append"


def test_archiving_while_others_append_loses_nothing(tmp_path: Path) -> None:
    servers = [open_filesystem(tmp_path, fsync="never", archiveThreshold="0") for _ in range(3)]
    servers[0].append("mia", records(0, 1))
    archived: list[str] = []

    def archive() -> None:
        for _ in range(150):
            servers[2].append("mia", [record("so that there is something", retry=False)])
            archived.append(servers[2].archive("mia"))

    def write(number: int) -> None:
        for one in records(1 + 200 * number, 201 + 200 * number):
            servers[number].append("mia", [one])

    archiver = threading.Thread(target=archive)
    archiver.start()
    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    archiver.join()
    found = everything(servers[0], "mia")
    for one in records(0, 401):
        assert found.count(one.data) == 1
    assert len(names_of(servers[0], "mia")) == len(archived) == len(set(archived))


def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """What it was in the middle of is whole or damage by itself, and the next writer tries it again."""
    chance = random.Random(3)
    kills, first = 15, 0
    for _ in range(kills):
        process = writer.start(tmp_path, "mia", "w", first, 0, "fsync=never", "archiveThreshold=0")
        assert process.stdout is not None
        writer.begin(process)
        for _ in range(chance.randint(1, 300)):
            first = int(process.stdout.readline()) + 1
        os.kill(process.pid, 9)
        rest = process.stdout.read()
        process.communicate(timeout=60)
        # The last line may be cut off; the number before it is not.
        first = max([first, *(int(line) + 1 for line in re.findall(r"\d+(?=\n)", rest))])
    backend = open_filesystem(tmp_path, fsync="never", archiveThreshold="0", maxConversationLength="0")
    backend.append("mia", [writer.message("w", number) for number in range(max(0, first - 3), first + 1)])
    data = b"".join(stored(backend, "mia", name) for name in [*names_of(backend, "mia"), None])
    entries = list(reading.read(data))
    assert first > 15 * 50
    assert by_writer([entry.content for entry in entries if isinstance(entry, ChatMessage)]) == {
        "w": list(range(first + 1))
    }
    damage = [entry for entry in entries if isinstance(entry, Damage)]
    assert len(damage) <= kills
    assert not any(b"\n---\n" in data[each.offset : each.offset + each.length - 5] for each in damage)


def test_what_a_program_without_the_lock_is_about_to_write_survives_a_restoration(tmp_path: Path) -> None:
    """It has made the file, and the restoration comes before its first byte."""
    backend = open_filesystem(tmp_path, foreignWriters="true")
    backend.append("mia", records(0, 1))
    backend.archive("mia", "refund")
    with (tmp_path / "journal/users/mia/dialogs/current.yaml").open("ab", buffering=0) as other:
        assert backend.restore("mia", "refund") is None
        other.write(records(1, 2)[0].data)
    assert sorted(everything(backend, "mia")) == [one.data for one in records(0, 2)]


def test_archiving_what_a_program_without_the_lock_has_just_archived_finds_nothing(tmp_path: Path) -> None:
    backend = open_filesystem(tmp_path, foreignWriters="true", archiveThreshold="2")
    dialogs = tmp_path / "journal/users/mia/dialogs"
    write = os.write

    def write_and_archive(descriptor: int, data: bytes) -> int:
        written = write(descriptor, data)
        os.rename(dialogs / "current.yaml", dialogs / "archived/theirs.yaml")
        return written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write_and_archive)
        assert backend.append("mia", records(0, 2)) == (2, None)
    assert names_of(backend, "mia") == ["theirs"]
    assert stored(backend, "mia", "theirs") == joined(records(0, 2))
    assert not (dialogs / "current.yaml").exists()
