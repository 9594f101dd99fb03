"""Several servers that hang: a call takes one deadline, however many of them it asks, and nothing is sent later."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from potofs.backends.base import Notice
from potofs.backends.redis.backend import RedisBackend
from potofs.config import Where
from potofs.errors import DeadlineExceeded, PotofsError, Unreachable
from potofs.journal import reading
from tests import redis_servers
from tests.backends.kit import joined, record, records, said, stored
from tests.mounts import wait_until
from tests.redis_servers import PATIENCE, Cluster, Server, Watched

#: What a call may take (seconds), and what a busy machine may add.
DEADLINE = 0.5
SOME = 0.8

USERS = [f"user-{number}" for number in range(12)]

CALLS: dict[str, Callable[[RedisBackend], object]] = {
    "append": lambda backend: backend.append("mia", records(5, 6)),
    "stat": lambda backend: backend.stat("mia"),
    "read": lambda backend: stored(backend, "mia"),
    "archive": lambda backend: backend.archive("mia", "new.yaml"),
    "archives": lambda backend: list(backend.archives("mia")),
    # These ask every shard.
    "users": lambda backend: list(backend.users()),
    "users changed": lambda backend: backend.users_changed(),
    "totals": lambda backend: backend.totals(),
    "prepare": lambda backend: backend.prepare(create=True),
    "fence": lambda backend: backend.fence(),
}


@pytest.fixture(params=["redis+cluster", "redis+sentinel"])
def several(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster | Watched]:
    servers = Cluster(tmp_path) if request.param == "redis+cluster" else Watched(tmp_path)
    yield servers
    servers.kill()


@contextmanager
def hanging(servers: list[Server]) -> Iterator[None]:
    for server in servers:
        server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for server in servers:
            server.signal(signal.SIGCONT)


def all_of(servers: Cluster | Watched) -> list[Server]:
    return servers.nodes if isinstance(servers, Cluster) else servers.servers


def on(servers: Cluster | Watched, timeout: float = DEADLINE) -> RedisBackend:
    kind = "cluster" if isinstance(servers, Cluster) else "sentinel"
    options = {"timeoutMs": str(round(timeout * 1000))}
    return RedisBackend(Where(f"redis+{kind}", servers.place, options), reading.marks)


def waited(call: Callable[[RedisBackend], object], backend: RedisBackend) -> float:
    """How long a call in vain took (seconds)."""
    begun = time.monotonic()
    # Sentinels that do not answer name no master.
    answer = rf"did not answer within {DEADLINE} s|: No master found for 'mymaster'$"
    with pytest.raises((DeadlineExceeded, Unreachable), match=answer):
        call(backend)
    return time.monotonic() - begun


def test_every_call_takes_one_deadline_alone_and_among_others(several: Cluster | Watched) -> None:
    backend = on(several)
    backend.prepare(create=True)
    for user in ("mia", *USERS):
        backend.append(user, records(0, 2))
    with hanging(all_of(several)), ThreadPoolExecutor(40) as pool:
        # Connections that are open; then new ones, since redis-py ends those that hung.
        for _ in range(2):
            assert {
                name: took for name, call in CALLS.items() if (took := waited(call, backend)) > DEADLINE + SOME
            } == {}
        together = list(pool.map(lambda call: waited(call, backend), list(CALLS.values()) * 4))
        assert max(together) < DEADLINE + SOME
    assert came_back(backend)
    backend.append("mia", records(6, 7))
    assert said(stored(backend, "mia"))[-1] == "message 6"
    # What was asked for in vain may have been done, by a server that had got it; once at most.
    assert said(stored(backend, "mia")).count("message 5") <= 1
    backend.close()


def test_a_first_call_takes_one_deadline_too(several: Cluster | Watched) -> None:
    backend = on(several)
    with hanging(all_of(several)), ThreadPoolExecutor(20) as pool:
        assert max(pool.map(lambda _: waited(CALLS["stat"], backend), range(20))) < DEADLINE + SOME
    assert came_back(backend)
    backend.close()


@pytest.fixture
def uncovered(tmp_path: Path) -> Iterator[Cluster]:
    """One whose nodes answer although another does not."""
    cluster = Cluster(tmp_path, covered=False)
    yield cluster
    cluster.kill()


def a_mounts(cluster: Cluster) -> RedisBackend:
    backend = on(cluster)
    backend.prepare(create=True)
    backend.hurry()
    for user in USERS:
        backend.append(user, records(0, 1))
    return backend


def test_a_batch_of_which_one_node_hangs_takes_one_deadline_and_the_others_answer_meanwhile(uncovered: Cluster) -> None:
    backend = a_mounts(uncovered)
    with hanging(uncovered.nodes[:1]):
        assert waited(CALLS["users changed"], backend) < DEADLINE + SOME
        answered = 0
        for user in USERS:
            begun = time.monotonic()
            with suppress(DeadlineExceeded):
                assert stored(backend, user) == joined(records(0, 1))
                answered += time.monotonic() - begun < DEADLINE / 2
        assert 0 < answered < len(USERS)
    assert came_back(backend)
    backend.close()


@pytest.mark.parametrize("ends", [signal.SIGSTOP, signal.SIGKILL])
def test_many_calls_to_one_node_that_does_not_answer_take_a_deadline_together_and_the_others_answer(
    uncovered: Cluster, ends: signal.Signals
) -> None:
    backend = a_mounts(uncovered)
    gone = uncovered.nodes[0]
    theirs = redis_servers.users_on(gone)
    assert 0 < len(theirs) < len(USERS)
    gone.signal(ends)
    begun = time.monotonic()
    for number in range(100):
        for user in theirs:
            with pytest.raises((DeadlineExceeded, Unreachable)):
                backend.append(user, records(1 + number, 2 + number))
    assert time.monotonic() - begun < 2 * DEADLINE + SOME
    begun = time.monotonic()
    for user in set(USERS) - set(theirs):
        backend.append(user, records(1, 2))
    assert time.monotonic() - begun < DEADLINE
    # What asks every node is told at once, too.
    begun = time.monotonic()
    for call in (CALLS["users changed"], CALLS["totals"], CALLS["users"]):
        with pytest.raises((DeadlineExceeded, Unreachable)):
            call(backend)
    assert time.monotonic() - begun < DEADLINE
    if ends == signal.SIGSTOP:
        gone.signal(signal.SIGCONT)
    else:
        gone.kill()
        gone.start()
    wait_until(lambda: not backend._link._silences, "it was seen to answer")
    for user in USERS:
        backend.append(user, records(200, 201))
    backend.close()


@pytest.mark.parametrize("of", [Server, Cluster])
def test_what_asks_every_server_takes_one_deadline_and_is_told_at_once_from_then_on(
    tmp_path: Path, of: type[Server] | type[Cluster]
) -> None:
    servers = of(tmp_path)
    nodes = servers.nodes if isinstance(servers, Cluster) else [servers]
    scheme = "redis+cluster" if isinstance(servers, Cluster) else "redis"
    backend = RedisBackend(Where(scheme, servers.place, {"timeoutMs": str(round(DEADLINE * 1000))}), reading.marks)
    backend.prepare(create=True)
    backend.hurry()
    try:
        with hanging(nodes):
            with pytest.raises(DeadlineExceeded):
                backend.usage()
            begun = time.monotonic()
            for _ in range(30):
                with pytest.raises(DeadlineExceeded):
                    backend.usage()
            assert time.monotonic() - begun < 2 * DEADLINE
        assert came_back(backend)
        assert backend.usage()
    finally:
        backend.close()
        servers.kill()


def test_whoever_listens_goes_on_to_while_a_node_is_gone(uncovered: Cluster) -> None:
    """A cluster that is asked again and again where its masters are loses connections to those that are well."""
    backend = a_mounts(uncovered)
    told: list[Notice | None] = []
    stop = backend.watch(told.append)
    gone = uncovered.nodes[0]
    theirs, *_ = redis_servers.users_on(gone)
    other, *_ = {*USERS} - redis_servers.users_on(gone)
    wait_until(lambda: None in told, "it is listened to")
    gone.kill()
    begun, before = time.monotonic(), len(told)
    with pytest.raises((DeadlineExceeded, Unreachable)):
        backend.append(theirs, records(1, 2))
    for number in range(20):
        backend.append(other, [record(f"message {number}")])
        backend.archive(other, f"{number}.yaml")
        time.sleep(DEADLINE / 10)
    waited = time.monotonic() - begun
    # What may have changed meanwhile is not known once a deadline at the most.
    assert told.count(None) < 4 + waited / DEADLINE
    wait_until(lambda: other in {notice.user for notice in told[before:] if notice}, "something was heard")
    stop()
    gone.start()
    backend.close()


def test_many_calls_take_a_deadline_together_while_sentinels_know_no_master_that_answers(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    backend = on(watched)
    backend.prepare(create=True)
    backend.append("mia", records(0, 1))
    backend.hurry()
    try:
        for server in watched.servers[:2]:
            server.kill()
        begun = time.monotonic()
        for _ in range(50):
            with pytest.raises((DeadlineExceeded, Unreachable)):
                backend.append("mia", records(1, 2))
        assert time.monotonic() - begun < 2 * DEADLINE + SOME
        watched.servers[0].start()
        assert came_back(backend)
        backend.append("mia", records(2, 3))
    finally:
        backend.close()
        watched.kill()


class Loading(Server):
    """One that has its data to load whenever it starts, and takes its time."""

    def __init__(self, folder: Path) -> None:
        # It answers, that it loads, after each KiB.
        options = {"loading_process_events_interval_bytes": "1024", "rdbcompression": "no"}
        super().__init__(folder, None, appendonly="no", save="3600 1", **options)

    def restart_slowly(self) -> None:
        """Returns as it begins to load; that takes 10 ms for each key."""
        with self.client() as client:
            client.save()
        self.kill()
        self._settings["key_load_delay"] = "10000"
        self.start()

    def wait_until_ready(self) -> None:
        if "key_load_delay" not in self._settings:
            return super().wait_until_ready()
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.BusyLoadingError:
                    return None
                except redis.ConnectionError:
                    time.sleep(0.01)


@pytest.mark.expects_warning("it writes to disk only now and then")
def test_many_calls_take_a_deadline_together_while_a_server_loads_its_data(tmp_path: Path) -> None:
    server = Loading(tmp_path)
    backend = RedisBackend(Where("redis", server.place, {"timeoutMs": str(round(DEADLINE * 1000))}), reading.marks)
    backend.prepare(create=True)
    backend.hurry()
    try:
        users = [f"user-{number}" for number in range(60)]
        for user in users:
            backend.append(user, [record("x" * 2000)])
        server.restart_slowly()
        begun = time.monotonic()
        for _ in range(50):
            with pytest.raises((DeadlineExceeded, Unreachable)):
                backend.append(users[0], records(0, 1))
        assert time.monotonic() - begun < 2 * DEADLINE + SOME
        assert came_back(backend)
        assert [said(stored(backend, user)) for user in users] == [["x" * 2000]] * len(users)
    finally:
        backend.close()
        server.kill()


def test_the_master_that_takes_the_place_of_one_that_hangs_is_found(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, replicas=1)
    try:
        backend = on(cluster)
        backend.prepare(create=True)
        backend.append("mia", records(0, 1))
        (master,) = [node for node in cluster.nodes[:3] if redis_servers.has_bytes(node)]
        replica = cluster.nodes[3 + cluster.nodes.index(master)]
        with hanging([master]):
            redis_servers.wait_until(replica, lambda client: client.info("replication")["role"] == "master")
            with suppress(DeadlineExceeded):
                backend.append("mia", [record("hello")])
            # That one asked whom it knew, and then the others who is there.
            backend.append("mia", [record("again")])
            assert [said(stored(backend, "mia"))[at] for at in (0, -1)] == ["message 0", "again"]
        backend.close()
    finally:
        cluster.kill()


def came_back(backend: RedisBackend) -> bool:
    """True once all answer again; fails if that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            list(backend.users())
        except PotofsError:
            assert time.monotonic() < deadline
        else:
            return True
