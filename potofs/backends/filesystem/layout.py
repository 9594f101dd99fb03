"""Where everything is under the root: the tree of the document.

users/<name>/                     one folder a user; `potofs.names` spells the id
    metadata.yaml                 what is stored of the user beside conversations
    dialogs/current.yaml          the running conversation, append-only
    dialogs/archived/<name>.yaml  archives
    dialogs/rejected/<time>.yaml  bytes that were refused
    .lock                         held by whoever changes something of the user; always empty
system/fence.json                 whether changes are taken, if that was ever said
"""

import os

from potofs import names

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class Layout:
    """The paths under one root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.users = os.path.join(root, "users")
        self.fence = os.path.join(root, "system/fence.json")

    def user(self, user: str) -> str:
        return f"{self.users}/{names.encode(user)}"

    def lock(self, user: str) -> str:
        return f"{self.user(user)}/.lock"

    def profile(self, user: str) -> str:
        return f"{self.user(user)}/metadata.yaml"

    def dialogs(self, user: str) -> str:
        return f"{self.user(user)}/dialogs"

    def archived(self, user: str) -> str:
        return f"{self.dialogs(user)}/archived"

    def rejected(self, user: str) -> str:
        return f"{self.dialogs(user)}/rejected"

    def conversation(self, user: str, archive: str | None) -> str:
        """The file of an archive, or of the running conversation (None)."""
        if archive is None:
            return f"{self.dialogs(user)}/current.yaml"
        return f"{self.archived(user)}/{names.archive_file(archive)}"

    def set_aside(self, user: str, name: str) -> str:
        return f"{self.rejected(user)}/{names.archive_file(name)}"
