"""What an open file does with the kernel's requests, whichever kind of file it is.

A conversation that was opened to be read or appended to is one kind; what is written anywhere else and stored later is
the other. `operations` finds out which it is when it is opened, and never asks again.
"""

import errno
import functools
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import trio

from potofs.backends.base import Reader
from potofs.errors import Fenced, InvalidMessage, NotFound, NotPermitted, PotofsError, reason
from potofs.fuse.closing import Closed, Opener
from potofs.fuse.turns import InTime, NotBegun
from potofs.fuse.workers import Workers
from potofs.journal.appending import Appender
from potofs.tree.attributes import Attributes
from potofs.tree.drafts import Draft
from potofs.tree.nodes import Node
from potofs.tree.tree import Tree

Result = TypeVar("Result")

log = logging.getLogger(__name__)

# How much may be looked at on trio's thread (bytes); it takes a millisecond or so.
_QUICKLY_LOOKED_AT = 1 << 14


class OpenFile(ABC):
    """An open file. Its requests may come at once; what they raise becomes an errno in `errnos`."""

    def __init__(self, tree: Tree, workers: Workers, node: Node, inode: int) -> None:
        self._tree, self._workers = tree, workers
        self.node = node
        #: The number that the kernel opened it by.
        self.inode = inode

    def attributes(self) -> Attributes | None:
        """What it knows of the file whose name may be gone; None if it knows nothing. In any thread."""
        return None

    @abstractmethod
    async def read(self, offset: int, size: int) -> bytes: ...

    @abstractmethod
    async def write(self, offset: int, data: bytes) -> None: ...

    @abstractmethod
    async def flush(self) -> None:
        """One of its descriptors is closed, and this is the last that its owner is told."""

    @abstractmethod
    async def fsync(self) -> None:
        """Makes durable what is stored."""

    @abstractmethod
    async def release(self) -> bool:
        """All of its descriptors are closed, and nobody is told anything any more.

        Returns whether that is all; else it is to be told to `settle`, until it has.
        """

    @property
    def held(self) -> int:
        """What is to be settled (bytes of memory)."""
        return 0

    @abstractmethod
    def settle(self, *, is_last: bool = False) -> None:
        """Ends it: stores or sets aside what was left. In any thread; raises what keeps it from that.

        `is_last`: it is not told so again, and what cannot be stored is set aside.
        """


class ConversationFile(OpenFile):
    """A file that is read, a conversation that is appended to, or both."""

    def __init__(
        self,
        tree: Tree,
        workers: Workers,
        node: Node,
        inode: int,
        reader: Reader | None,
        appender: Appender | None,
        opener: Opener | None,
    ) -> None:
        super().__init__(tree, workers, node, inode)
        # Whether something waits that somebody closed in the middle, and whether its writer was killed.
        self._is_left = self._is_killed = False
        # None for a conversation that nobody had begun yet, and for one opened to append only.
        self._reader = reader
        # How many threads ask it for the size at the moment, and one that the last of them closes.
        self._guard = threading.Lock()
        self._asking = 0
        self._closed: Reader | None = None
        # None for a file that is only read.
        self._appender = appender
        self._opener = opener
        # Requests that append take their turns: a record is put together from several.
        self._turn = InTime(trio.Lock(), workers.patience)
        # What was written meanwhile by those who waited in vain for theirs.
        self._missed: list[bytes] = []
        # Whether something was appended that `fsync: close` has to make durable.
        self._is_dirty = False
        self._sync_turn = InTime(trio.Lock(), workers.patience)
        # Whether somebody has begun to read.
        self._is_read = False

    def attributes(self) -> Attributes | None:
        with self._guard:
            reader = self._reader
            if reader is None:
                return None
            self._asking += 1
        try:
            return self._tree.attributes_of(self.node, reader.stat())
        finally:
            with self._guard:
                self._asking -= 1
                closed, self._closed = (None, self._closed) if self._asking else (self._closed, None)
            if closed is not None:
                closed.close()

    def show(self, reader: Reader) -> None:
        """From now on this is what it holds, unless somebody has begun to read. In any thread; needs no closing."""
        if not self._is_read and self._reader is not None:
            self._reader = reader

    async def read(self, offset: int, size: int) -> bytes:
        self._is_read = True
        reader = self._reader
        if reader is None:
            try:
                reader = self._keep(await self._ask(lambda: self._tree.open(self.node)))
            except NotFound:
                return b""
        blocks = self._tree.blocks or reader.blocks
        return await self._workers.ask_about(self.node, blocks, functools.partial(reader.read, offset, size))

    async def write(self, offset: int, data: bytes) -> None:
        """The offset is the kernel's guess of the end; what is appended goes to the real one."""
        if self._appender is None:
            raise OSError(errno.EBADF, "opened for reading only")
        self._is_killed = False
        await self._append(functools.partial(self._appender.write, data), data)

    async def flush(self) -> None:
        if self._appender is None:
            return
        try:
            if self._appender.waiting and self._opener is not None:
                await self._close(self._appender, self._opener)
        finally:
            # Also where a tail was refused: what was stored before it counts.
            await self._sync_at_close()

    async def fsync(self) -> None:
        if self._appender is not None:
            await self._workers.run(self.node.user, lambda: self._tree.sync(self.node))

    async def _close(self, appender: Appender, opener: Opener) -> None:
        closed = await opener.closed()
        if closed is Closed.KILLED:
            self._is_killed = True
            return
        self._is_left = closed is not Closed.DONE
        if not self._is_left:
            await self._append(appender.flush)
            return
        try:
            async with self._turn:
                self._told()
                if appender.waiting > _QUICKLY_LOOKED_AT:
                    await self._workers.run_beside(appender.pause)
                else:
                    appender.pause()
        except (InvalidMessage, NotBegun):
            # Who ends is not who wrote it, and would take it for an error of its own.
            if closed is not Closed.OPEN:
                raise

    async def release(self) -> bool:
        if self._opener is not None:
            self._opener.release()
        self._close_reader()
        if self._appender is not None and (self._appender.is_unsettled or self._missed):
            return False
        await self._sync_at_close()
        return True

    @property
    def held(self) -> int:
        return sum(map(len, self._missed)) + (0 if self._appender is None else self._appender.held)

    def settle(self, *, is_last: bool = False) -> None:
        self._close_reader()
        if self._appender is None:
            return
        appender, has_failed = self._told(), False
        if self._is_left and not self._is_killed:
            # Nobody goes on, and nobody was told anything when it was closed before.
            try:
                appender.flush()
            except (InvalidMessage, Fenced):
                pass
            except (PotofsError, OSError):
                if not is_last:
                    raise
                has_failed = True
        appender.close(tries=not has_failed)
        if self._tree.sync_on_close:
            # A message that was in doubt may be stored now. A sync that has failed is never tried again.
            try:
                self._tree.sync(self.node)
            except (PotofsError, OSError) as error:
                log.error("%s: what was stored as it was closed may not be durable: %s", self.node, reason(error))

    def _close_reader(self) -> None:
        # Whoever asks by its number alone may be at it in another thread: a descriptor that is closed meanwhile is none
        # any more, or another file's.
        with self._guard:
            reader, self._reader = self._reader, None
            if self._asking and reader is not None:
                self._closed, reader = reader, None
        if reader is not None:
            reader.close()

    def _keep(self, reader: Reader) -> Reader:
        """Takes a reader that was opened for it, or closes it if another request was first; returns the one it has."""
        if self._reader is None:
            self._reader = reader
        else:
            reader.close()
        return self._reader

    async def _ask(self, question: Callable[[], Result]) -> Result:
        return await self._workers.ask_about(self.node, self._tree.blocks, question)

    async def _append(self, append: Callable[..., None], data: bytes = b"") -> None:
        """Appends in turn; `data` is what comes in."""
        try:
            async with self._turn:
                appender = self._told()
                # Much takes long to look at, which everybody else would wait for.
                blocks = self._tree.append_blocks or len(data) + appender.waiting > _QUICKLY_LOOKED_AT
                try:
                    await self._workers.run_soon(self.node.user, blocks, lambda may_wait: append(wait=may_wait))
                finally:
                    self._is_dirty = True
        except InvalidMessage as error:
            # Whoever wrote it sees a number only; the reason is here.
            log.warning("%s: %s", self.node, error)
            raise
        except NotBegun:
            if data:
                self._missed.append(data)
            raise

    def _told(self) -> Appender:
        """The appender, in its turn, which was told of what was written and never came to it."""
        assert self._appender is not None
        while self._missed:
            self._appender.missed(self._missed.pop(0))
        return self._appender

    async def _sync_at_close(self) -> None:
        if not self._tree.sync_on_close:
            return
        # Whoever closes another descriptor meanwhile is answered when it is known whether this was made durable.
        async with self._sync_turn:
            if not self._is_dirty:
                return
            # Before, not after: what is appended meanwhile makes it dirty again.
            self._is_dirty = False
            try:
                await self._workers.run(self.node.user, lambda: self._tree.sync(self.node))
            except BaseException:
                self._is_dirty = True
                raise


class DraftFile(OpenFile):
    """A file that is written in another way than by appending records, and stored when it is closed."""

    def __init__(
        self, tree: Tree, workers: Workers, node: Node, inode: int, draft: Draft, *, may_write: bool, appends: bool
    ) -> None:
        super().__init__(tree, workers, node, inode)
        self.draft = draft
        self._may_write = may_write
        # Whether every write goes to the end, wherever the kernel believes that to be.
        self._appends = appends
        #: Whoever changes what is written takes turns.
        self.turn = InTime(trio.Lock(), workers.patience)

    def attributes(self) -> Attributes | None:
        return self.draft.attributes()

    async def read(self, offset: int, size: int) -> bytes:
        return await self._ask(lambda: self.draft.read(offset, size))

    async def write(self, offset: int, data: bytes) -> None:
        if not self._may_write:
            raise OSError(errno.EBADF, "opened for reading only")
        async with self.turn:
            try:
                await self._ask(lambda: self.draft.write(self._end() if self._appends else offset, data))
            except (InvalidMessage, NotPermitted) as error:
                log.info("%s: %s", self.node, error)
                raise

    async def flush(self) -> None:
        if self._may_write:
            async with self.turn:
                try:
                    await self._workers.run(self.node.user, self.draft.commit)
                except (InvalidMessage, NotPermitted) as error:
                    # Whoever wrote it sees a number only, or nothing, if it is a shell; the reason is here.
                    log.warning("%s: %s", self.node, error)
                    raise

    async def fsync(self) -> None:
        """What is not stored yet needs no disk; what is, may."""
        if not self.draft.is_free:
            await self._workers.run(self.node.user, lambda: self._tree.sync(self.node))

    async def release(self) -> bool:
        self.settle()
        return True

    def settle(self, *, is_last: bool = False) -> None:
        """Whoever wrote it has been told whether it was stored, and has it still."""
        self.draft.close()

    def _end(self) -> int:
        return self.draft.attributes().size

    async def _ask(self, question: Callable[[], Result]) -> Result:
        # A copy of metadata.yaml is looked at while it is written; one of an archive is compared with what is there.
        blocks = (self._tree.blocks and not self.draft.is_free) or self._tree.blocks_at(self.node)
        return await self._workers.ask(self.node.user, blocks, question)
