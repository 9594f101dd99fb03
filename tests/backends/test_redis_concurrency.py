"""Several processes on one Redis: nothing lost, doubled, torn or out of its writer's order."""

import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from potofs.backends.redis import scripts
from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.connection import Argument, Link
from potofs.backends.redis.keys import Keys, shard_of_user
from potofs.backends.redis.scripts import Script
from potofs.config import Where
from potofs.errors import AlreadyExists, DeadlineExceeded, NotFound, Unreachable
from potofs.journal import fsck, reading
from tests import redis_servers
from tests.backends.kit import joined, open_redis, record, records, said, stored

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


@pytest.mark.parametrize("answer", ["keys", "number", "scan", "seal", "late"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_change_that_others_are_always_ahead_of_ends_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, cut: bool
) -> None:
    backend = open_redis(tmp_path, timeoutMs="300")
    backend.append("mia", records(0, 1))
    conversation = b"%d" % backend.stat("mia").id
    answers = {
        "keys": [b"keys", conversation, b"", b"7"],
        "number": [b"number", b"7"],
        "scan": [b"scan", conversation],
        "seal": [b"seal", conversation, b"1"],
        "late": [b"late", b"7"],
    }
    real, turns = Link.script, []

    def script(
        self: Link, script: Script, keys: Sequence[Argument], arguments: Sequence[Argument]
    ) -> tuple[list[bytes], bool]:
        if script != scripts.change("append"):
            return real(self, script, keys, arguments)
        turns.append(time.monotonic())
        assert turns[-1] - turns[0] < 5
        return answers[answer], cut and len(turns) == 1

    monkeypatch.setattr(Link, "script", script)
    with pytest.raises(DeadlineExceeded, match="cannot be told" if cut else "nothing was changed"):
        backend.append("mia", records(1, 2))
    assert cut or turns[-1] - turns[0] > 0.2
    assert stored(backend, "mia") == joined(records(0, 1))


def test_of_many_who_replace_what_they_saw_of_a_user_one_does(tmp_path: Path) -> None:
    backends = [open_redis(tmp_path) for _ in range(WRITERS)]
    backends[0].create_user("mia", b"")
    was = b""
    for turn in range(50):
        ready = threading.Barrier(WRITERS)

        def replace(mine: bytes, backend: RedisBackend, was: bytes = was, ready: threading.Barrier = ready) -> bool:
            ready.wait(60)
            return backend.rewrite_profile("mia", mine, was=was)

        offers = [b"%d of %d" % (turn, writer) for writer in range(WRITERS)]
        with ThreadPoolExecutor(WRITERS) as pool:
            done = list(pool.map(replace, offers, backends))
        assert done.count(True) == 1
        was = offers[done.index(True)]
        assert backends[0].read_profile("mia") == was
    assert backends[0].rewrite_profile("noah", b"profile", was=b"") is False
    assert list(backends[0].users()) == ["mia"]


# Numbers that a master gave away and its successor does not know of


def neighbour(user: str) -> str:
    """Another user of the same shard."""
    return next(name for name in map(str, range(100_000)) if shard_of_user(name) == shard_of_user(user))


@pytest.mark.parametrize("data", [joined(records(10, 30)), b""])
@pytest.mark.parametrize("change", ["put_current", "put_archive", "set_aside", "rewrite", "refused"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_number_that_was_lost_with_its_master_never_comes_to_two_conversations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, data: bytes, empty: bool
) -> None:
    """While the bytes are brought, the counter falls back and another user gets the number."""
    backend, other = open_redis(tmp_path), open_redis(tmp_path)
    noah = neighbour("mia")
    for number in range(3):
        backend.put_archive("mia", str(number), joined(records(0, 2)), number)
    seen = backend.stat("mia", "2")
    shard = Keys(f"{tmp_path}:").shard(shard_of_user("mia"))
    real = Link.command
    kept = b"" if empty else joined(records(0, 1))

    def command(self: Link, *arguments: str | bytes | int) -> object:
        if self is backend._link and arguments[0] in ("SET", "SETRANGE") and not other.has_user(noah):
            with redis_servers.shared().client() as client:
                client.hincrby(shard, "last_number", -1)
            if empty:
                other.put_archive(noah, "kept", b"", 5)
            else:
                other.append(noah, records(0, 1))
                other.archive(noah, "kept")
        return real(self, *arguments)

    monkeypatch.setattr(Link, "command", command)
    with suppress(AlreadyExists):
        match change:
            case "put_current":
                backend.put_current("mia", data, 5)
            case "put_archive":
                backend.put_archive("mia", "more", data, 5)
            case "set_aside":
                backend.set_aside("mia", data)
            case "rewrite":
                assert backend.rewrite("mia", "2", seen, data)
            case _:
                backend.put_archive("mia", "1", data, 5)
    monkeypatch.undo()
    if not other.has_user(noah):
        assert (change, data) == ("put_current", b"")
        return
    assert stored(other, noah, "kept") == kept
    assert stored(other, "mia", "0") == stored(other, "mia", "1") == joined(records(0, 2))
    entries = [*other.archives("mia"), *other.archives(noah), *other.set_asides("mia")]
    found = [entry.stat.id for entry in entries] + ([other.stat("mia").id] if change == "put_current" else [])
    assert len(set(found)) == len(found)
    assert {"put_archive": "more", "rewrite": "2"}.get(change, "0") in {one.name for one in other.archives("mia")}
    list(fsck.check(other, repair=True))
    assert list(fsck.check(other)) == []


@pytest.mark.parametrize("error", [OSError(5, "refused"), Unreachable("gone"), DeadlineExceeded("late")])
@pytest.mark.parametrize("pieces", [0, 1])
def test_what_was_brought_when_it_failed_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, pieces: int
) -> None:
    backend = open_redis(tmp_path)
    backend.put_archive("mia", "0", b"bytes", 1)
    with redis_servers.shared().client() as client:
        before = sorted(client.scan_iter(f"{tmp_path}:*"))
        real, done = Link.command, []

        def command(self: Link, *arguments: str | bytes | int) -> object:
            if arguments[0] == "SETRANGE":
                real(self, *arguments)
                done.append(arguments)
                if len(done) > pieces:
                    raise error
                return None
            return real(self, *arguments)

        monkeypatch.setattr(Link, "command", command)
        with pytest.raises(type(error)):
            backend.put_archive("mia", "1", b"bytes" * 1_000_000, 1)
        assert sorted(client.scan_iter(f"{tmp_path}:*")) == before
