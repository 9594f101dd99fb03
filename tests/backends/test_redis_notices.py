"""What a Redis server tells whoever listens: who comes, and what comes, goes and gets another name."""

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from potofs.backends.base import Backend, Notice
from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.keys import Keys
from potofs.backends.redis.notices import Watch
from potofs.config import Where
from potofs.journal import reading
from tests import redis_servers
from tests.backends.kit import open_cluster, open_filesystem, open_memory, open_redis, open_watched, record, records
from tests.redis_servers import PATIENCE, Server, Watched, replace, wait_until

#: How long nothing more may come (seconds): some times what a notice takes.
QUIET = 0.3


class Listener:
    """Who is told by a backend."""

    def __init__(self, backend: Backend) -> None:
        self._told: queue.Queue[Notice | None] = queue.Queue()
        self.stop = backend.watch(self._told.put)

    def next(self) -> Notice | None:
        return self._told.get(timeout=PATIENCE)

    def until_anything(self) -> None:
        """Takes what is told up to the word that anything may have changed."""
        while self.next() is not None:
            pass

    def hears_nothing(self) -> bool:
        with pytest.raises(queue.Empty):
            self._told.get(timeout=QUIET)
        return True


@pytest.fixture
def listen() -> Iterator[Callable[[Backend], Listener]]:
    """Has somebody told by a backend, from the first word on, until the end of the test."""
    with ExitStack() as stack:

        def listen(backend: Backend) -> Listener:
            listener = Listener(backend)
            stack.callback(listener.stop)
            assert listener.next() is None, "nobody knows what was before"
            return listener

        yield listen


@pytest.mark.parametrize("open_backend", [open_redis, open_watched, open_cluster])
def test_it_is_told_of_what_comes_goes_and_gets_another_name_by_whomever(
    open_backend: Callable[..., RedisBackend], tmp_path: Path, listen: Callable[[Backend], Listener]
) -> None:
    mine, other = open_backend(tmp_path), open_backend(tmp_path)
    listener = listen(mine)
    user = "a/b: {mia}\n"
    for backend, number in ((other, 0), (mine, 1)):
        at = f"{user}{number}"
        backend.create_user(at, b"")
        assert listener.next() == Notice(at, is_new=True)
        backend.append(at, records(0, 2))
        assert listener.next() == Notice(at), "it has begun a conversation"
        backend.archive(at, "first one")
        assert listener.next() == Notice(at)
        backend.rename_archive(at, "first one", "50%\tmore")
        assert listener.next() == Notice(at, archives_gone=("first one",))
        backend.restore(at, "50%\tmore")
        assert listener.next() == Notice(at, archives_gone=("50%\tmore",))
        name = backend.set_aside(at, b"no message")
        assert listener.next() == Notice(at)
        backend.remove_set_aside(at, name)
        assert listener.next() == Notice(at, set_asides_gone=(name,))
        backend.put_archive(at, "a copy", b"bytes", 1)
        assert listener.next() == Notice(at)
        with backend.open(at, "a copy") as reader:
            assert backend.rewrite(at, "a copy", reader.stat(), b"other bytes")
        assert listener.next() == Notice(at, archives_gone=("a copy",))
    assert listener.hears_nothing()


def test_the_first_message_of_a_new_user_is_told_as_one(tmp_path: Path, listen: Callable[[Backend], Listener]) -> None:
    backend = open_redis(tmp_path)
    listener = listen(backend)
    backend.append("mia", [record("hello")])
    assert listener.next() == Notice("mia", is_new=True)
    assert listener.hears_nothing()


def test_what_is_appended_to_a_conversation_is_not_told_until_it_is_archived(
    tmp_path: Path, listen: Callable[[Backend], Listener]
) -> None:
    backend = open_redis(tmp_path, archiveThreshold="10")
    backend.append("mia", [record("hello")])
    listener = listen(backend)
    for number in range(8):
        backend.append("mia", records(number, number + 1))
    assert listener.hears_nothing()
    backend.append("mia", [record("the tenth")])
    assert listener.next() == Notice("mia")
    assert listener.hears_nothing()


def test_a_change_that_is_refused_or_given_again_tells_nothing(
    tmp_path: Path, listen: Callable[[Backend], Listener]
) -> None:
    with redis_servers.Proxy(redis_servers.shared()) as proxy:
        backend = RedisBackend(Where("redis", proxy.place, {"keyPrefix": f"{tmp_path}:"}), reading.marks)
        backend.append("mia", [record("hello")])
        listener = listen(open_redis(tmp_path))
        proxy.lose(b"refund", times=1)
        backend.archive("mia", "refund")
        assert proxy.lost == 1
        assert listener.next() == Notice("mia")
        with pytest.raises(Exception, match="no running conversation"):
            backend.archive("mia", "another")
        assert listener.hears_nothing()
        backend.close()


def test_whoever_listened_is_told_that_anything_may_have_changed_when_the_connection_was_cut(
    tmp_path: Path, listen: Callable[[Backend], Listener]
) -> None:
    server = Server(tmp_path / "redis")
    backend = RedisBackend(Where("redis", server.place, {"timeoutMs": "2000"}), reading.marks)
    try:
        listener = listen(backend)
        with server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert listener.next() is None
        backend.create_user("mia", b"")
        assert listener.next() == Notice("mia", is_new=True)
    finally:
        backend.close()
        server.kill()


@pytest.mark.expects_warning("nothing is heard of it")
def test_a_server_that_was_restarted_or_hung_is_listened_to_again(
    tmp_path: Path, listen: Callable[[Backend], Listener]
) -> None:
    server = Server(tmp_path / "redis")
    backend = RedisBackend(Where("redis", server.place, {"timeoutMs": "300"}), reading.marks)
    try:
        listener = listen(backend)
        server.kill()
        server.start()
        listener.until_anything()
        server.signal(signal.SIGSTOP)
        try:
            # As one whose machine has gone: nothing comes, and no connection is ended.
            wait_for(lambda: watch_of(backend)._has_warned, "the silence is noticed")
        finally:
            server.signal(signal.SIGCONT)
        listener.until_anything()
        wait_until(server, lambda client: client.pubsub_numsub("poto:dialogue:changes")[0][1] == 1)
        backend.create_user("mia", b"")
        heard = listener.next()
        while heard is None:
            heard = listener.next()
        assert heard == Notice("mia", is_new=True)
    finally:
        backend.close()
        server.kill()


@pytest.mark.expects_warning("nothing is heard of it")
def test_after_a_failover_the_new_master_is_listened_to(tmp_path: Path, listen: Callable[[Backend], Listener]) -> None:
    watched = Watched(tmp_path)
    backend = RedisBackend(Where("redis+sentinel", watched.place, {"timeoutMs": "10000"}), reading.marks)
    try:
        listener = listen(backend)
        replace(*watched.servers[:2])
        listener.until_anything()
        backend.create_user("mia", b"")
        assert listener.next() == Notice("mia", is_new=True)
    finally:
        backend.close()
        watched.kill()


@pytest.mark.expects_warning("nothing is heard of it")
def test_where_it_may_not_listen_that_is_said_once_and_changes_are_made_all_the_same(tmp_path: Path) -> None:
    server = Server(tmp_path / "redis")
    try:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "+@all", "resetchannels")
        backend = RedisBackend(Where("redis", f"deaf:secret@{server.place}", {"timeoutMs": "2000"}), reading.marks)
        told: list[Notice | None] = []
        backend.watch(told.append)
        wait_for(lambda: watch_of(backend)._has_warned, "it says so")
        backend.append("mia", [record("hello")])
        backend.archive("mia", "refund")
        assert [archive.name for archive in backend.archives("mia")] == ["refund"]
        backend.close()
        assert told == []
    finally:
        server.kill()


def test_a_word_that_it_does_not_know_means_that_anything_may_have_changed(
    tmp_path: Path, listen: Callable[[Backend], Listener]
) -> None:
    listener = listen(open_redis(tmp_path))
    with redis_servers.shared().client() as client:
        for word in (b"\xff", b"", b"a/b\nnew", b"mia\n\narchive /"):
            client.publish(Keys(f"{tmp_path}:").channel, word)
            assert listener.next() is None, word


@pytest.mark.parametrize("open_backend", [open_redis, open_cluster, open_watched, open_filesystem, open_memory])
def test_no_thread_is_left_when_it_is_closed(open_backend: Callable[..., Backend], tmp_path: Path) -> None:
    before = set(threading.enumerate())
    backend = open_backend(tmp_path)
    backend.watch(lambda _: None)()
    backend.watch(lambda _: None)
    backend.close()
    assert set(threading.enumerate()) <= before


def watch_of(backend: RedisBackend) -> Watch:
    (watch,) = backend._watches
    return watch


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.01)
