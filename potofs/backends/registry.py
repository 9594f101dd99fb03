"""Which backends there are: our own, and what other packages offer under the entry point group `potofs.backends`."""

from collections.abc import Callable
from importlib import import_module
from typing import cast

from potofs.backends.base import Backend, Scan
from potofs.config import REDIS_SCHEMES, Where
from potofs.errors import ConfigError

#: The entry point group; an entry is a callable like Open.
GROUP = "potofs.backends"

#: Opens a backend at a place. Raises ConfigError if the settings or the place cannot be.
Open = Callable[[Where, Scan], Backend]

# Ours by URL scheme, imported when asked for: nobody pays for a backend that is not used.
_OURS = {
    "file": ("potofs.backends.filesystem.backend", "FilesystemBackend"),
    "memory": ("potofs.backends.memory", "MemoryBackend"),
    **dict.fromkeys(sorted(REDIS_SCHEMES), ("potofs.backends.redis.backend", "RedisBackend")),
}

#: The URL schemes of our own backends.
SCHEMES = tuple(_OURS)


def open_backend(where: Where, scan: Scan) -> Backend:
    """The backend at a place; raises ConfigError for one that nobody offers."""
    if where.scheme in _OURS:
        module, name = _OURS[where.scheme]
        return cast(Open, getattr(import_module(module), name))(where, scan)
    # Late: reading the metadata of all installed packages takes longer than the rest of a start.
    from importlib.metadata import entry_points

    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if where.scheme not in offered:
        raise ConfigError(f"no backend is called {where.scheme!r}: there is {', '.join(sorted([*_OURS, *offered]))}")
    return cast(Open, offered[where.scheme].load())(where, scan)
