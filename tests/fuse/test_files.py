"""What an open file answers when several requests come at once."""

import errno
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio
import trio.testing

from potofs import open_journal
from potofs.backends.base import Stat
from potofs.backends.filesystem.files import FileReader
from potofs.fuse.files import ConversationFile
from potofs.fuse.workers import Workers
from potofs.tree.nodes import Kind, Node
from potofs.tree.tree import Tree

RECORD = b'role: user\ncontent: hello\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'
PATIENCE = 30


class SlowDisk:
    """A disk that takes what was appended when it is told to, or fails first."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        #: How many syncs are to fail, and how many there were.
        self.fails = self.syncs = 0
        self._fdatasync = os.fdatasync

    def fdatasync(self, descriptor: int) -> None:
        self.syncs += 1
        self.begun.set()
        assert self.goes_on.wait(PATIENCE)
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EIO, "Input/output error")
        self._fdatasync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    disk = SlowDisk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    return disk


@pytest.fixture
def tree(root: Path, disk: SlowDisk) -> Iterator[Tree]:
    """Of a journal that makes durable what was appended when its descriptor is closed."""
    with open_journal(f"file://{root}?fsync=close") as journal:
        journal.create_user("mia")
        yield Tree(journal)


async def answer(request: Callable[[], Awaitable[None]], answers: list[str], name: str) -> None:
    try:
        await request()
    except OSError as error:
        answers.append(f"{name}: {errno.errorcode[error.errno or 0]}")
    else:
        answers.append(f"{name}: ok")


@pytest.mark.parametrize(
    ("fails", "answers", "syncs"), [(0, ["one: ok", "two: ok"], 1), (2, ["one: EIO", "two: EIO"], 2)]
)
def test_a_close_that_comes_during_the_sync_of_another_says_what_became_of_it(
    tree: Tree, disk: SlowDisk, fails: int, answers: list[str], syncs: int
) -> None:
    told: list[str] = []

    async def main() -> None:
        node = Node(Kind.CURRENT, "mia")
        file = ConversationFile(tree, Workers(PATIENCE), node, 1, None, tree.appender(node), None)
        await file.write(0, RECORD)
        disk.fails, disk.syncs = fails, 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, file.flush, told, "one")
            await trio.to_thread.run_sync(disk.begun.wait, PATIENCE)
            nursery.start_soon(answer, file.flush, told, "two")
            await trio.testing.wait_all_tasks_blocked()
            told_early = list(told)
            disk.goes_on.set()
        assert told_early == []
        assert (told, disk.syncs) == (answers, syncs)
        await file.release()

    trio.run(main)


class Asked(FileReader):
    """One that is asked for its size for as long as it takes."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.begun, self.goes_on, self.is_closed = threading.Event(), threading.Event(), False

    def stat(self) -> Stat:
        self.begun.set()
        assert self.goes_on.wait(PATIENCE)
        return super().stat()

    def close(self) -> None:
        self.is_closed = True
        super().close()


def test_what_somebody_asks_for_its_size_is_closed_behind_them(tree: Tree, tmp_path: Path) -> None:
    """The kernel lets a file go while others ask for its number; its descriptor may be another file's at once."""
    (tmp_path / "file").write_bytes(RECORD)
    reader = Asked(str(tmp_path / "file"))
    file = ConversationFile(tree, Workers(1.0), Node(Kind.CURRENT, "mia"), 7, reader, None, None)
    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(file.attributes) for _ in range(2)]
        assert reader.begun.wait(PATIENCE)
        # As a file is that was let go with something unfinished.
        file.settle()
        file.settle()
        assert file.attributes() is None
        assert not reader.is_closed
        reader.goes_on.set()
        sizes = {found.size for one in asking if (found := one.result()) is not None}
    assert sizes == {len(RECORD)}
    assert reader.is_closed
