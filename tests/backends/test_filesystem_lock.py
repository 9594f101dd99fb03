"""The lock of a user: who waits for whom, and for how long."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from potofs.backends.base import Backend
from potofs.backends.filesystem.lock import UserLocks
from potofs.backends.filesystem.patience import Patience
from potofs.errors import DeadlineExceeded, NotFound, WouldBlock
from tests.backends.kit import joined, records, stored
from tests.mounts import wait_until

_HOLDER = (
    "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
)


@contextmanager
def held_by_a_process(path: Path) -> Iterator[None]:
    """Another process holds the lock of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        try:
            yield
        finally:
            holder.communicate(b"\n")


@pytest.fixture
def locks(tmp_path: Path) -> UserLocks:
    return UserLocks(lambda user: f"{tmp_path}/{user}", Patience(60_000))


def test_whoever_may_not_wait_is_told_of_another_writer(on_files: Callable[..., Backend], users: Path) -> None:
    backend = on_files()
    backend.append("mia", records(0, 1))
    with held_by_a_process(users / "mia/.lock"):
        with pytest.raises(WouldBlock):
            backend.append("mia", records(1, 2), wait=False)
        with pytest.raises(WouldBlock):
            backend.archive("mia", wait=False)
    assert backend.append("mia", records(1, 2), wait=False).stored == 1
    assert stored(backend, "mia") == joined(records(0, 2))


def test_whoever_waits_is_told_when_it_took_too_long_and_nothing_is_changed(
    on_files: Callable[..., Backend], users: Path
) -> None:
    backend = on_files(lockTimeoutMs="120")
    backend.append("mia", records(0, 1))
    with held_by_a_process(users / "mia/.lock"):
        for attempt in (
            lambda: backend.append("mia", records(1, 2)),
            lambda: backend.archive("mia"),
            lambda: backend.put_archive("mia", "refund", b"x", 1),
        ):
            begun = time.monotonic()
            with pytest.raises(DeadlineExceeded, match="lockTimeoutMs"):
                attempt()
            assert 0.1 < time.monotonic() - begun < 5
    assert stored(backend, "mia") == joined(records(0, 1))
    assert backend.archives("mia") == []
    assert backend.append("mia", records(1, 2)).stored == 1


def test_a_first_append_that_came_too_late_leaves_no_conversation(
    on_files: Callable[..., Backend], users: Path
) -> None:
    backend = on_files(lockTimeoutMs="0")
    with held_by_a_process(users / "mia/.lock"), pytest.raises(DeadlineExceeded):
        backend.append("mia", records(0, 1))
    with pytest.raises(NotFound):
        backend.stat("mia")


def test_whoever_waits_goes_on_once_the_other_is_done(on_files: Callable[..., Backend], users: Path) -> None:
    backend = on_files()
    stored_then: list[int] = []
    with held_by_a_process(users / "mia/.lock"):
        waiting = threading.Thread(target=lambda: stored_then.append(backend.append("mia", records(0, 1)).stored))
        waiting.start()
        wait_until(lambda: (users / "mia/dialogs/archived").exists(), "the append has begun")
        assert waiting.is_alive()
        assert stored_then == []
    waiting.join()
    assert stored_then == [1]


def test_the_lock_of_one_user_delays_no_other_and_no_reader(on_files: Callable[..., Backend], users: Path) -> None:
    backend = on_files()
    backend.append("mia", records(0, 1))
    with held_by_a_process(users / "mia/.lock"):
        for number in range(20):
            backend.append("noah", records(number, number + 1), wait=False)
        assert stored(backend, "mia") == joined(records(0, 1))
        assert backend.archives("mia") == []
        backend.set_aside("mia", b"x")
    assert stored(backend, "noah") == joined(records(0, 20))


def test_one_thread_holds_it_at_a_time_and_others_are_told_or_wait(locks: UserLocks) -> None:
    entered: list[str] = []

    def enter() -> None:
        with locks.held("mia", wait=True):
            entered.append("other")

    with locks.held("mia", wait=True):
        with pytest.raises(WouldBlock), locks.held("mia", wait=False):
            entered.append("never")
        with locks.held("noah", wait=False):
            other = threading.Thread(target=enter)
            other.start()
        wait_until(lambda: locks._queues["mia"].wanted_by == 2, "the other thread waits")
        assert entered == []
    other.join()
    assert entered == ["other"]
    assert locks._queues == {}


def test_a_thread_that_waits_too_long_is_told(tmp_path: Path) -> None:
    locks = UserLocks(lambda user: f"{tmp_path}/{user}", Patience(50))
    with locks.held("mia", wait=True), pytest.raises(DeadlineExceeded), locks.held("mia", wait=True):
        pass
    with locks.held("mia", wait=False):
        assert list(locks._queues) == ["mia"]


def test_the_lock_is_free_again_after_an_error(locks: UserLocks) -> None:
    with pytest.raises(ZeroDivisionError), locks.held("mia", wait=True):
        raise ZeroDivisionError
    with locks.held("mia", wait=False):
        assert list(locks._queues) == ["mia"]
    assert locks._queues == {}


def test_any_time_to_wait_will_do(tmp_path: Path) -> None:
    locks = UserLocks(lambda user: f"{tmp_path}/{user}", Patience(10**18))
    with locks.held("mia", wait=True):
        assert list(locks._queues) == ["mia"]


def test_a_child_that_was_forked_meanwhile_does_not_go_on_holding_it(tmp_path: Path) -> None:
    code = f"""
import os
from potofs.backends.filesystem.lock import UserLocks
from potofs.backends.filesystem.patience import Patience
locks = UserLocks(lambda user: "{tmp_path}/" + user, Patience(100))
ours, theirs = os.pipe()
with locks.held("mia", wait=True):
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0)
os.close(ours)
with locks.held("mia", wait=False):
    print("free")
os.close(theirs)
os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("free\n", "")


def test_a_long_read_is_not_done_for_who_may_not_wait(on_files: Callable[..., Backend]) -> None:
    on_files(archiveThreshold="0").append("mia", records(0, 400))
    fresh = on_files(archiveThreshold="0", fsync="never")
    with pytest.raises(WouldBlock, match="a long conversation has to be read first"):
        fresh.append("mia", records(399, 401), wait=False)
    assert fresh.append("mia", records(399, 401)).stored == 1
    # Known by now.
    assert fresh.append("mia", records(401, 402), wait=False).stored == 1


def test_for_a_mount_one_of_those_who_come_waits_and_the_others_are_told_soon(tmp_path: Path) -> None:
    patience = Patience(200)
    patience.hurries = True
    locks = UserLocks(lambda user: f"{tmp_path}/{user}", patience)

    def waited() -> float:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded), locks.held("mia", wait=True):
            pass
        return time.monotonic() - begun

    with held_by_a_process(tmp_path / "mia"):
        assert waited() > 0.19
        shorter = [waited() for _ in range(8)]
        assert sum(shorter) < 0.19
        with pytest.raises(DeadlineExceeded), locks.held("mia", wait=False):
            pass
        time.sleep(0.2)
        with pytest.raises(WouldBlock), locks.held("mia", wait=False):
            pass
        assert waited() > 0.19, "it may be let go now and then"
    with locks.held("mia", wait=True):
        pass
    with held_by_a_process(tmp_path / "mia"):
        assert waited() > 0.19, "somebody had it"
