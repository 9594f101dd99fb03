"""What `-o` says, as mount(8) and fstab(5) write it: names and values behind commas.

A name is one of ours, one that the kernel is told, one that mount(8) or the init system has acted upon already, one
that changes nothing here, or a setting of the backend. Any other is a mistake, and is said.
"""

import difflib
import grp
import os
import pwd
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from potofs import config
from potofs.config import Where
from potofs.errors import ConfigError
from potofs.mount.mountpoints import MountError

_FUSE_CONF = "/etc/fuse.conf"

# What they are for is done when we are called: by mount(8), systemd, or whoever reads fstab.
_OF_OTHERS: Final = frozenset(
    {"auto", "defaults", "group", "noauto", "nofail", "nouser", "owner", "user", "users", "_netdev", "comment"}
)
# It is so anyway. The kernel keeps no times of access on FUSE, and libfuse before 3.15 cannot be told of nodiratime.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("nodev", "nosuid", "relatime", "nostrictatime", "nolazytime", "nodiratime", "diratime", "silent", "loud"),
        *("default_permissions", "auto_unmount"),
    }
)
_NO_TIMES: Final = "no times of access are kept here, and all others at once"
# What is never so, and why: whoever asks for it would rely on it.
_NEVER: Final = {
    "suid": "no programs are here whose owner could count",
    "dev": "no devices can be here",
    **dict.fromkeys(("strictatime", "norelatime", "lazytime"), _NO_TIMES),
}
# What the kernel does or does not do, and what it is told for that: a name, and whether it stands. Every libfuse 3
# passes these names on.
_OF_KERNEL: Final = {
    **{name: (name, True) for name in ("ro", "noexec", "noatime", "sync", "dirsync")},
    "rw": ("ro", False),
    "exec": ("noexec", False),
    "async": ("sync", False),
    "atime": ("noatime", False),
}
# How much of a name has to be like that of an option which is suggested instead (0 to 1).
_NEAR = 0.75
_SETTINGS: Final = frozenset(
    field.encode_name
    for kind in (config.FilesystemSettings, config.RedisSettings, config.MemorySettings)
    for field in msgspec.structs.fields(kind)
)


class MountOptions(msgspec.Struct, frozen=True):
    """How a journal is mounted."""

    #: As they were written.
    text: str = ""
    #: Whether others than whoever mounts it may enter.
    allow_other: bool = False
    #: Whose all is; None: whoever mounts it.
    uid: int | None = None
    gid: int | None = None
    #: Permissions that files and directories do not have.
    fmask: int = 0o077
    dmask: int = 0o077
    #: Whether every change is refused with EROFS.
    read_only: bool = False
    #: Whether the mountpoint may have something in it, which is hidden.
    nonempty: bool = False
    #: Where the daemon logs to, and the file that says which system user is whom.
    log: str | None = None
    owners: str | None = None
    #: What the kernel is told.
    kernel: frozenset[str] = frozenset()
    #: Settings of the backend, by the configuration file's names.
    settings: dict[str, str] = {}

    def applied_to(self, where: Where) -> Where:
        """A backend with the settings among these options."""
        return msgspec.structs.replace(where, options=where.options | self.settings)


def parse(
    texts: Sequence[str],
    *,
    owners: str | None = None,
    log: str | None = None,
    nonempty: bool = False,
    sloppy: bool = False,
) -> MountOptions:
    """What was given with -o, as often as it was; the later word counts, and what has an option of its own.

    Only a setting of the backend may be given once, as in its URL.

    `sloppy`: what is unknown is passed over, as mount(8) wishes with -s. Raises ConfigError.
    """
    values: dict[str, Any] = {}
    kernel: set[str] = set()
    settings: dict[str, str] = {}
    for item in filter(None, ",".join(texts).split(",")):
        name, has_value, value = item.partition("=")
        if name in _VALUES and has_value:
            for field, read in _VALUES[name]:
                values[field] = read(name, value)
        elif name in _FLAGS and not has_value:
            values[name] = True
        elif name in _OF_KERNEL and not has_value:
            told, stands = _OF_KERNEL[name]
            (kernel.add if stands else kernel.discard)(told)
        elif name in _SETTINGS and has_value:
            if name in settings:
                raise ConfigError(f"option {name} is given twice, give it once")
            settings[name] = value
        elif name in _OF_OTHERS or (name in _WITHOUT_EFFECT and not has_value) or name.lower().startswith("x-"):
            continue
        elif not sloppy:
            raise _refused(name, bool(has_value))
    values |= {"owners": _path("owners", owners)} if owners is not None else {}
    values |= {"log": _path("log", log)} if log is not None else {}
    values |= {"nonempty": True} if nonempty else {}
    return MountOptions(
        text=",".join(filter(None, texts)),
        read_only="ro" in kernel,
        kernel=frozenset(kernel),
        settings=settings,
        **values,
    )


def check_allowed(options: MountOptions, fuse_conf: str = _FUSE_CONF) -> None:
    """Raises MountError, with the way out, if this user may not let others in."""
    if not options.allow_other or os.geteuid() == 0:
        return
    try:
        with open(fuse_conf, encoding="utf-8", errors="replace") as lines:
            allowed = any(line.strip() == "user_allow_other" for line in lines)
    except OSError:
        allowed = False
    if not allowed:
        raise MountError(
            f"allow_other: only root may let other users in; root can allow it to all with a line user_allow_other in "
            f"{fuse_conf}"
        )


def uid_of(name: str) -> int:
    """A system user by name or number; raises KeyError for one that is not there, by name."""
    return int(name) if name.isdecimal() and name.isascii() else pwd.getpwnam(name).pw_uid


def is_id(number: int) -> bool:
    """Whether a system user or group can have it; -1 stands for none."""
    return 0 <= number < 0xFFFFFFFF


def _uid(option: str, value: str) -> int:
    return _id(option, value, uid_of, "user")


def _gid(option: str, value: str) -> int:
    return _id(option, value, lambda name: int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid, "group")


def _id(option: str, value: str, find: Callable[[str], int], kind: str) -> int:
    try:
        number = find(value)
    except (KeyError, ValueError):
        raise ConfigError(f"{option}={value}: there is no {kind} of this name: give another, or a number") from None
    if not is_id(number):
        raise ConfigError(f"{option}={value}: no {kind} has this number")
    return number


def _mask(option: str, value: str) -> int:
    if not re.fullmatch("[0-7]{1,4}", value) or int(value, 8) > 0o777:
        raise ConfigError(f"{option}={value}: a mask is an octal number up to 777, such as 027")
    return int(value, 8)


def _path(option: str, value: str) -> str:
    if not value:
        raise ConfigError(f"{option}= is empty: name a file")
    return os.path.abspath(value)


_FLAGS: Final = frozenset({"allow_other", "nonempty"})
_VALUES: Final[dict[str, list[tuple[str, Callable[[str, str], int | str]]]]] = {
    "uid": [("uid", _uid)],
    "gid": [("gid", _gid)],
    "umask": [("fmask", _mask), ("dmask", _mask)],
    "fmask": [("fmask", _mask)],
    "dmask": [("dmask", _mask)],
    "log": [("log", _path)],
    "owners": [("owners", _path)],
}
_KNOWN: Final = sorted({*_FLAGS, *_VALUES, *_OF_KERNEL, *_OF_OTHERS, *_WITHOUT_EFFECT, *_SETTINGS})


def _refused(name: str, has_value: bool) -> ConfigError:
    if name == "remount":
        return ConfigError("option remount: unmount it, and mount it again with the other options")
    if name in _NEVER:
        return ConfigError(f"option {name}: {_NEVER[name]}: leave it out")
    if has_value and name in _KNOWN:
        return ConfigError(f"option {name} takes no value")
    if name in _KNOWN:
        return ConfigError(f"option {name} needs a value: {name}=…")
    by_folded = {known.lower(): known for known in _KNOWN}
    near = difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=_NEAR)
    hint = f"did you mean {by_folded[near[0]]}?" if near else "potofs mount --help names those that there are"
    return ConfigError(f"unknown option {name}: {hint}")
