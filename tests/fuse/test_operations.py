"""Requests of one handle, those that come at the same time and those that fail midway; and which thread asks what."""

import errno
import os
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pyfuse3
import pytest
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT, ReaddirToken

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.backends.base import Reader
from potofs.errors import PotofsError, Unreachable
from potofs.fuse.operations import Operations
from potofs.tree.attributes import ROOT_INODE, Entry
from potofs.tree.nodes import Kind, Node
from potofs.tree.tree import Tree

NOBODY = pyfuse3.RequestContext()
FIELDS = ("update_atime", "update_mtime", "update_ctime", "update_mode", "update_uid", "update_gid", "update_size")


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


def test_an_append_that_comes_by_what_has_become_an_archive_is_refused_only_when_the_name_was_looked_up_again(
    tmp_path: Any,
) -> None:
    """The kernel may open what was moved about by a name that it remembers."""
    appending = FlagT(os.O_WRONLY | os.O_APPEND)
    somebody, other = (cast(pyfuse3.RequestContext, SimpleNamespace(pid=pid)) for pid in (4711, 4712))

    async def main() -> None:
        with open_journal(f"file://{tmp_path}/journal") as journal:
            journal.add_message("mia", ChatMessage("user", "old"))
            journal.archive_conversation("mia", "old")
            journal.add_message("mia", ChatMessage("user", "new"))
            operations = Operations(Tree(journal))
            inode = InodeT(ROOT_INODE)
            for name in (b"users", b"mia", b"dialogs"):
                inode = (await operations.lookup(inode, FileNameT(name), somebody)).st_ino
            folder = (await operations.lookup(inode, FileNameT(b"archived"), somebody)).st_ino
            archive = (await operations.lookup(folder, FileNameT(b"old.yaml"), somebody)).st_ino

            async def errno_of_open(who: pyfuse3.RequestContext, what: InodeT, flags: FlagT = appending) -> int:
                with pytest.raises(pyfuse3.FUSEError) as raised:
                    await operations.open(what, flags, who)
                return raised.value.errno

            assert await errno_of_open(somebody, archive) == errno.ESTALE
            current = (await operations.lookup(inode, FileNameT(b"current.yaml"), somebody)).st_ino
            info = await operations.open(current, appending, somebody)
            await operations.release(FileHandleT(info.fh))
            for _ in range(2):
                assert await errno_of_open(other, archive) == errno.ESTALE
                assert await errno_of_open(other, archive) == errno.EPERM
            # Restored elsewhere, as others know already: not to be gone on with by its old name.
            journal.restore_conversation("mia", "old")
            assert (await operations.lookup(inode, FileNameT(b"current.yaml"), other)).st_ino == archive
            for writing in (appending, FlagT(os.O_RDWR)):
                assert await errno_of_open(somebody, archive, writing) == errno.ESTALE
                operations._seekers.looked_up(somebody.pid, archive, Node(Kind.ARCHIVE, "mia", "old"))
                assert await errno_of_open(somebody, archive, writing) == errno.ESTALE
            # Nor by whoever has looked it up as what it is now, and may open that name all the same.
            await operations.lookup(inode, FileNameT(b"current.yaml"), somebody)
            assert await errno_of_open(somebody, archive) == errno.ESTALE
            await operations.lookup(inode, FileNameT(b"current.yaml"), somebody)
            await operations.release(FileHandleT((await operations.open(archive, appending, somebody)).fh))
            # It is told so once, also if somebody had moved it when it was looked up again.
            await operations.lookup(inode, FileNameT(b"current.yaml"), somebody)
            assert await errno_of_open(somebody, archive) == errno.ESTALE
            operations._seekers.missed(somebody.pid, Kind.DIALOGS, inode, b"current.yaml")
            await operations.lookup(inode, FileNameT(b"current.yaml"), somebody)
            await operations.release(FileHandleT((await operations.open(archive, appending, somebody)).fh))

    trio.run(main)


@pytest.mark.expects_warning("readdir: the server has gone")
def test_a_listing_that_fails_midway_has_told_of_what_comes_before_and_counts_nothing_else(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes an answer or an error. Of what it was not given it never says that it has forgotten it."""

    class FailingTree(Tree):
        fails = False

        def entries(self, parent: Node, names: Sequence[str]) -> list[Entry | PotofsError | OSError]:
            if self.fails:
                raise Unreachable("the server has gone")
            self.fails = True
            return super().entries(parent, names)

    taken: list[tuple[str, int]] = []

    def reply(_: object, name: bytes, attributes: pyfuse3.EntryAttributes, place: int) -> bool:
        taken.append((os.fsdecode(name), place))
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    token = cast(ReaddirToken, None)

    async def main() -> None:
        with open_journal(f"file://{tmp_path}/journal?fsync=never") as journal:
            for number in range(600):
                journal.create_user(str(number))
            tree = FailingTree(journal)
            operations = Operations(tree)
            users = (await operations.lookup(InodeT(ROOT_INODE), FileNameT(b"users"), NOBODY)).st_ino
            before = len(operations._inodes)
            handle = await operations.opendir(users, NOBODY)
            await operations.readdir(handle, 0, token)
            assert len(taken) == 512
            assert len(operations._inodes) == before + len(taken), "what the kernel was given"
            tree.fails = False
            with pytest.raises(pyfuse3.FUSEError) as failed:
                await operations.readdir(handle, 512, token)
            assert failed.value.errno == errno.EHOSTDOWN, "and it is not asked for once more"
            assert len(taken) == 512
            await operations.readdir(handle, 512, token)
            assert len({name for name, _ in taken}) == len(taken) == 600
            tree.fails = True
            with pytest.raises(pyfuse3.FUSEError):
                await operations.readdir(handle, 0, token)
            assert len(taken) == 600
            assert sum(operations._inodes._told_again.values()) == 0
            await operations.releasedir(handle)

    trio.run(main)


def test_nobody_waits_while_all_that_is_in_a_folder_is_looked_at(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a user with many archives that takes long, and everything else waits for what is done on trio's thread."""
    monkeypatch.setattr(pyfuse3, "readdir_reply", lambda *_: True)
    token = cast(ReaddirToken, None)

    async def main() -> None:
        with open_journal(f"file://{tmp_path}/journal?fsync=never") as journal:
            backend = journal.backend
            asked: list[tuple[str, bool]] = []

            def tell(name: str) -> None:
                method = getattr(backend, name)

                def told(user: str) -> Any:
                    asked.append((name, threading.current_thread() is threading.main_thread()))
                    return method(user)

                monkeypatch.setattr(backend, name, told)

            tell("archives")
            tell("set_asides")
            journal.add_message("mia", ChatMessage("user", "hello"))
            backend.set_aside("mia", b"refused")
            operations = Operations(Tree(journal))

            async def look_up(path: bytes) -> InodeT:
                inode = InodeT(ROOT_INODE)
                for name in path.split(b"/"):
                    inode = (await operations.lookup(inode, FileNameT(name), NOBODY)).st_ino
                return inode

            async def list_all(path: bytes) -> None:
                handle = await operations.opendir(await look_up(path), NOBODY)
                await operations.readdir(handle, 0, token)
                await operations.releasedir(handle)

            inode = await look_up(b"users/mia/dialogs/current.yaml")
            journal.archive_conversation("mia", "first")
            await operations.getattr(inode, NOBODY)
            backend.rename_archive("mia", "first", "second")
            handle = FileHandleT((await operations.open(inode, FlagT(os.O_RDONLY), NOBODY)).fh)
            await operations.release(handle)
            backend.rename_archive("mia", "second", "third")
            fields = cast(pyfuse3.SetattrFields, SimpleNamespace(**dict.fromkeys(FIELDS, False)))
            await operations.setattr(inode, pyfuse3.EntryAttributes(), fields, None, NOBODY)
            assert asked.count(("archives", False)) == len(asked) >= 3, "it was looked for each time"
            for path in (b"users", b"users/mia", b"users/mia/dialogs", b"users/mia/dialogs/archived"):
                await list_all(path)
            await list_all(b"users/mia/dialogs/rejected")
            assert {name for name, _ in asked} == {"archives", "set_asides"}
            assert [name for name, is_main in asked if is_main] == []

    trio.run(main)
