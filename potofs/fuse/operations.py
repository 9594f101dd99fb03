"""The kernel's requests, each turned into a question to the tree, and its answer turned back.

Source: the low-level interface of libfuse 3, as pyfuse3 has it. What a handler may do here rather than in a worker
thread is said in `workers`.
"""

import errno
import logging
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FlagT, InodeT, ModeT, RequestContext

from potofs.errors import (
    AlreadyExists,
    InvalidMessage,
    InvalidName,
    NameTooLong,
    NotFound,
    NotPermitted,
    Stale,
)
from potofs.fuse import intent, setting
from potofs.fuse.activity import Activity
from potofs.fuse.closing import Openers
from potofs.fuse.complaints import Complaints
from potofs.fuse.directories import DirectoryHandle, Listed
from potofs.fuse.errnos import answered
from potofs.fuse.files import ConversationFile, DraftFile, OpenFile
from potofs.fuse.finding import Finder
from potofs.fuse.freshness import REMEMBERED, Freshness
from potofs.fuse.handles import Handles
from potofs.fuse.inodes import Inodes
from potofs.fuse.leaving import Leaving, settle_at_last
from potofs.fuse.permissions import Owner, Permissions
from potofs.fuse.seeking import Seekers
from potofs.fuse.workers import Workers
from potofs.names import NAME_MAX
from potofs.tree import nodes
from potofs.tree.attributes import Attributes, Entry
from potofs.tree.drafts import Draft
from potofs.tree.nodes import Kind, Node
from potofs.tree.system import Figures
from potofs.tree.tree import Tree

Result = TypeVar("Result")

log = logging.getLogger(__name__)

_BLOCK = 4096


class Operations(pyfuse3.Operations):
    """One tree, mounted."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, tree: Tree, permissions: Permissions | None = None) -> None:
        super().__init__()
        #: May be replaced in trio's thread; the kernel follows as soon as it asks for attributes again.
        self.permissions = permissions or Permissions(Owner(os.getuid(), os.getgid()))
        self._tree = tree
        self._inodes = Inodes()
        self._seekers = Seekers()
        self._handles = Handles()
        self._workers = Workers(tree.patience)
        self._openers = Openers(self._workers.run_beside)
        #: What was let go and is not stored or set aside yet; to be run for as long as requests are answered.
        self.leaving = Leaving(self._workers)
        #: Where its answers are counted.
        self.activity = Activity()
        #: Where the log is told why they failed.
        self.complaints = Complaints()
        tree.system.metrics = self._metrics
        self._finder = Finder(tree, self._inodes, self._handles)
        #: To be opened once it is mounted.
        self.freshness = Freshness(tree, self._inodes)

    # Names and attributes

    @answered
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        parent = self._inodes.node(parent_inode)
        try:
            entry = await self._looked_up(parent, os.fsdecode(name))
        except NotFound:
            self._seekers.missed(ctx.pid, parent.kind, parent_inode, name)
            raise
        node = entry.node
        self._seekers.looked_up(ctx.pid, entry.attributes.inode, node)
        if (
            self._tree.is_just_made(node)
            and intent.may_be_making(ctx.pid, folder=node.kind.is_directory)
            and await self._ask(node, lambda: self._tree.may_be_made_anew(node))
            # In a thread: what it looks at may lie in a file of this mount.
            and await self._workers.run(node.user, lambda: self._is_making(ctx.pid, name, node))
        ):
            raise NotFound(f"{node} is about to be made")
        told = self._told(entry)
        if self._seekers.is_restored(parent_inode, name):
            told.entry_timeout = told.attr_timeout = 0.0
        self._let_go()
        return told

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, times in inode_list:
            self._inodes.forget(inode, times)

    @answered
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        node = self._inodes.node(inode)
        return self._shown(node, await self._attributes(inode, node))

    @answered
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        node = self._inodes.node(inode)
        files = self._handles.drafts(inode, fh)

        def changed(wait: bool) -> Attributes:
            drafts: list[Draft] = [file.draft for file in files]
            if not drafts and node.kind is Kind.SCRATCH:
                drafts = [self._tree.scratch(node)]

            def present() -> Attributes:
                # What is being written is not what others see; but whoever writes it asks by the same number.
                if drafts:
                    return drafts[0].attributes()._replace(inode=inode)
                return self._finder.attributes(inode, node, wait=wait)

            shown = self._shown(node, present())
            setting.apply(self._tree, node, shown, drafts, attr, fields, is_handle=fh is not None)
            return present()

        async with AsyncExitStack() as turns:
            for file in files:
                await turns.enter_async_context(file.turn)
            # A time is set under a lock that others may hold.
            if fields.update_mtime and node.kind is not Kind.SCRATCH:
                return self._shown(node, await self._workers.run(node.user, lambda: changed(True)))
            return self._shown(node, await self._ask_soon(node, changed))

    @answered
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        usage = await self._ask(nodes.ROOT, self._tree.usage)
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = usage.block_size
        answer.f_blocks, answer.f_bfree, answer.f_bavail = usage.blocks, usage.blocks_free, usage.blocks_available
        answer.f_namemax = NAME_MAX
        return answer

    # Directories

    @answered
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(self._handles.add(DirectoryHandle(self._tree, self._inodes.node(inode))))

    @answered
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        handle = self._handles.directory(fh)
        self._let_go()
        place = start_id
        is_empty = True
        async with handle.turn:
            interruption, handle.interruption = handle.interruption, None
            if not place:
                handle.failure = None
            elif interruption is not None:
                raise interruption
            while True:
                try:
                    listed = handle.ahead(place) or await self._listed(handle, place)
                except Exception as error:
                    if is_empty:
                        raise
                    # The kernel counts what it was told of only if it is given that: so it is, and told why this is not
                    # all when it comes for the rest.
                    handle.interruption = error
                    return
                if not listed:
                    break
                for place, name, told in listed:
                    if isinstance(told, Entry):
                        attributes = self._shown(told.node, told.attributes)
                        if told.node.kind is Kind.USERS:
                            # As it was known last: a listing of the mount waits for no backend.
                            attributes.entry_timeout = attributes.attr_timeout = 0.0
                        if not pyfuse3.readdir_reply(token, FileNameT(os.fsencode(name)), attributes, place):
                            return
                        is_empty = False
                        self._inodes.remember(told.attributes.inode, told.node)
                    elif not isinstance(told, NotFound):  # Else it is not there yet, or no more.
                        # One that cannot be shown hides no other.
                        log.warning("%s has an entry %r that cannot be shown: %s", handle.node, name, told)
                        handle.failure = told
            if is_empty and handle.failure is not None:
                # But whoever copies what is there has to know that this is not all.
                failure, handle.failure = handle.failure, None
                raise failure

    async def _listed(self, handle: DirectoryHandle, place: int) -> Sequence[Listed]:
        node = handle.node
        if handle.ends_at(place):
            return ()
        # Of the mount's own directory all is known.
        blocks = node.kind is not Kind.ROOT and (self._tree.blocks or self._tree.lists_slowly(node))
        return await self._workers.ask_about(node, blocks, lambda: handle.read(place))

    @answered
    async def releasedir(self, fh: FileHandleT) -> None:
        directory = self._handles.directory(fh)
        self._handles.remove(fh)
        directory.close()

    @answered
    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        parent = self._inodes.node(parent_inode)
        text = os.fsdecode(name)
        return self._told(await self._workers.run(text, lambda: self._tree.make_directory(parent, text)))

    # Files

    @answered
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        node = self._inodes.node(inode)
        seeker = self._seekers.opens(ctx.pid, inode)
        if (
            self._inodes.has_changed_hands(inode)
            and seeker.sought_as is not Kind.CURRENT
            and not seeker.has_looked_again
        ):
            # It is told the number that the name has now.
            raise seeker.sent_back(f"{node} was another user's a moment ago")
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if writes and seeker.may_have_found_another and self._inodes.may_be_found_as_archive(inode):
            raise seeker.sent_back(f"{node} was an archive a moment ago")
        if node.kind is Kind.SCRATCH or (flags & os.O_TRUNC) or (writes and not flags & os.O_APPEND):
            if node.kind in {Kind.CURRENT, Kind.ARCHIVE} and not seeker.means(node.kind):
                raise seeker.sent_back(f"{node} may be called otherwise by now")
            return await self._opened_to_write(inode, node, flags)
        reader = appender = opener = None
        if writes:
            looked_up = node
            try:
                node = await self._ask(
                    node, lambda: self._finder.to_append_to(inode, looked_up, flags, seeker.sought_as)
                )
            except Stale as error:
                raise seeker.sent_back(str(error)) from None
            # An archive would be refused, and may be meant as what it was before it was moved; and what is looked up as
            # an archive is not to be gone on with because it is none any more.
            if seeker.may_look_again if node.kind is Kind.ARCHIVE else not seeker.means(Kind.CURRENT):
                raise seeker.sent_back(f"{node} may be called otherwise by now")
            appender = self._tree.appender(node)
        if flags & os.O_ACCMODE != os.O_WRONLY:
            found, appends = node, appender is not None
            reader = await self._ask_soon(
                node, lambda wait: self._finder.reader(inode, found, appends=appends, wait=wait)
            )
        if appender is not None:
            opener = self._openers.opened(inode, ctx.pid)
        return self._opened(ConversationFile(self._tree, self._workers, node, inode, reader, appender, opener))

    @answered
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        parent = self._inodes.node(parent_inode)
        self._seekers.missed(ctx.pid, parent.kind, parent_inode, name)
        node = self._tree.to_create(parent, os.fsdecode(name))
        if flags & os.O_EXCL and await self._ask(node, lambda: self._tree.is_begun(node)):
            raise AlreadyExists(f"{node} was begun by somebody else")
        if node.kind is Kind.SCRATCH:
            scratch = self._tree.make_scratch(node, stat.S_IMODE(mode), (ctx.uid, ctx.gid))
            attributes = scratch.attributes()
            file: OpenFile = self._draft_file(node, attributes.inode, scratch, flags)
        else:
            # Nothing is stored before the first message, or before a copy is whole: until then it has a number of
            # its own.
            attributes = self._tree.unwritten(node)
            if flags & os.O_APPEND:
                appender = self._tree.appender(node)
                opener = self._openers.opened(attributes.inode, ctx.pid)
                file = ConversationFile(self._tree, self._workers, node, attributes.inode, None, appender, opener)
            else:
                draft = await self._ask(node, lambda: self._tree.draft(node, empty=bool(flags & os.O_TRUNC)))
                file = self._draft_file(node, attributes.inode, draft, flags)
        told = self._told(Entry(node, attributes))
        told.entry_timeout = told.attr_timeout = 0.0
        return self._opened(file), told

    @answered
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return await self._handles.file(fh).read(off, size)

    @answered
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        await self._handles.file(fh).write(off, buf)
        return len(buf)

    @answered
    async def flush(self, fh: FileHandleT) -> None:
        await self._handles.file(fh).flush()

    @answered
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._handles.file(fh).fsync()

    @answered
    async def release(self, fh: FileHandleT) -> None:
        file = self._handles.file(fh)
        self._handles.remove(fh)
        if not await file.release():
            self.leaving.add(file)

    # Moving and removing

    @answered
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise OSError(errno.EINVAL, "names cannot be exchanged here")
        replace = not flags & pyfuse3.RENAME_NOREPLACE
        parent, new_parent = self._inodes.node(parent_inode_old), self._inodes.node(parent_inode_new)
        old, new = os.fsdecode(name_old), os.fsdecode(name_new)
        if parent.kind is Kind.ARCHIVED and new_parent.kind is Kind.DIALOGS:
            self._seekers.restores(ctx.pid, parent_inode_old, name_old)
        try:
            node = await self._workers.run(
                parent.user, lambda: self._tree.rename(parent, old, new_parent, new, replace=replace)
            )
        except (InvalidMessage, NotPermitted) as error:
            # Whoever moves it sees a number only; the reason is here.
            log.info("%s in %s cannot become %s in %s: %s", old, parent, new, new_parent, error)
            raise
        finally:
            self._seekers.restored(parent_inode_old, name_old)
        self._seekers.looked_up(ctx.pid, 0, node)
        # It is done; should it have moved on already, its number is looked for when it is asked for.
        with suppress(NotFound):
            attributes = await self._ask(node, lambda: self._tree.attributes(node))
            self._inodes.renamed(attributes.inode, node)
        if node.kind is Kind.CURRENT:
            # The kernel may remember for a while, as of the archive that it was, that this is what it is called.
            pyfuse3.invalidate_entry_async(parent_inode_new, name_new, ignore_enoent=True)

    @answered
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        parent = self._inodes.node(parent_inode)
        await self._workers.run(parent.user, lambda: self._tree.remove(parent, os.fsdecode(name)))

    rmdir = unlink

    @answered
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        raise NotPermitted("there are no links here")

    @answered
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        raise NotPermitted("there are no links here")

    @answered
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        raise NotPermitted("there are no special files here")

    # The base class answers ENOSYS to what is left, xattrs among it. For those that is on purpose: after one ENOSYS
    # the kernel stops asking for security.capability before every write.

    # Inside

    def _metrics(self, figures: Figures) -> bytes:
        from potofs.fuse import metrics

        present = {
            "open files": len(self._handles.files()),
            "open directories": self._handles.directories(),
            "worker threads": self._workers.at_work(),
            "remembered inodes": len(self._inodes),
        }
        return metrics.text(self.activity, present, figures)

    def close(self) -> None:
        """Sets aside what open handles have not finished; after the last request."""
        try:
            settle_at_last([*self.leaving.files(), *self._handles.files()], self._tree.patience)
        finally:
            self._tree.close()

    def _let_go(self) -> None:
        """Has the kernel forget archives that it was not told of lately, if it remembers too many."""
        if self.freshness.takes_more:
            # What is open it does not forget anyway, and it would be shown as deleted in /proc.
            found = self._inodes.to_let_go(self._handles.is_open)
            if found:
                self.freshness.let_go(found)

    async def _ask(self, node: Node, question: Callable[[], Result]) -> Result:
        """Asks the tree something about a node: here where that is quick, else in a worker thread."""
        blocks = self._tree.blocks or self._tree.blocks_at(node)
        return await self._workers.ask_about(node, blocks, question)

    async def _ask_soon(self, node: Node, question: Callable[[bool], Result]) -> Result:
        """The same of what may turn out to take long: it is told whether it may wait, and raises WouldBlock."""
        return await self._workers.look_about(node, self._tree.blocks or self._tree.blocks_at(node), question)

    @staticmethod
    def _is_making(thread: int, name: FileNameT, node: Node) -> bool:
        return intent.is_making(thread, os.fsdecode(name), folder=node.kind.is_directory)

    async def _looked_up(self, parent: Node, name: str) -> Entry:
        # What is asked about is the entry, which may take longer than the directory, or wait for nobody.
        about = parent
        # But who is no user may be asked for under any name.
        if parent.kind is not Kind.USERS:
            with suppress(InvalidName, NameTooLong):
                about = nodes.child(parent, name) or parent
        return await self._ask(about, lambda: self._tree.lookup(parent, name))

    async def _attributes(self, inode: InodeT, node: Node) -> Attributes:
        if node.kind is Kind.ROOT:
            # On the way to everything, so to what tells that the backend does not answer: it is not asked.
            return self._tree.attributes(node)
        return await self._ask_soon(node, lambda may_wait: self._finder.attributes(inode, node, wait=may_wait))

    async def _opened_to_write(self, inode: InodeT, node: Node, flags: int) -> FileInfo:
        """Opens a file to write to it in any other way than by appending records."""

        def draft() -> Draft:
            self._finder.refuse_stale(inode, node)
            if flags & os.O_APPEND and node.kind is not Kind.SCRATCH:
                raise NotPermitted(f"{node} cannot be emptied: open it without O_TRUNC")
            return self._tree.draft(node, empty=bool(flags & os.O_TRUNC))

        return self._opened(self._draft_file(node, inode, await self._ask(node, draft), flags))

    def _draft_file(self, node: Node, inode: int, draft: Draft, flags: int) -> DraftFile:
        return DraftFile(
            self._tree,
            self._workers,
            node,
            inode,
            draft,
            may_write=flags & os.O_ACCMODE != os.O_RDONLY,
            appends=bool(flags & os.O_APPEND),
        )

    def _opened(self, file: OpenFile) -> FileInfo:
        # Read past the kernel's cache, archives too: one that is restored grows, and behind what the kernel has in its
        # pages it would show zeros for a moment.
        return FileInfo(fh=FileHandleT(self._handles.add(file)), direct_io=True, keep_cache=False)

    def _told(self, entry: Entry) -> EntryAttributes:
        """An entry as the kernel is told of it, which counts as a lookup."""
        self._inodes.remember(entry.attributes.inode, entry.node)
        return self._shown(entry.node, entry.attributes)

    def _shown(self, node: Node, attributes: Attributes) -> EntryAttributes:
        answer = EntryAttributes()
        answer.st_ino = InodeT(attributes.inode)
        # A scratch file has what it was given.
        mode, owner = attributes.mode, attributes.owner
        if owner is None:
            mode, owner = self.permissions.of(node, mode)
        answer.st_mode = ModeT(mode)
        answer.st_nlink = 2 if node.kind.is_directory else 1
        answer.st_uid, answer.st_gid = owner
        answer.st_size = attributes.size
        answer.st_blksize = _BLOCK
        answer.st_blocks = (attributes.size + 511) // 512
        answer.st_atime_ns = answer.st_mtime_ns = attributes.mtime_ns
        answer.st_ctime_ns = attributes.ctime_ns
        # Nor is what a copy is being made of: the time of one folder is set, and others have it, too.
        remembered = not (node.kind.is_fresh or self._tree.is_just_made(node))
        answer.entry_timeout = answer.attr_timeout = REMEMBERED if remembered else 0.0
        return answer
