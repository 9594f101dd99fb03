"""Which servers a backend URL means.

The forms are those of redis-py where it has one, and of the `limits` and `kombu` packages where it has none.
"""

from typing import NamedTuple

from potofs.config import RedisSettings, Where
from potofs.errors import ConfigError

_PORT = 6379
_SENTINEL_PORT = 26379


class Address(NamedTuple):
    """Taken apart."""

    #: `server`, `sentinel` or `cluster`.
    kind: str
    #: Of the server, of sentinels, or of some servers of the cluster; empty with a socket.
    hosts: list[tuple[str, int]]
    #: The path of a Unix socket; empty without one.
    socket: str
    db: int
    #: The master's name, as sentinels know it.
    service: str
    username: str | None
    password: str | None
    tls: bool


def address(where: Where, settings: RedisSettings) -> Address:
    """What a place means; raises ConfigError with the form that it should have."""
    transport, _, kind = where.scheme.partition("+")
    if kind == "unix":
        credentials, at, path = where.place.rpartition("@/")
        socket = f"/{path}" if at else where.place
        if not socket.startswith("/"):
            raise ConfigError(f"{where}: a socket is written redis+unix:///run/redis/redis.sock")
        return Address("server", [], socket, settings.db, "", *_credentials(credentials), tls=False)
    credentials, _, rest = where.place.rpartition("@")
    hosts, _, path = rest.partition("/")
    service = ""
    if kind == "sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise ConfigError(f"{where}: the master's name is missing, redis+sentinel://host:26379/mymaster/0")
    if path and not path.isdecimal():
        raise ConfigError(f"{where}: what follows the host has to be a database's number, redis://host:6379/0")
    if path and "db" in where.options:
        raise ConfigError(f"{where}: db: the database stands in the path already, give it once")
    db = int(path) if path else settings.db
    if kind == "cluster" and db:
        raise ConfigError(f"{where}: a cluster has only the database 0")
    found = [_host(where, host, _SENTINEL_PORT if kind == "sentinel" else _PORT) for host in hosts.split(",")]
    if not kind and len(found) > 1:
        raise ConfigError(f"{where}: one host, or redis+sentinel://host,host/mymaster, or redis+cluster://host,host")
    return Address(kind or "server", found, "", db, service, *_credentials(credentials), tls=transport == "rediss")


def _credentials(text: str) -> tuple[str | None, str | None]:
    username, _, password = text.partition(":")
    return username or None, password or None


def _host(where: Where, text: str, default: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default)
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"{where}: {port!r} is not a port")
    return host.strip("[]") or "localhost", int(port)
