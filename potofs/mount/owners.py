"""The owner map: a YAML file that says which system user each user of the journal is.

    users:
      mia: mia          # a user's id, and a system user's name
      "a/b": 1001       # or number
    default: nobody     # whose everybody else's folders are; the mount's own without it

So that with allow_other each system user can enter what is theirs, and nothing else.
"""

import os
import pwd
from collections.abc import Iterator

import yaml

from potofs.errors import ConfigError, PotofsError
from potofs.fuse.permissions import Owner, Owners, Permissions
from potofs.mount.options import MountOptions, is_id, uid_of

_FORM = "write `users:`, and below it a line `id: system user` for each"


def permissions(options: MountOptions) -> Permissions:
    """Owners and modes as a mount's options say, its owner map read anew; raises ConfigError, OSError."""
    mount = Owner(
        os.getuid() if options.uid is None else options.uid, os.getgid() if options.gid is None else options.gid
    )
    owners = None if options.owners is None else read(options.owners, options.gid)
    return Permissions(mount, options.dmask, options.fmask, owners)


def read(path: str, gid: int | None) -> Owners:
    """The owner map in a file; `gid` is every owner's group, or else their own, or the one of their number.

    Raises ConfigError with the line, OSError.
    """
    with open(path, encoding="utf-8") as file:
        try:
            root = yaml.compose(file, Loader=yaml.CSafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = "" if mark is None else f", line {mark.line + 1}"
            said = (getattr(error, "context", None), getattr(error, "problem", None))
            raise ConfigError(f"{path}{line}: {', '.join(filter(None, said)) or error}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8: {error.reason}") from None
    try:
        return _owners(root, gid)
    except _Mistake as mistake:
        line = "" if mistake.node is None else f", line {mistake.node.start_mark.line + 1}"
        raise ConfigError(f"{path}{line}: {mistake}") from None


class _Mistake(PotofsError):
    """Something in the file that cannot be."""

    def __init__(self, node: yaml.Node | None, reason: str) -> None:
        super().__init__(reason)
        self.node = node


def _owners(root: yaml.Node | None, gid: int | None) -> Owners:
    users: dict[str, Owner] = {}
    default = None
    for key, value in _items(root, "this"):
        if key == "users":
            for user, named in _items(value, "users"):
                users[user] = _owner(named, gid)
        elif key == "default":
            default = _owner(value, gid)
        else:
            raise _Mistake(value, f"unknown key {key!r}: there are users and default")
    return Owners(users, default, opens_to_group=gid is not None)


def _items(node: yaml.Node | None, what: str) -> Iterator[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _Mistake(node, f"{what} is not a map: {_FORM}")
    seen: set[str] = set()
    for key, value in node.value:
        # An id is text, however a number or `yes` would be read elsewhere.
        if not isinstance(key, yaml.ScalarNode) or not key.value:
            raise _Mistake(key, f"an id has to be text: {_FORM}")
        if key.value in seen:
            raise _Mistake(key, f"{key.value!r} stands twice: take one of them out")
        seen.add(key.value)
        yield key.value, value


def _owner(node: yaml.Node, gid: int | None) -> Owner:
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise _Mistake(node, "a system user is a name or a number")
    try:
        uid = uid_of(node.value)
    except (KeyError, ValueError):
        raise _Mistake(node, f"there is no system user {node.value!r}: make one (useradd), or give a number") from None
    if not is_id(uid):
        raise _Mistake(node, f"no system user has the number {node.value}")
    if gid is not None:
        return Owner(uid, gid)
    try:
        return Owner(uid, pwd.getpwuid(uid).pw_gid)
    except KeyError:
        # Not the mount's, which would be one group for all of them, and root's at that.
        return Owner(uid, uid)
