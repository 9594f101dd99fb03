"""Where journals are put that are used hard: a folder, or a prefix on a Redis server of the tests' own."""

from pathlib import Path
from urllib.parse import urlencode

from tests import redis_servers
from tests.redis_servers import Server

BACKENDS = ("filesystem", "redis")


def url(backend: str, folder: Path, server: Server | None = None, **options: object) -> str:
    """The URL of a journal in a folder; on Redis the folder only gives it its name."""
    if backend == "filesystem":
        return f"{(folder / 'journal').as_uri()}?{urlencode(options)}"
    # Durability is the server's.
    options = {name: value for name, value in options.items() if name != "fsync"}
    return redis_url("redis", (server or redis_servers.shared()).place, folder, **options)


def redis_url(scheme: str, servers: str, folder: Path, **options: object) -> str:
    """The URL of a journal on Redis servers, with the name of a folder."""
    return f"{scheme}://{servers}?{urlencode({'prefix': f'{folder}:'} | options)}"
