"""The clients of redis-py: how one is made for a server, for what sentinels watch, and for a cluster.

redis-py is typed loosely; a client is Any here and wherever one is used.
"""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from potofs.backends.redis import failures, patience
from potofs.backends.redis.address import Address

# As many as requests can be under way in one mount, and some for other threads.
_CONNECTIONS = 256
# What a node of a cluster may take to say where the masters are (part of a deadline; seconds at least): another one
# may know, too.
_GLANCE = 1 / 20
_LEAST_GLANCE = 0.1
# How many other masters are asked for the commands there are, if one does not say.
_OTHERS = 8


def client(to: Address, timeout: float) -> Any:
    """A client that tries nothing again; `timeout` (seconds) is the longest that it waits once.

    That of a cluster asks the cluster at once, and raises what redis-py does; the others connect later.
    """
    common: dict[str, Any] = {
        "username": to.username,
        "password": to.password,
        "socket_timeout": timeout,
        "protocol": 2,
        "max_connections": _CONNECTIONS,
    }
    once = Retry(NoBackoff(), 0)
    if to.kind == "cluster":
        return _cluster(to, timeout, common)
    if to.kind == "sentinel":
        # A sentinel that is down may not take the whole deadline: there are others.
        of: Any = Sentinel
        sentinel = of(to.hosts, sentinel_kwargs={"socket_timeout": timeout / 4, "retry": once})
        for one in sentinel.sentinels:
            one.connection_pool.connection_class = patience.Plain
        managed = patience.WatchedSecured if to.tls else patience.Watched
        return sentinel.master_for(to.service, db=to.db, connection_class=managed, retry=once, **common)
    if to.socket:
        where: dict[str, Any] = {"connection_class": patience.Local, "path": to.socket}
    else:
        ((host, port),) = to.hosts
        where = {"connection_class": patience.Secured if to.tls else patience.Plain, "host": host, "port": port}
    return redis.Redis.from_pool(redis.ConnectionPool(db=to.db, retry=once, **where, **common))


def _cluster(to: Address, timeout: float, common: dict[str, Any]) -> Any:
    glance = max(_LEAST_GLANCE, timeout * _GLANCE)
    node: Any = ClusterNode
    of: Any = RedisCluster
    (host, port), *others = to.hosts
    with patience.looking(glance):
        # It takes a class of connections with a URL only.
        made = of(
            url=f"redis://{host}:{port}",
            startup_nodes=[node(*other) for other in others],
            connection_class=patience.Secured if to.tls else patience.Plain,
            # It asks one master for the commands there are, and others only if it tries again.
            retry=Retry(NoBackoff(), _OTHERS),
            **common,
        )
    made.set_retry(Retry(NoBackoff(), 0))
    made.nodes_manager.initialize = _alone(made.nodes_manager.initialize, glance)
    return made


def _alone(look: Callable[..., None], glance: float) -> Callable[..., None]:
    """Looking where a cluster's masters are, by one thread at a time, and with little patience for each node.

    redis-py gives a node that hangs all the time that is left, and has other threads wait for that.
    """
    guard = threading.Lock()

    def initialize(*args: Any, **kwargs: Any) -> None:
        with patience.looking(glance):
            if not guard.acquire(blocking=False):
                # What another thread finds is known to all.
                if not guard.acquire(timeout=max(0.0, patience.left())):
                    raise redis.TimeoutError("another thread still asks where the masters are")
                guard.release()
                return
            try:
                look(*args, **kwargs)
            finally:
                guard.release()

    return initialize


def masters(of: Any) -> list[Any]:
    """A client of each master."""
    if not isinstance(of, RedisCluster):
        return [of]
    cluster: Any = of
    return [cluster.get_redis_connection(node) for node in cluster.get_primaries()]


def servers(asked: Any, keys: Iterable[str] | None) -> dict[str, str | None]:
    """The masters that have these keys, each by the name that a cluster has for it, with one of the keys.

    Keys that no master has now are one's without a name, and so is everything that is not in a cluster. None: all of
    them, without a key.
    """
    if not isinstance(asked, RedisCluster):
        return {"": None}
    cluster: Any = asked
    if keys is None:
        return {node.name: None for node in cluster.get_primaries()}
    found: dict[str, str | None] = {}
    for key in keys:
        try:
            found[cluster.get_node_from_key(key).name] = key
        except redis.exceptions.SlotNotCoveredError:
            found[""] = key
    return found


def is_silent(asked: Any, server: str, key: str | None, timeout: float, *, fails_over: bool) -> bool:
    """Whether one of `servers` does not answer in so long (seconds), asked for the key that it had, if any.

    Whoever says no at once is not silent, unless another one may take its place; nor is one that is no part of a
    cluster any more, or has the key no more.
    """
    if isinstance(asked, RedisCluster):
        cluster: Any = asked
        if not server:
            return key is not None and "" in servers(cluster, [key])
        node = cluster.get_node(node_name=server)
        if node is None:
            return False
        asked = cluster.get_redis_connection(node)
    with patience.within(timeout):
        try:
            asked.execute_command(*(("EXISTS", key) if key else ("PING",)))
        except failures.THEIRS as error:
            return isinstance(error, redis.TimeoutError) or failures.passes(error, fails_over=fails_over)
        return False


def look_again(at: Any, timeout: float) -> None:
    """Asks a cluster where its masters are, for so long (seconds); if nobody says, all is as before.

    redis-py makes the connections anew to the node that says so.
    """
    if isinstance(at, RedisCluster):
        cluster: Any = at
        with patience.within(timeout), suppress(*failures.THEIRS):
            cluster.nodes_manager.initialize()


def close(ended: Any) -> None:
    """Ends all of a client's connections."""
    if isinstance(ended, RedisCluster):
        cluster: Any = ended
        for node in cluster.get_nodes():
            if node.redis_connection:
                # They are its own, but not in its eyes: a class of connections was given.
                node.redis_connection.connection_pool.disconnect()
    ended.close()
