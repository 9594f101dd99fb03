"""The folders of users: made as they are needed, durable where they have to be."""

import os

from potofs.backends.filesystem import files
from potofs.backends.filesystem.conversations import must_be_there
from potofs.backends.filesystem.fence import FenceFile
from potofs.backends.filesystem.layout import Layout
from potofs.backends.filesystem.sync import sync_directory


class Folders:
    """Those of one root."""

    def __init__(self, layout: Layout, fence: FenceFile) -> None:
        self._layout, self._fence = layout, fence

    def make(self, user: str, *, wait: bool = True) -> None:
        """Makes those of a user that are not there; raises Fenced, WouldBlock, DeadlineExceeded, OSError."""
        archived = self._layout.archived(user)
        if not os.path.isdir(archived):
            with self._fence.open_for_users(wait=wait), must_be_there(self._layout):
                # Whoever needs them durable calls `sync` in the end: here it may be somebody else who made them.
                files.make_directories(archived, below=self._layout.users, durable=False)

    def sync(self, user: str) -> None:
        """Makes durable where a user's conversations are, up to the folder of all users; raises OSError."""
        for folder in (self._layout.dialogs(user), self._layout.user(user), self._layout.users):
            sync_directory(folder)

    def set_users_changed(self, when_ns: int) -> None:
        """Sets when a user was last added; raises Fenced, DeadlineExceeded, OSError."""
        with self._fence.open_for_users(wait=True), must_be_there(self._layout):
            os.utime(self._layout.users, ns=(when_ns, when_ns))
