"""What takes long is done in worker threads, so that nobody who asks for something else waits for it."""

import gzip
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyfuse3
import pytest
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, SetattrFields

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.backends.filesystem import gzipped, members
from potofs.fuse.operations import Operations
from potofs.tree.attributes import ROOT_INODE
from potofs.tree.tree import Tree

NOBODY = cast(pyfuse3.RequestContext, SimpleNamespace(pid=4711))
READING, COPYING = FlagT(os.O_RDONLY), FlagT(os.O_WRONLY)
OLD = "users/mia/dialogs/archived/old.yaml"


class Asked:
    """A mount that is asked without a kernel, and in which threads it inflated something."""

    def __init__(self, journal: DialogueJournal) -> None:
        self.operations = Operations(Tree(journal))
        self.threads: set[int] = set()

    def noted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, and it is noted who calls it."""

        def noting(*arguments: Any) -> Any:
            self.threads.add(threading.get_ident())
            return function(*arguments)

        return noting

    async def look_up(self, path: str) -> InodeT:
        inode = InodeT(ROOT_INODE)
        for name in path.split("/"):
            inode = (await self.operations.lookup(inode, FileNameT(os.fsencode(name)), NOBODY)).st_ino
        return inode

    async def open(self, inode: InodeT, flags: FlagT = READING) -> FileHandleT:
        return FileHandleT((await self.operations.open(inode, flags, NOBODY)).fh)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[DialogueJournal]:
    with open_journal(f"file://{tmp_path}/journal") as journal:
        journal.add_message("mia", ChatMessage("user", "hello " * 1000))
        journal.archive_conversation("mia", "old")
        yield journal


@pytest.fixture
def asked(journal: DialogueJournal, monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(journal)
    monkeypatch.setattr(members, "inflated", asked.noted(members.inflated))
    monkeypatch.setattr(gzipped._Blocks, "_inflated", asked.noted(gzipped._Blocks._inflated))
    return asked


def compressed_by_others(journal: DialogueJournal, tmp_path: Path) -> bytes:
    """Has another program compress the archive; returns what is in it."""
    data = journal.read_bytes("mia", "old")
    plain = tmp_path / "journal/users/mia/dialogs/archived/old.yaml"
    plain.with_name("old.yaml.gz").write_bytes(gzip.compress(data))
    plain.unlink()
    return data


def run(main: Callable[[], Coroutine[Any, Any, None]], asked: Asked) -> None:
    trio.run(main)
    assert asked.threads, "something was inflated"
    assert threading.get_ident() not in asked.threads


def test_what_another_program_compressed_is_inflated_aside(
    asked: Asked, journal: DialogueJournal, tmp_path: Path
) -> None:
    data = compressed_by_others(journal, tmp_path)

    async def main() -> None:
        inode = await asked.look_up(OLD)
        members._sizes.clear()
        assert (await asked.operations.getattr(inode, NOBODY)).st_size == len(data)
        members._sizes.clear()
        handle = await asked.open(inode)
        for offset in (len(data) - 4, 0, len(data) - 4, 0):
            assert await asked.operations.read(handle, offset, 4) == data[offset : offset + 4]
        await asked.operations.release(handle)

    run(main, asked)


def test_so_it_is_where_its_size_is_set_or_it_is_copied_over(
    asked: Asked, journal: DialogueJournal, tmp_path: Path
) -> None:
    data = compressed_by_others(journal, tmp_path)

    async def main() -> None:
        inode = await asked.look_up(OLD)
        members._sizes.clear()
        attributes = pyfuse3.EntryAttributes()
        attributes.st_size = len(data)
        names = ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")
        fields = cast(SetattrFields, SimpleNamespace(**{f"update_{name}": name == "size" for name in names}))
        await asked.operations.setattr(inode, attributes, fields, None, NOBODY)
        members._sizes.clear()
        handle = await asked.open(inode, COPYING)
        assert await asked.operations.write(handle, 0, data) == len(data)
        await asked.operations.release(handle)

    run(main, asked)


def test_so_it_is_where_a_conversation_is_looked_for_that_has_moved(
    asked: Asked, journal: DialogueJournal, tmp_path: Path
) -> None:
    compressed_by_others(journal, tmp_path)

    async def main() -> None:
        for is_opened in (True, False):
            journal.add_message("mia", ChatMessage("user", "hello again"))
            inode = await asked.look_up("users/mia/dialogs/current.yaml")
            size = len(journal.read_bytes("mia"))
            journal.archive_conversation("mia")
            members._sizes.clear()
            # What was done for the test does not count.
            asked.threads.clear()
            if is_opened:
                await asked.operations.release(await asked.open(inode))
            assert (await asked.operations.getattr(inode, NOBODY)).st_size == size

    run(main, asked)


def test_an_archive_of_ours_is_inflated_aside(asked: Asked, journal: DialogueJournal) -> None:
    data = journal.read_bytes("mia", "old")
    assert journal.backend.compress("mia", "old") > 0
    asked.threads.clear()

    async def main() -> None:
        handle = await asked.open(await asked.look_up(OLD))
        assert await asked.operations.read(handle, 0, len(data)) == data
        await asked.operations.release(handle)

    run(main, asked)
