"""Servers that hang, stop, are full, may not be written to, or could lose what is stored."""

import errno
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from potofs.backends.base import Backend
from potofs.backends.redis.backend import RedisBackend
from potofs.config import RedisSettings, Where, parse
from potofs.errors import ConfigError, DeadlineExceeded, NotFound, Unreachable
from potofs.journal import reading
from tests import redis_servers
from tests.backends.kit import joined, record, records, said, stored
from tests.mounts import wait_until
from tests.redis_servers import Proxy, Server


@pytest.fixture
def server_with(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server of the test's own, with options."""
    servers: list[Server] = []

    def server_with(**options: str) -> Server:
        servers.append(Server(tmp_path / f"redis{len(servers)}", None, **options))
        return servers[-1]

    yield server_with
    for server in servers:
        server.kill()


@pytest.fixture
def on() -> Iterator[Callable[..., RedisBackend]]:
    """Opens the backend on a server, with settings; not prepared yet."""
    backends: list[RedisBackend] = []

    def on(server: Server, **options: str) -> RedisBackend:
        backends.append(RedisBackend(Where("redis", server.place, options), reading.marks))
        return backends[-1]

    yield on
    for backend in backends:
        backend.close()


ATTEMPTS: dict[str, Callable[[Backend], object]] = {
    "append": lambda backend: backend.append("mia", records(1, 2)),
    "stat": lambda backend: backend.stat("mia"),
    "read": lambda backend: stored(backend, "mia"),
    "totals": lambda backend: backend.totals(),
    "prepare": lambda backend: backend.prepare(create=False),
}


def test_a_server_that_hangs_is_given_up_at_the_deadline_and_used_again_when_it_goes_on(
    server_with: Callable[..., Server], on: Callable[..., RedisBackend]
) -> None:
    server = server_with()
    backend = on(server, timeoutMs="200")
    backend.prepare(create=True)
    backend.append("mia", records(0, 1))
    server.signal(signal.SIGSTOP)
    for attempt in ATTEMPTS.values():
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.2 s"):
            attempt(backend)
        assert 0.15 < time.monotonic() - begun < 2
    server.signal(signal.SIGCONT)
    # The append that nobody waited for may have been done since; trying again stores it once.
    backend.append("mia", records(1, 2))
    assert stored(backend, "mia") == joined(records(0, 2))


def test_for_a_mount_a_server_that_answered_nobody_is_waited_for_once_and_asked_as_soon_as_it_goes_on(
    server_with: Callable[..., Server], on: Callable[..., RedisBackend]
) -> None:
    server = server_with()
    backend = on(server, timeoutMs="1000")
    backend.hurry()
    backend.prepare(create=True)
    backend.append("mia", records(0, 1))
    server.signal(signal.SIGSTOP)
    with pytest.raises(DeadlineExceeded, match=r"did not answer within 1 s$"):
        backend.stat("mia")
    begun = time.monotonic()
    for attempt in ATTEMPTS.values():
        with pytest.raises(DeadlineExceeded, match=r"did not answer within 1 s, nor since"):
            attempt(backend)
    assert time.monotonic() - begun < 0.9
    # However long they are many who try: nobody waits for it once more.
    while time.monotonic() - begun < 3:
        asked = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            backend.stat("mia")
        assert time.monotonic() - asked < 0.9
        time.sleep(0.01)
    server.signal(signal.SIGCONT)
    wait_until(lambda: not backend._link._silences, "it was seen to answer")
    backend.append("mia", records(1, 2))
    name = backend.set_aside("mia", b"half")
    assert [found.name for found in backend.set_asides("mia")] == [name]
    assert stored(backend, "mia") == joined(records(0, 2))
    assert list(backend.check(None, repair=False)) == []


def test_the_database_of_a_path_is_among_the_settings_in_force() -> None:
    backend = RedisBackend(Where("redis", "127.0.0.1:1/3"), reading.marks)
    assert isinstance(backend.configured, RedisSettings)
    assert backend.configured.db == 3
    backend.close()


def test_one_slow_answer_among_others_keeps_nobody_from_being_asked(
    server_with: Callable[..., Server], on: Callable[..., RedisBackend]
) -> None:
    """A connection that hangs is no server that hangs."""
    backend = on(server_with(), timeoutMs="300")
    backend.hurry()
    backend.prepare(create=True)
    backend.append("mia", records(0, 1))
    begun = time.monotonic()

    def wait_in_vain() -> None:
        with pytest.raises(DeadlineExceeded):
            backend._link.command("BLPOP", "nothing", 10)

    slow = threading.Thread(target=wait_in_vain)
    slow.start()
    while time.monotonic() - begun < 0.6:
        backend.stat("mia")
    slow.join()


def test_a_server_that_is_down_is_unreachable_and_found_again_when_it_is_up(
    server_with: Callable[..., Server], on: Callable[..., RedisBackend]
) -> None:
    server = server_with(appendfsync="always")
    backend = on(server)
    backend.prepare(create=True)
    backend.append("mia", records(0, 1))
    server.kill()
    for attempt in ATTEMPTS.values():
        with pytest.raises(Unreachable, match=f"127.0.0.1:{server.port}/0 cannot be reached"):
            attempt(backend)
    server.start()
    for attempt in ATTEMPTS.values():
        attempt(backend)
    assert stored(backend, "mia") == joined(records(0, 2))


@pytest.mark.parametrize(
    ("scheme", "place"), [("redis+cluster", "127.0.0.1:{}"), ("redis+sentinel", "127.0.0.1:{}/mymaster/0")]
)
def test_a_cluster_or_a_sentinel_that_is_down_is_waited_for_until_the_deadline(scheme: str, place: str) -> None:
    where = Where(scheme, place.format(redis_servers.free_port()), {"timeoutMs": "300"})
    backend = RedisBackend(where, reading.marks)
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="cannot be reached"):
        backend.prepare(create=True)
    assert 0.15 < time.monotonic() - begun < 3
    backend.close()


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_a_killed_server_has_everything_that_was_acknowledged(
    server_with: Callable[..., Server], on: Callable[..., RedisBackend], appendfsync: str
) -> None:
    """A server that is killed has written what it acknowledged; only a power failure tells the two settings apart."""
    server = server_with(appendfsync=appendfsync)
    backend = on(server, archiveThreshold="7")
    backend.prepare(create=True)
    total = 0
    for _ in range(4):
        for one in records(total, total + 10):
            backend.append("mia", [one])
        total += 10
        server.kill()
        server.start()
        totals = backend.totals()
        assert (totals.messages, totals.archives, totals.conversations) == (total, total // 7, 1 if total % 7 else 0)
        archives = sorted(backend.archives("mia"), key=lambda one: one.stat.id)
        kept = b"".join(stored(backend, "mia", one.name) for one in archives)
        current = stored(backend, "mia") if total % 7 else b""
        assert kept + current == joined(records(0, total))
        # What is a second try is known still.
        assert backend.append("mia", records(total - 1, total)).stored == 0


def test_a_full_server_takes_nothing_and_has_no_half_record(
    server_with: Callable[..., Server], on: Callable[..., RedisBackend]
) -> None:
    server = server_with(maxmemory="6mb")
    backend = on(server)
    backend.prepare(create=True)
    numbers = itertools.count()

    def fill() -> None:
        for number in numbers:
            backend.append("mia", [record(f"{number} " + "x" * 100_000, retry=False), *records(number, number + 1)])

    with pytest.raises(OSError, match="maxmemory") as caught:
        fill()
    whole = next(numbers) - 1
    assert caught.value.errno == errno.ENOSPC
    assert whole > 5
    before = backend.totals()
    changes: list[Callable[[], object]] = [
        lambda: backend.append("noah", records(0, 1)),
        lambda: backend.append("mia", records(500, 501)),
        lambda: backend.put_archive("mia", "copy", b"x" * 1000, 1),
        lambda: backend.set_aside("mia", b"refused"),
        lambda: backend.create_user("noah", b""),
        lambda: backend.put_profile("mia", b"", 1),
        lambda: backend.extend("mia", backend.stat("mia"), b"x", 1),
    ]
    for change in changes:
        with pytest.raises(OSError, match="maxmemory"):
            change()
    assert backend.totals() == before
    assert before.messages == 2 * whole
    assert before.bytes == len(stored(backend, "mia")) == backend.stat("mia").size
    assert list(backend.users()) == ["mia"]
    assert backend.usage().blocks_free == 0
    with server.client() as client:
        client.config_set("maxmemory", "0")
    assert backend.append("mia", records(500, 501)).stored == 1


def test_a_replica_can_be_read_and_not_be_changed(
    server_with: Callable[..., Server],
    on: Callable[..., RedisBackend],
) -> None:
    master = server_with()
    first = on(master)
    first.prepare(create=True)
    first.append("mia", records(0, 1))
    replica = server_with(replicaof=f"127.0.0.1 {master.port}")
    on(master, waitReplicas="1").append("mia", records(1, 2))
    backend = on(replica)
    assert stored(backend, "mia") == joined(records(0, 2))
    with pytest.raises(OSError, match="read-only replica") as caught:
        backend.append("mia", records(2, 3))
    assert caught.value.errno == errno.EROFS


def test_a_change_that_too_few_replicas_have_is_reported_and_stored_once(
    server_with: Callable[..., Server], on: Callable[..., RedisBackend]
) -> None:
    backend = on(server_with(), waitReplicas="1", timeoutMs="600")
    for _ in range(2):
        with pytest.raises(DeadlineExceeded, match="stored, but 0 of 1 replicas"):
            backend.append("mia", records(0, 1))
    assert stored(backend, "mia") == joined(records(0, 1))


def test_a_change_whose_replicas_answer_was_lost_is_done_once_and_known_only_while_it_is_remembered(
    server_with: Callable[..., Server], on: Callable[..., RedisBackend]
) -> None:
    master = server_with()
    server_with(replicaof=f"127.0.0.1 {master.port}")
    with Proxy(master) as proxy:
        backend = RedisBackend(Where("redis", proxy.place, {"waitReplicas": "1"}), reading.marks)
        backend.append("mia", records(0, 1))
        # What says on which master the change is: noted in the first of two places.
        proxy.lose(b":1\r\n:0\r\n", times=1)
        assert backend.append("mia", [record("hello", retry=False)]).stored == 1

        def meanwhile() -> None:
            for number in range(600):
                directly.set_times("mia", None, number)
            # The one whose answer was lost hears how many there were.
            backend.set_times("mia", None, 600)

        directly = on(master)
        proxy.lose(b":1\r\n:0\r\n", times=1, then=meanwhile)
        with pytest.raises(DeadlineExceeded, match="cannot be told"):
            backend.append("mia", [record("hello again", retry=False)])
        assert proxy.lost == 2
        assert said(stored(backend, "mia"))[1:] == ["hello", "hello again"]
        backend.close()


def test_a_server_wants_its_password(server_with: Callable[..., Server]) -> None:
    server = server_with(requirepass="p@ss:w/rd")
    where = parse(f"redis://:p%40ss%3Aw%2Frd@{server.place}?timeoutMs=1000")
    assert "ss" not in str(where)
    assert parse(where.url) == where
    backend = RedisBackend(where, reading.marks)
    backend.append("mia", records(0, 1))
    backend.close()
    for other in ("", ":wrong@"):
        backend = RedisBackend(parse(f"redis://{other}{server.place}"), reading.marks)
        with pytest.raises(Unreachable, match="refuses the user or the password") as caught:
            backend.append("mia", records(0, 1))
        assert "wrong" not in str(caught.value)
        backend.close()


def test_with_tls_a_server_has_to_be_who_it_says(
    server_with: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", redis_servers.free_port()
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=potofs -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], capture_output=True, check=True)
    files = {"tls_cert_file": str(certificate), "tls_key_file": str(key), "tls_ca_cert_file": str(certificate)}
    server_with(tls_port=str(port), tls_auth_clients="no", **files)
    where = Where("rediss", f"127.0.0.1:{port}/0")
    stranger = RedisBackend(where, reading.marks)
    with pytest.raises(Unreachable, match="certificate verify failed"):
        stranger.append("mia", records(0, 1))
    stranger.close()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    backend = RedisBackend(where, reading.marks)
    backend.append("mia", records(0, 1))
    assert stored(backend, "mia") == joined(records(0, 1))
    backend.close()


def test_a_socket_is_a_place(server_with: Callable[..., Server], tmp_path: Path) -> None:
    server_with(unixsocket=str(tmp_path / "redis.sock"))
    backend = RedisBackend(parse(f"redis+unix://{tmp_path}/redis.sock"), reading.marks)
    backend.append("mia", records(0, 1))
    assert stored(backend, "mia") == joined(records(0, 1))
    backend.close()


# What could lose data


RISKS = [
    ({"maxmemory-policy": "allkeys-lru"}, "deletes conversations"),
    ({"appendonly": "no"}, "every conversation is lost"),
    ({"appendonly": "no", "save": "60 100"}, "a crash loses"),
    ({"appendfsync": "no"}, "power failure"),
]


@pytest.mark.expects_warning("maxmemory-policy|disk|appendfsync")
@pytest.mark.parametrize(("options", "warning"), RISKS, ids=[warning for _, warning in RISKS])
def test_a_setting_that_could_lose_messages_is_warned_of(
    server_with: Callable[..., Server],
    on: Callable[..., RedisBackend],
    caplog: pytest.LogCaptureFixture,
    options: dict[str, str],
    warning: str,
) -> None:
    on(server_with(**options)).prepare(create=True)
    (logged,) = [one for one in caplog.records if one.name.startswith("potofs")]
    assert warning in logged.getMessage()
    assert logged.getMessage().startswith("redis://127.0.0.1:")


def test_a_server_that_loses_nothing_is_not_warned_of(
    server_with: Callable[..., Server], on: Callable[..., RedisBackend], caplog: pytest.LogCaptureFixture
) -> None:
    # The volatile policies take only keys that expire, and none does.
    on(server_with(**{"maxmemory-policy": "volatile-lru"})).prepare(create=True)
    assert [one for one in caplog.records if one.name.startswith("potofs")] == []


# Opening


def test_a_journal_that_is_not_there_is_made_only_if_told_to(tmp_path: Path, on: Callable[..., RedisBackend]) -> None:
    backend = on(redis_servers.shared(), keyPrefix=f"{tmp_path}:")
    with pytest.raises(NotFound, match=str(tmp_path)):
        backend.prepare(create=False)
    backend.prepare(create=True)
    backend.prepare(create=False)


def test_a_journal_of_a_newer_layout_is_left_alone(tmp_path: Path, on: Callable[..., RedisBackend]) -> None:
    server = redis_servers.shared()
    with server.client() as client:
        client.hset(f"{tmp_path}:journal", "format", "2")
    with pytest.raises(ConfigError, match="format 2"):
        on(server, keyPrefix=f"{tmp_path}:").prepare(create=True)


def test_without_the_package_the_way_to_install_it_is_said() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "import potofs, potofs.errors\n"
        "try: potofs.open_journal('redis://localhost')\n"
        "except potofs.errors.ConfigError as error: print(error)"
    )
    assert "pip install 'potofs[redis]'" in subprocess.check_output([sys.executable, "-c", code], text=True)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://host:0/0", "port"),
        ("redis://host:6379/none", "database"),
        ("redis://one,two", "one host"),
        ("redis+sentinel://host:26379", "name is missing"),
        ("redis+cluster://host/1", "only the database 0"),
        ("redis+unix://run/redis.sock", "redis\\+unix:///run"),
        ("redis://host/0?db=2", "db: the database stands in the path already"),
        ("redis://host/2?db=2", "db: the database stands in the path already"),
        ("redis+sentinel://host/mymaster/0?db=2", "db: the database stands in the path already"),
        ("redis://host?prefix=a{b}", "braces"),
        ("redis://host?timeoutMs=0", "timeoutMs"),
        ("redis://host?prefix=a&keyPrefix=b", "one of them"),
    ],
)
def test_an_address_that_cannot_be_is_refused_with_the_way_to_write_it(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        RedisBackend(parse(url), reading.marks)
