"""A conversation that is moved between being looked up and being opened, as often as may be."""

import errno
import os
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pyfuse3
import pytest
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.fuse.operations import Operations
from potofs.tree.attributes import ROOT_INODE
from potofs.tree.nodes import Kind, Node
from potofs.tree.tree import Tree

NOBODY = cast(pyfuse3.RequestContext, SimpleNamespace(pid=4711))


class Client:
    """What the kernel asks on behalf of a program."""

    def __init__(self, journal: DialogueJournal) -> None:
        self.operations = Operations(Tree(journal))

    async def look_up(self, path: str) -> InodeT:
        inode = InodeT(ROOT_INODE)
        for name in path.split("/"):
            inode = (await self.operations.lookup(inode, FileNameT(os.fsencode(name)), NOBODY)).st_ino
        return inode

    async def read(self, inode: InodeT) -> bytes:
        """Opens what was looked up, and reads it."""
        handle = FileHandleT((await self.operations.open(inode, FlagT(os.O_RDONLY), NOBODY)).fh)
        try:
            return await self.operations.read(handle, 0, 1 << 20)
        finally:
            await self.operations.release(handle)


@pytest.fixture
def journal(tmp_path: Any) -> Iterator[DialogueJournal]:
    with open_journal(f"file://{tmp_path}/journal") as journal:
        yield journal


def say(journal: DialogueJournal, content: str) -> bytes:
    journal.add_message("mia", ChatMessage("user", content))
    return journal.read_bytes("mia")


def run(main: Callable[[Client], Coroutine[Any, Any, None]], journal: DialogueJournal) -> None:
    trio.run(main, Client(journal))


CURRENT = "users/mia/dialogs/current.yaml"
ARCHIVED = "users/mia/dialogs/archived"


def test_what_is_archived_before_it_is_opened_is_read_as_if_a_moment_later(journal: DialogueJournal) -> None:
    async def main(client: Client) -> None:
        said = say(journal, "hello")
        inode = await client.look_up(CURRENT)
        journal.archive_conversation("mia", "first")
        assert await client.read(inode) == said
        inode = await client.look_up(f"{ARCHIVED}/first.yaml")
        others = say(journal, "something else")
        journal.archive_conversation("mia", "second")
        journal.backend.rename_archive("mia", "first", "another name")
        journal.backend.rename_archive("mia", "second", "first")
        assert await client.read(inode) == said
        assert await client.read(await client.look_up(f"{ARCHIVED}/first.yaml")) == others

    run(main, journal)


def test_what_is_restored_before_it_is_opened_is_read_under_the_name_that_it_has_then(
    journal: DialogueJournal,
) -> None:
    async def main(client: Client) -> None:
        said = say(journal, "hello")
        journal.archive_conversation("mia", "first")
        inode = await client.look_up(f"{ARCHIVED}/first.yaml")
        say(journal, "something else")
        journal.restore_conversation("mia", "first")
        assert await client.read(inode) == said

    run(main, journal)


def test_whoever_looked_up_the_running_conversation_appends_to_the_next_one_though_others_saw_it_archived(
    journal: DialogueJournal,
) -> None:
    async def main(client: Client) -> None:
        say(journal, "hello")
        inode = await client.look_up(CURRENT)
        journal.archive_conversation("mia", "first")
        archive = Node(Kind.ARCHIVE, "mia", "first")
        # As a listing has it that somebody else makes.
        client.operations._inodes.remember(inode, archive)
        appending = FlagT(os.O_WRONLY | os.O_APPEND)
        handle = FileHandleT((await client.operations.open(inode, appending, NOBODY)).fh)
        assert client.operations._handles.file(handle).node == Node(Kind.CURRENT, "mia")
        await client.operations.release(handle)
        # Who has not looked it up is to do so: an archive takes nothing.
        for number in (errno.ESTALE, errno.EPERM):
            with pytest.raises(pyfuse3.FUSEError) as refused:
                await client.operations.open(inode, appending, NOBODY)
            assert refused.value.errno == number
            await client.look_up(f"{ARCHIVED}/first.yaml")

    run(main, journal)
