"""The shape of the mounted tree: which kinds of entries there are, where, and under which names.

    users/<id>/
        dialogs/
            current.yaml
            archived/<archive>.yaml
            rejected/<time>.yaml        (rejected/ only while there is something in it)
        metadata.yaml
    system/
        stats.yaml
        health.yaml
        metrics.prom                    (only where something serves the tree)
        cleanup.log
    config/
        journal-config.yaml

A name that begins with a dot is a scratch file's, wherever a tool that copies makes one: `SCRATCH` has those folders.

`FIXED` and `FAMILIES` are the one table that lookup and listing both go by. A new file of the tree is a kind, a row
here, and a line in `tree.Tree` that says where its attributes and its contents come from.
"""

from collections.abc import Callable
from enum import Enum
from stat import S_IFDIR, S_IFREG
from typing import Final, NamedTuple

from potofs import names


class Kind(Enum):
    """What an entry is."""

    ROOT = "the mount"
    USERS = "all users"
    USER = "a user"
    DIALOGS = "a user's conversations"
    CURRENT = "the running conversation"
    ARCHIVED = "a user's archives"
    ARCHIVE = "an archive"
    REJECTED = "what a user could not say"
    REJECTED_FILE = "bytes that could not become a message"
    METADATA = "what is known of a user"
    SCRATCH = "a file of this mount's own"
    SYSTEM = "what is known of the journal"
    STATS = "the journal's figures"
    HEALTH = "the journal's health"
    METRICS = "the metrics of this mount"
    CLEANUP_LOG = "the log of clean-ups"
    CONFIG = "the journal's configuration"
    CONFIGURATION = "the configuration in force"

    @property
    def is_directory(self) -> bool:
        return self in _DIRECTORIES

    @property
    def mode(self) -> int:
        """File type and permissions: conversations are nobody's business but the owner's."""
        return S_IFDIR | 0o700 if self.is_directory else S_IFREG | 0o600

    @property
    def is_fresh(self) -> bool:
        """Whether the kernel may not remember its name and attributes."""
        return self in _FRESH

    @property
    def is_of_journal(self) -> bool:
        """Whether it tells of the journal as a whole: `system.SystemFiles` has its attributes and contents."""
        return self in _OF_JOURNAL

    @property
    def is_reckoned(self) -> bool:
        """Whether even its size takes time to find out, on every backend."""
        return self in _RECKONED


_DIRECTORIES: Final = frozenset(
    {Kind.ROOT, Kind.USERS, Kind.USER, Kind.DIALOGS, Kind.ARCHIVED, Kind.REJECTED, Kind.SYSTEM, Kind.CONFIG}
)
_FILES_OF_JOURNAL: Final = frozenset({Kind.STATS, Kind.HEALTH, Kind.METRICS, Kind.CLEANUP_LOG, Kind.CONFIGURATION})
_OF_JOURNAL: Final = _FILES_OF_JOURNAL | {Kind.SYSTEM, Kind.CONFIG}
_RECKONED: Final = _FILES_OF_JOURNAL | {Kind.METADATA}
# rejected/ is there only while there is something in it.
_FRESH: Final = _FILES_OF_JOURNAL | {Kind.CURRENT, Kind.METADATA, Kind.SCRATCH, Kind.REJECTED}


class Node(NamedTuple):
    """One entry of the tree, whether it is there or not."""

    kind: Kind
    user: str = ""
    #: Of an archive or a rejected file: its name without .yaml. Of a scratch file: its path in the user's folder.
    name: str = ""

    def __str__(self) -> str:
        place = f" of user {self.user!r}" if self.user else ""
        return f"{self.kind.value} {self.name}{place}" if self.name else f"{self.kind.value}{place}"


class Family(NamedTuple):
    """Entries of one kind that are as many as there are users or archives."""

    kind: Kind
    #: From an entry's name to what it stands for, and back; InvalidName if nothing of this kind is called so.
    decode: Callable[[str], str]
    encode: Callable[[str], str]


#: The entries whose names are given, by the directory that they are in.
FIXED: Final[dict[Kind, dict[str, Kind]]] = {
    Kind.ROOT: {"users": Kind.USERS, "system": Kind.SYSTEM, "config": Kind.CONFIG},
    Kind.USER: {"dialogs": Kind.DIALOGS, "metadata.yaml": Kind.METADATA},
    Kind.DIALOGS: {"current.yaml": Kind.CURRENT, "archived": Kind.ARCHIVED, "rejected": Kind.REJECTED},
    Kind.SYSTEM: {
        "stats.yaml": Kind.STATS,
        "health.yaml": Kind.HEALTH,
        "metrics.prom": Kind.METRICS,
        "cleanup.log": Kind.CLEANUP_LOG,
    },
    Kind.CONFIG: {"journal-config.yaml": Kind.CONFIGURATION},
}

#: The entries whose names depend, by the directory that they are in.
FAMILIES: Final[dict[Kind, Family]] = {
    Kind.USERS: Family(Kind.USER, names.decode, names.encode),
    Kind.ARCHIVED: Family(Kind.ARCHIVE, names.archive_name, names.archive_file),
    Kind.REJECTED: Family(Kind.REJECTED_FILE, names.archive_name, names.archive_file),
}

ROOT: Final = Node(Kind.ROOT)

#: The directories in which a name that begins with a dot is a scratch file's, and their paths in the user's folder.
SCRATCH: Final[dict[Kind, str]] = {
    Kind.USER: "",
    Kind.DIALOGS: "dialogs/",
    Kind.ARCHIVED: "dialogs/archived/",
    Kind.REJECTED: "dialogs/rejected/",
}


def child(parent: Node, name: str) -> Node | None:
    """What an entry of a directory would be; None if nothing can be called so there.

    Raises InvalidName and NameTooLong for a name that nothing can have anywhere, or outside the grammar of a family.
    """
    kind = FIXED.get(parent.kind, {}).get(name)
    if kind is not None:
        return Node(kind, parent.user)
    names.check(name)
    if name.startswith(".") and parent.kind in SCRATCH:
        return Node(Kind.SCRATCH, parent.user, SCRATCH[parent.kind] + name)
    family = FAMILIES.get(parent.kind)
    if family is None:
        return None
    return member(parent, family.decode(name))


def member(parent: Node, identity: str) -> Node:
    """The entry of a family that stands for a user or an archive."""
    kind = FAMILIES[parent.kind].kind
    return Node(kind, user=identity) if kind is Kind.USER else Node(kind, parent.user, identity)


def name_of(parent: Node, node: Node) -> str:
    """The name that an entry has in its directory."""
    if node.kind is Kind.SCRATCH:
        return node.name.rpartition("/")[2]
    family = FAMILIES.get(parent.kind)
    if family is not None:
        return family.encode(node.user if node.kind is Kind.USER else node.name)
    return next(name for name, kind in FIXED[parent.kind].items() if kind is node.kind)
