"""Requests of one handle that come at the same time."""

import os
from typing import Any, cast

import pyfuse3
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.backends.base import Reader
from potofs.fuse.operations import Operations
from potofs.tree.attributes import ROOT_INODE
from potofs.tree.nodes import Node
from potofs.tree.tree import Tree

NOBODY = pyfuse3.RequestContext()


class WaitingTree(Tree):
    """A tree that is asked in worker threads, and tells which of its readers are open."""

    blocks = True

    def __init__(self, journal: DialogueJournal) -> None:
        super().__init__(journal)
        self.opened = 0
        self.open_readers: list[Reader] = []

    def open(self, node: Node) -> Reader:
        reader = super().open(node)
        close = reader.close

        def closed() -> None:
            self.open_readers.remove(reader)
            close()

        cast(Any, reader).close = closed
        self.open_readers.append(reader)
        self.opened += 1
        return reader


def test_of_the_readers_that_two_reads_open_at_once_none_stays_open(tmp_path: Any) -> None:
    async def main() -> None:
        with open_journal(f"file://{tmp_path}/journal") as journal:
            journal.create_user("mia")
            tree = WaitingTree(journal)
            operations = Operations(tree)
            inode = InodeT(ROOT_INODE)
            for name in (b"users", b"mia", b"dialogs"):
                inode = (await operations.lookup(inode, FileNameT(name), NOBODY)).st_ino
            flags = FlagT(os.O_RDWR | os.O_APPEND | os.O_CREAT)
            info, _ = await operations.create(inode, FileNameT(b"current.yaml"), ModeT(0o600), flags, NOBODY)
            handle = FileHandleT(info.fh)
            assert await operations.read(handle, 0, 4096) == b""
            journal.add_message("mia", ChatMessage("user", "hello"))
            answers: list[bytes] = []

            async def read() -> None:
                answers.append(await operations.read(handle, 0, 4096))

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(read)
            assert answers == [journal.read_bytes("mia")] * 3
            assert tree.opened == 3, "they were at it at once"
            assert len(tree.open_readers) == 1
            await operations.release(handle)
            assert tree.open_readers == []

    trio.run(main)


def test_what_is_archived_between_its_lookup_and_its_opening_is_read_as_the_archive(tmp_path: Any) -> None:
    """The kernel looks a name up again only once, and where much is archived, that may be too late again."""

    async def main() -> None:
        with open_journal(f"file://{tmp_path}/journal") as journal:
            journal.add_message("mia", ChatMessage("user", "hello"))
            operations = Operations(Tree(journal))
            for is_followed in (False, True):
                inode = InodeT(ROOT_INODE)
                for name in (b"users", b"mia", b"dialogs", b"current.yaml"):
                    inode = (await operations.lookup(inode, FileNameT(name), NOBODY)).st_ino
                said = journal.read_bytes("mia")
                journal.archive_conversation("mia")
                if is_followed:
                    journal.add_message("mia", ChatMessage("user", "hello?"))
                handle = FileHandleT((await operations.open(inode, FlagT(os.O_RDONLY), NOBODY)).fh)
                assert await operations.read(handle, 0, 4096) == said
                assert (await operations.getattr(inode, NOBODY)).st_size == len(said)
                await operations.release(handle)
                journal.add_message("mia", ChatMessage("user", "hello again"))

    trio.run(main)
