"""Where everything is under the root: the tree of the document.

users/<name>/                     one folder a user; `potofs.names` spells the id
    metadata.yaml                 what is stored of the user beside conversations
    dialogs/current.yaml          the running conversation, append-only
    dialogs/archived/<name>.yaml  archives, or <name>.yaml.gz once they are compressed
    dialogs/archived/.<hex>.id    empty: the file that a compressed archive was, for its number's sake
    dialogs/rejected/<time>.yaml  bytes that were refused
    .current.idx                  what a long running conversation holds; derived (`sidecar`)
    .archives                     what each archive holds; derived (`accounts`)
    .lock                         held by whoever changes something of the user; in it, what was counted (`totals`)
system/fence.json                 whether changes are taken, if that was ever said
    totals                        sums over all users; derived
    cleanup.log                   what clean-ups did, a line each
    .lock                         held while the fence is set, and shared by whoever makes a user's folders
"""

import os
from hashlib import blake2b

from potofs import names

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
COMPRESSED = ".gz"
# What ends the name of a file that only keeps its number.
NUMBER = ".id"


class Layout:
    """The paths under one root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.users = os.path.join(root, "users")
        self.system = os.path.join(root, "system")
        self.fence = f"{self.system}/fence.json"
        self.totals = f"{self.system}/totals"
        self.cleanup_log = f"{self.system}/cleanup.log"
        self.fence_lock = f"{self.system}/.lock"
        #: The file system that the folder of users lies on; None before anybody has looked.
        self.device: int | None = None

    def number_of(self, found: os.stat_result) -> int:
        """The number of a conversation's file: its inode's, but for a user whose folder lies on another file system.

        There it may be the inode's of somebody else's here, and whoever goes by the number would be shown that.
        """
        if self.device in (None, found.st_dev):
            return found.st_ino
        both = found.st_dev.to_bytes(8) + found.st_ino.to_bytes(8)
        return int.from_bytes(blake2b(both, digest_size=8).digest()) >> 1

    def user(self, user: str) -> str:
        return f"{self.users}/{names.encode(user)}"

    def lock(self, user: str) -> str:
        return f"{self.user(user)}/.lock"

    def archive_index(self, user: str) -> str:
        return f"{self.user(user)}/.archives"

    def sidecar(self, user: str) -> str:
        return f"{self.user(user)}/.current.idx"

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

    def compressed(self, user: str, archive: str) -> str:
        return self.conversation(user, archive) + COMPRESSED

    def number(self, user: str, token: bytes) -> str:
        """The file whose number an archive has that is compressed."""
        return f"{self.archived(user)}/.{token.hex()}{NUMBER}"

    def changing(self, user: str) -> tuple[str, str, str]:
        """The folders whose names say when something of the user came, went or was renamed."""
        return self.dialogs(user), self.archived(user), self.rejected(user)

    def set_aside(self, user: str, name: str) -> str:
        return f"{self.rejected(user)}/{names.archive_file(name)}"
