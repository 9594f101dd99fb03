"""A cluster of three masters, and what a sentinel watches: what becomes of appends if a master dies."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from potofs.backends.base import Fence
from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.keys import SHARDS, shard_of_user
from potofs.config import Where
from potofs.errors import DeadlineExceeded, Unreachable
from potofs.journal import reading
from tests.backends.kit import open_cluster, record, records, said, stored
from tests.redis_servers import PATIENCE, Cluster, Server, Watched, come_back, cut_off, has_bytes, replace, wait_until


def test_users_of_all_masters_are_listed_and_counted(tmp_path: Path) -> None:
    backend = open_cluster(tmp_path)
    users = [f"user {number}" for number in range(200)]
    assert len({shard_of_user(user) for user in users}) > 100
    for user in users:
        backend.append(user, [record("hello")])
    assert sorted(backend.users()) == sorted(users)
    assert backend.totals()[:4] == (200, 200, 0, 200)
    assert backend.users_changed() >= backend.user_changed(users[0]) > 0


def test_without_waiting_for_replicas_a_masters_death_loses_only_what_was_said_just_before_it(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    try:
        backend = RedisBackend(Where("redis+sentinel", watched.place, {"timeoutMs": "20000"}), reading.marks)
        given = [f"message {number}" for number in range(200)]
        for number, content in enumerate(given):
            if number == 60:
                watched.servers[0].kill()
            backend.append("mia", [record(content, retry=False)])
        archives = sorted(backend.archives("mia"), key=lambda archive: archive.stat.id)
        contents = [content for one in archives for content in said(stored(backend, "mia", one.name))]
        assert len(contents) >= 100, "two archivals at least, whatever was lost"
        contents += said(stored(backend, "mia")) if len(contents) < 200 else []
        # In order, none twice; what was lost had been acknowledged before the death, and none after it.
        assert contents[: contents.index("message 60")] == given[: contents.index("message 60")]
        assert contents[contents.index("message 60") :] == given[60:]
        backend.close()
    finally:
        watched.kill()


def test_a_masters_death_under_appends_loses_and_doubles_nothing_that_replicas_have(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    try:
        where = Where("redis+sentinel", watched.place, {"waitReplicas": "1", "timeoutMs": "2000"})
        append_through_a_death(where, watched.servers[0], watched.servers[1])
    finally:
        watched.kill()


def test_a_change_that_is_lost_while_a_replica_is_waited_for_is_done_by_the_new_master(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    try:
        master, replica = watched.servers[:2]
        where = Where("redis+sentinel", watched.place, {"waitReplicas": "1", "timeoutMs": "20000"})
        backend = RedisBackend(where, reading.marks)
        backend.append("mia", records(0, 2))
        cut_off(master, replica)
        with ThreadPoolExecutor() as pool:
            lost = pool.submit(backend.append, "mia", [record("hello", retry=False)])
            wait_until(master, lambda client: client.info("clients")["blocked_clients"])
            replace(master, replica)
            # It has a replica again, that of another history: what was asked for is not there.
            come_back(master, replica, tell=True)
            assert lost.result(PATIENCE) == (1, None)
        assert said(stored(backend, "mia"))[2:] == ["hello"]
        assert backend.totals().messages == 3
        backend.close()
    finally:
        watched.kill()


def test_a_fence_is_set_on_all_masters_and_their_replicas(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, replicas=1)
    try:
        where = Where("redis+cluster", cluster.place, {"waitReplicas": "1", "timeoutMs": "5000"})
        backend = RedisBackend(where, reading.marks)
        backend.set_fence(Fence("frozen", 1))
        assert backend.fence() == Fence("frozen", 1)
        fenced = 0
        for node in cluster.nodes[3:]:
            with node.client() as client:
                client.execute_command("READONLY")
                fenced += sum(client.hget(key, "closed") == b"1" for key in client.scan_iter("*:shard"))
        assert fenced == SHARDS
        backend.close()
    finally:
        cluster.kill()


def test_a_cluster_masters_death_under_appends_loses_and_doubles_nothing_that_replicas_have(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, replicas=1)
    try:
        where = Where("redis+cluster", cluster.place, {"waitReplicas": "1", "timeoutMs": "2000"})
        # The master of this user's slot: the one that its bytes are on.
        backend = RedisBackend(where, reading.marks)
        backend.append("mia", [record("at first")])
        backend.close()
        (master,) = [node for node in cluster.nodes[:3] if has_bytes(node)]
        append_through_a_death(where, master, cluster.nodes[3 + cluster.nodes.index(master)])
    finally:
        cluster.kill()


def append_through_a_death(where: Where, master: Server, replica: Server) -> None:
    backend = RedisBackend(where, reading.marks)
    acknowledged = []
    unknown = []
    for number in range(60):
        if number == 20:
            master.kill()
        content = f"message {number}"
        try:
            backend.append("mia", [record(content, retry=False)])
            acknowledged.append(content)
        except DeadlineExceeded:
            # Stored by the new master, which has no replica that could confirm it.
            unknown.append(content)
            break
        except Unreachable:
            unknown.append(content)
    wait_until(replica, lambda client: client.info("replication")["role"] == "master")
    # With no replica left nothing more can be confirmed; what was stored is there, once.
    alone = RedisBackend(Where(where.scheme, where.place, {"timeoutMs": "20000"}), reading.marks)
    alone.append("mia", [record("at last")])
    contents = [content for content in said(stored(alone, "mia")) if content.startswith("message")]
    assert len(contents) == len(set(contents))
    assert [content for content in contents if content in acknowledged] == acknowledged
    assert set(contents) <= {*acknowledged, *unknown}
    assert len(acknowledged) == 20
    for one in (backend, alone):
        one.close()
