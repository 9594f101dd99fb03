"""The running conversation becomes an archive, and what is remembered and counted of the user goes with it.

The caller holds the user's lock.
"""

import logging
import os
from contextlib import suppress

from potofs.backends.filesystem import files
from potofs.backends.filesystem.accounts import Accounts
from potofs.backends.filesystem.archives import Archives
from potofs.backends.filesystem.conversations import must_exist
from potofs.backends.filesystem.index import Contents, Index
from potofs.backends.filesystem.layout import Layout
from potofs.backends.filesystem.running import Running
from potofs.backends.filesystem.totals import Figures
from potofs.backends.wording import not_found
from potofs.errors import AlreadyExists, NotFound

log = logging.getLogger(__name__)


class Change:
    """What is being done under a user's lock."""

    #: What the running conversation holds after it, if that is known and it is not gone.
    contents: Contents | None = None
    #: What the running conversation held that became an archive, if that is all that became of archives; and the state
    #: that their folder had before that.
    archived: tuple[int, Figures] | None = None


class Archiving:
    """Archivals in one root; `keeps_empty`: an empty conversation may be one that a program is about to write to."""

    def __init__(
        self,
        layout: Layout,
        running: Running,
        index: Index,
        archives: Archives,
        accounts: Accounts,
        *,
        keeps_empty: bool,
    ) -> None:
        self._layout, self._running, self._index = layout, running, index
        self._archives, self._accounts, self._keeps_empty = archives, accounts, keeps_empty

    def archive_by_itself(self, user: str, change: Change) -> str | None:
        """Archives a conversation that is long enough, if that can be.

        The append that brought it there is stored either way, and must not be reported as failed: given once more, it
        would be there twice. The next one tries again.
        """
        try:
            return self.archive(user, None, change)
        except NotFound:
            # A program that takes no lock was quicker to archive it.
            return None
        except (AlreadyExists, OSError) as error:
            log.warning("user %r: the conversation is long enough to be archived, but cannot be: %s", user, error)
            return None

    def archive(self, user: str, name: str | None, change: Change, *, keep_empty: bool = False) -> str:
        """Turns the running conversation into an archive; raises NotFound, AlreadyExists, OSError."""
        with must_exist(self._layout, user, None):
            descriptor = self._running.open(user, create=False)
        try:
            contents = self._index.current(user, descriptor)
            if not contents.size and not keep_empty:
                raise not_found(user, None)
            state_before = files.state(self._layout.archived(user))
            with must_exist(self._layout, user, None):
                name = self._archives.archive(user, descriptor, name)
            stat = files.stat_of(os.fstat(descriptor), self._layout.number_of)
            self._accounts.note(user, stat, contents.figures())
        finally:
            os.close(descriptor)
        if stat[:2] == (contents.id, contents.size):
            change.archived = state_before, contents.figures()._replace(conversations=0, archives=1)
            self._index.archived(user, state_before, (stat.mtime_ns, name))
        else:
            self._index.forget(user)
        return name

    def make_way(self, user: str, *, swap: bool) -> str | None:
        """Archives the running conversation if there is one and that may be; raises AlreadyExists, OSError.

        Returns its name."""
        path = self._layout.conversation(user, None)
        with suppress(FileNotFoundError, NotFound):
            if os.stat(path).st_size:
                if not swap:
                    raise is_there(user, None)
                return self.archive(user, None, Change())
            # An empty conversation is none: a writer made the file and never wrote.
            if self._keeps_empty:
                # Or is about to, without the lock: then what it writes is in an archive, and not gone.
                self.archive(user, None, Change(), keep_empty=True)
            else:
                os.unlink(path)
        return None


def is_there(user: str, archive: str | None) -> AlreadyExists:
    """The error for what would take the place of something."""
    what = "a running conversation" if archive is None else f"an archive {archive!r}"
    return AlreadyExists(f"user {user!r} has {what} already; nothing is replaced")
