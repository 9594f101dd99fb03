"""What a server is asked when a journal is opened: whether it may lose what is stored, by how it is set up."""

import logging
from collections.abc import Iterator
from itertools import chain
from typing import Any

import redis

from potofs.backends.redis import patience
from potofs.backends.redis.connection import Link

log = logging.getLogger(__name__)

# How long each server may take to say (part of a deadline).
_GLANCE = 1 / 5


def warn(link: Link, server: str) -> None:
    """Logs a warning for each setting by which messages could be lost; raises what a Link raises."""

    def risks(client: Any) -> list[str]:
        # One node of a cluster that does not answer is no reason why the users of the others should not be served.
        with patience.within(link.timeout * _GLANCE):
            try:
                return list(_risks(client))
            except (redis.ConnectionError, redis.TimeoutError) as error:
                return [f"whether it could lose messages is not known: {error}"]

    for risk in chain.from_iterable(link.on_each(risks)):
        log.warning("%s: %s", server, risk)


def _risks(client: Any) -> Iterator[str]:
    found = client.info("everything")
    policy = found.get("maxmemory_policy", "noeviction")
    # The volatile policies only take keys that expire, and ours never do.
    if policy.startswith("allkeys"):
        yield f"its maxmemory-policy is {policy}: it deletes conversations when memory runs short; set it to noeviction"
    if found.get("role") == "slave":
        yield "it is a replica: what others store can be read there, and nothing can be changed"
    if not found.get("aof_enabled"):
        if _setting(client, "save") == "":
            yield "it keeps nothing on disk: every conversation is lost when it stops; set appendonly to yes"
        else:
            yield "it writes to disk only now and then: a crash loses what was said since; set appendonly to yes"
    elif _setting(client, "appendfsync") == "no":
        yield "its appendfsync is no: a power failure may lose the last half minute; set it to everysec or always"
    for what in ("aof_last_write_status", "rdb_last_bgsave_status"):
        if found.get(what, "ok") != "ok":
            yield f"its {what} is {found[what]}: it cannot write to its disk"


def _setting(client: Any, name: str) -> str | None:
    """A server's setting; None where it may not be asked for."""
    try:
        value = client.config_get(name).get(name)
    except redis.ResponseError:
        return None
    return value.decode() if isinstance(value, bytes) else value
