"""Whom an entry is shown to belong to, and who may enter it. The kernel checks that (`default_permissions`).

Read on trio's thread for every entry that is shown, and replaced as a whole when it is read anew.
"""

import stat
from collections.abc import Mapping
from typing import Final, NamedTuple

from potofs.tree.nodes import Kind, Node

# What everybody has to pass on the way to a folder of their own.
_ON_THE_WAY: Final = frozenset({Kind.ROOT, Kind.USERS})


class Owner(NamedTuple):
    """A system user and a group, by number."""

    uid: int
    gid: int


class Owners(NamedTuple):
    """Which system user each user of the journal is."""

    by_user: Mapping[str, Owner]
    #: Whose everybody else's folders are; None: the mount's own.
    default: Owner | None = None
    #: Whether their group was named: only then a mask may open something to it, for a group that somebody has by
    #: himself may be shared with strangers.
    opens_to_group: bool = False


class Permissions(NamedTuple):
    """What is shown of owners and modes in one mount."""

    #: Whose everything is that is nobody's own.
    mount: Owner
    #: Permissions that directories and files do not have, as umask(2).
    dmask: int = 0o077
    fmask: int = 0o077
    #: None: there is one owner of all.
    owners: Owners | None = None

    def of(self, node: Node, mode: int) -> tuple[int, Owner]:
        """Mode and owner of an entry of which `mode` says the type, and what its owner may do."""
        own = mode & 0o700
        mask = self.dmask if node.kind.is_directory else self.fmask
        allowed = (own | own >> 3 | own >> 6) & ~mask
        if self.owners is None:
            return stat.S_IFMT(mode) | allowed, self.mount
        # With system users that are to see only their own, no mask opens anything to all.
        allowed &= 0o770
        if node.user:
            owner = self.owners.by_user.get(node.user, self.owners.default) or self.mount
            if not self.owners.opens_to_group:
                allowed &= 0o700
            return stat.S_IFMT(mode) | allowed, owner
        if node.kind in _ON_THE_WAY:
            # To pass, and not to list: a user's id is nobody else's business.
            allowed |= 0o111
        return stat.S_IFMT(mode) | allowed, self.mount
