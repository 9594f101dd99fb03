"""Making durable what was appended to a user, wherever it is by now, without looking at what was durable before.

What was appended is in the running conversation, or in an archive that another server, told never to wait for a disk,
has made of it. So archives are looked at only if their folder has another state than when all of them were on disk.
"""

import os
import time
from contextlib import suppress
from typing import NamedTuple

from potofs.backends.filesystem.conversations import Conversations, last_appended
from potofs.backends.filesystem.folders import Folders
from potofs.backends.filesystem.index import Appended
from potofs.backends.filesystem.layout import Layout
from potofs.backends.filesystem.lock import UserLocks
from potofs.backends.filesystem.running import Running
from potofs.backends.filesystem.sync import GroupSync, sync_directory
from potofs.errors import NotFound

# Users of whom is remembered what is on disk.
_REMEMBERED = 4096
# Two changes of a folder within one tick of the clock of files give it the same time (nanoseconds; twice the longest
# tick of Linux).
_TICK = 20_000_000
# Older than every archive.
_NEVER: Appended = (-1 << 63, "")

# What tells a folder's names from all that it ever had: inode, time of last change of them, and of anything.
_State = tuple[int, int, int]


class _OnDisk(NamedTuple):
    """What is on disk of a user's archives."""

    #: Their folder's when they were.
    state: _State
    #: Which of them was appended to last.
    newest: Appended


class Durability:
    """That of users of one root; `archives_are`: nothing is archived there that is not on disk."""

    def __init__(
        self,
        layout: Layout,
        conversations: Conversations,
        folders: Folders,
        running: Running,
        locks: UserLocks,
        syncs: GroupSync,
        *,
        archives_are: bool,
    ) -> None:
        self._layout, self._conversations, self._folders = layout, conversations, folders
        self._running, self._locks, self._syncs = running, locks, syncs
        self._archives_are = archives_are
        self._on_disk: dict[str, _OnDisk] = {}

    def sync(self, user: str) -> None:
        """Returns once everything that was appended to a user before is on disk; raises OSError, DeadlineExceeded."""
        # First: if it is archived meanwhile, it is seen among the archives.
        self._sync(user, None)
        state, is_certain = self._state(user)
        before = self._on_disk.get(user)
        # One that a disk did not take may have become an archive since.
        if before is None or before.state != state or self._syncs.has_doubts:
            newest = self._sync_archives(user, before)
            if state is not None and is_certain:
                if len(self._on_disk) >= _REMEMBERED:
                    self._on_disk.clear()
                self._on_disk[user] = _OnDisk(state, newest)
        with suppress(FileNotFoundError):
            self._folders.sync(user)

    def _sync_archives(self, user: str, before: _OnDisk | None) -> Appended:
        """Makes those archives durable that may not be, and the names of all; returns which is the newest."""
        archives = sorted(self._conversations.archives(user), key=last_appended)
        wanted = archives
        if self._archives_are:
            # The newest all the same: it may have been the running one until now.
            since = before.newest if before else None
            wanted = [one for one in archives if since and last_appended(one) > since] or archives[-1:]
        for archive in wanted:
            self._sync(user, archive.name)
        with suppress(FileNotFoundError):
            sync_directory(self._layout.archived(user))
        return last_appended(archives[-1]) if archives else _NEVER

    def _sync(self, user: str, archive: str | None) -> None:
        with suppress(NotFound), self._conversations.open(user, archive) as reader:
            if self._syncs.is_doubtful(reader.fileno()):
                with self._locks.held(user, wait=True):
                    self._running.write_again(user, reader.fileno())
            self._syncs.sync(reader.fileno())

    def _state(self, user: str) -> tuple[_State | None, bool]:
        """The state of the archives' folder (None: it is not there), and whether any later one can be told from it."""
        now = time.time_ns()
        try:
            found = os.stat(self._layout.archived(user))
        except FileNotFoundError:
            return None, False
        return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns), found.st_ctime_ns < now - _TICK
