"""Which backends there are: our own, and what other packages offer under the entry point group `potofs.backends`."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

from potofs.backends.base import Backend, Scan
from potofs.config import REDIS_SCHEMES, Where
from potofs.errors import ConfigError, PotofsError, reason

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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
    """The backend at a place; raises ConfigError for one that nobody offers.

    What is wrong with the backend of another package is a PotofsError that names the package, the cause chained.
    """
    if where.scheme in _OURS:
        module, name = _OURS[where.scheme]
        return _placed(cast(Open, getattr(import_module(module), name))(where, scan), where)
    offered = _offered()
    if where.scheme not in offered:
        raise ConfigError(f"no backend is called {where.scheme!r}: there is {', '.join(sorted([*_OURS, *offered]))}")
    backend = _of_package(offered[where.scheme], where, scan)
    backend.name = backend.name or where.scheme
    return _placed(backend, where)


def is_offered(scheme: str) -> bool:
    """Whether there is a backend of this name."""
    return scheme in _OURS or scheme in _offered()


def _offered() -> dict[str, "EntryPoint"]:
    # Late: reading the metadata of all installed packages takes longer than the rest of a start.
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _placed(backend: Backend, where: Where) -> Backend:
    backend.where = where
    return backend


def _of_package(entry: "EntryPoint", where: Where, scan: Scan) -> Backend:
    package = entry.dist.name if entry.dist else "another package"
    what = f"{where}: the backend {entry.name!r} of {package} ({entry.value})"
    try:
        make = cast(Open, entry.load())
    except Exception as error:
        raise PotofsError(f"{what} cannot be imported: {_told(error)}; install {package} again, or mend it") from error
    try:
        backend = make(where, scan)
    except (PotofsError, OSError):
        raise
    except Exception as error:
        raise PotofsError(f"{what} cannot be opened: {_told(error)}; mend {package}") from error
    if not isinstance(backend, Backend):
        raise PotofsError(
            f"{what} gives a {type(backend).__name__}, and no potofs.backends.base.Backend; mend {package}"
        )
    return backend


def _told(error: Exception) -> str:
    """An error of somebody else in one line, its class included: the text alone may be a name, or nothing."""
    if isinstance(error, PotofsError | OSError):
        return reason(error)
    return " ".join(f"{type(error).__name__}: {error}".split())
