"""Several processes on one Redis: nothing lost, doubled, torn or out of its writer's order."""

import multiprocessing
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

from potofs.backends.redis.backend import RedisBackend
from potofs.config import Where
from potofs.errors import AlreadyExists, NotFound
from potofs.journal import reading
from tests import redis_servers
from tests.backends.kit import open_redis, record, said, stored

WRITERS = 4
EACH = 100
THRESHOLD = 30

_context = multiprocessing.get_context("spawn")


def write(place: str, prefix: str, writer: int, ready: "multiprocessing.synchronize.Barrier") -> None:
    """Appends in a process of its own; no message can be told from a first try by its time."""
    options = {"keyPrefix": prefix, "archiveThreshold": str(THRESHOLD)}
    backend = RedisBackend(Where("redis", place, options), reading.marks)
    backend.prepare(create=False)
    ready.wait(60)
    for number in range(EACH):
        backend.append("mia", [record(f"{writer} {number}", retry=False)])


def test_processes_append_everything_once_in_order_and_archive_as_often_as_they_should(tmp_path: Path) -> None:
    backend = open_redis(tmp_path)
    ready = _context.Barrier(WRITERS)
    arguments = (redis_servers.shared().place, f"{tmp_path}:")
    writers = [_context.Process(target=write, args=(*arguments, writer, ready)) for writer in range(WRITERS)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    archives = sorted(backend.archives("mia"), key=lambda archive: archive.stat.id)
    conversations = [said(stored(backend, "mia", archive.name)) for archive in archives]
    assert [len(conversation) for conversation in conversations] == [THRESHOLD] * (WRITERS * EACH // THRESHOLD)
    conversations.append(said(stored(backend, "mia")))
    everything = [content for conversation in conversations for content in conversation]
    for writer in range(WRITERS):
        own = [content for content in everything if content.startswith(f"{writer} ")]
        assert own == [f"{writer} {number}" for number in range(EACH)]
    totals = backend.totals()
    assert (totals.users, totals.conversations, totals.archives) == (1, 1, len(archives))
    assert totals.messages == len(everything) == WRITERS * EACH
    assert totals.bytes == sum(archive.stat.size for archive in archives) + backend.stat("mia").size
    backend.close()


def test_appends_archives_restores_and_renames_at_once_lose_nothing(tmp_path: Path) -> None:
    servers = [open_redis(tmp_path, archiveThreshold="10") for _ in range(3)]
    failed: list[BaseException] = []
    writing = [threading.Event() for _ in servers]

    def append(writer: int) -> None:
        try:
            for number in range(80):
                servers[writer].append("mia", [record(f"{writer} {number}", retry=number % 2 == 0)])
        except BaseException as error:
            failed.append(error)
        finally:
            writing[writer].set()

    threads = [threading.Thread(target=append, args=(writer,)) for writer in range(len(servers))]
    for thread in threads:
        thread.start()
    other = open_redis(tmp_path)
    turn = 0
    while not all(event.is_set() for event in writing):
        turn += 1
        archives = other.archives("mia")
        with suppress(NotFound, AlreadyExists):
            if turn % 3 == 0:
                other.archive("mia", f"by hand {turn}")
            elif turn % 3 == 1 and archives:
                other.restore("mia", archives[turn % len(archives)].name)
            elif archives:
                other.rename_archive("mia", archives[turn % len(archives)].name, f"renamed {turn}")
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert turn > 10
    everything = Counter[str]()
    for archive in other.archives("mia"):
        everything.update(said(stored(other, "mia", archive.name)))
    with suppress(NotFound):
        everything.update(said(stored(other, "mia")))
    assert everything == Counter(f"{writer} {number}" for writer in range(3) for number in range(80))
    assert other.totals().messages == 240
    for server in (*servers, other):
        server.close()
