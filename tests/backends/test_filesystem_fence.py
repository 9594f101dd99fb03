"""The fence on files: every change looks at it, and setting it waits for those that saw the old one."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.backends.base import Backend, Fence
from potofs.errors import DeadlineExceeded, Fenced, WouldBlock
from tests.backends.kit import joined, records, stored
from tests.backends.test_filesystem_lock import held_by_a_process
from tests.mounts import wait_until

FROZEN = Fence("frozen", 1)


def tree(users: Path) -> dict[str, bytes]:
    """All that is visible of the users."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in users.rglob("*")}


def test_nothing_is_changed_behind_a_closed_fence(on_files: Callable[..., Backend], users: Path) -> None:
    backend, other = on_files(), on_files()
    backend.append("mia", records(0, 50))
    backend.archive("mia", "refund")
    backend.append("mia", records(50, 51))
    aside = backend.set_aside("mia", b"refused")
    assert other.fence() == Fence()
    backend.set_fence(FROZEN)
    assert other.fence() == FROZEN
    before = tree(users)
    for attempt in (
        lambda: other.append("mia", records(51, 52)),
        lambda: other.append("noah", records(51, 52)),
        lambda: other.create_user("noah", b""),
        lambda: other.archive("mia"),
        lambda: other.restore("mia", "refund"),
        lambda: other.rename_archive("mia", "refund", "other"),
        lambda: other.compress("mia", "refund"),
        lambda: other.put_current("noah", b"x", 1),
        lambda: other.put_archive("mia", "other", b"x", 1),
        lambda: other.set_times("mia", None, 1),
        lambda: other.set_times("mia", "refund", 1),
        lambda: other.remove_set_aside("mia", aside),
    ):
        with pytest.raises(Fenced):
            attempt()
    assert tree(users) == before
    assert stored(other, "mia", "refund") == joined(records(0, 50))
    other.set_fence(Fence("open", 2))
    assert backend.append("mia", records(51, 52)).stored == 1


def test_bytes_that_were_refused_are_kept_whatever_the_fence_is(on_files: Callable[..., Backend]) -> None:
    backend = on_files()
    backend.set_fence(FROZEN)
    name = backend.set_aside("mia", b"refused")
    with backend.open_set_aside("mia", name) as reader:
        assert reader.read_all() == b"refused"


def test_setting_it_waits_for_changes_that_are_under_way(on_files: Callable[..., Backend], users: Path) -> None:
    backend = on_files(lockTimeoutMs="60000")
    backend.append("mia", records(0, 1))
    setting = threading.Thread(target=backend.set_fence, args=(FROZEN,))
    with held_by_a_process(users / "mia/.lock"):
        setting.start()
        wait_until(lambda: backend.fence() == FROZEN, "it is set at once")
        assert setting.is_alive()
    setting.join(30)
    assert not setting.is_alive()


def test_a_change_that_goes_on_for_too_long_is_reported_with_the_fence_set(
    on_files: Callable[..., Backend], users: Path
) -> None:
    backend = on_files(lockTimeoutMs="50")
    backend.append("mia", records(0, 1))
    with held_by_a_process(users / "mia/.lock"), pytest.raises(DeadlineExceeded, match="mia"):
        backend.set_fence(FROZEN)
    assert backend.fence() == FROZEN


def test_whoever_makes_a_user_waits_for_the_fence_no_longer_than_for_a_lock(
    on_files: Callable[..., Backend], users: Path
) -> None:
    backend = on_files(lockTimeoutMs="120")
    with held_by_a_process(users.parent / "system/.lock"):
        for attempt in (
            lambda: backend.create_user("mia", b""),
            lambda: backend.append("noah", records(0, 1)),
            lambda: backend.set_changed(None, 1),
            lambda: backend.set_fence(FROZEN),
        ):
            begun = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"system/\.lock.*lockTimeoutMs.*try again"):
                attempt()
            assert 0.1 < time.monotonic() - begun < 5
        with pytest.raises(WouldBlock):
            backend.append("noah", records(0, 1), wait=False)
    assert list(users.iterdir()) == []
    assert backend.fence() == Fence()
    backend.create_user("mia", b"")


def test_there_is_no_moment_without_a_fence(on_files: Callable[..., Backend]) -> None:
    backend, other = on_files(), on_files()
    backend.set_fence(FROZEN)
    seen: list[Fence] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(other.fence())

    looking = threading.Thread(target=look)
    looking.start()
    for epoch in range(2, 100):
        backend.set_fence(Fence("moved", epoch, "redis://elsewhere"))
    done.set()
    looking.join()
    assert {fence.state for fence in seen} <= {"frozen", "moved"}
    epochs = [fence.epoch for fence in seen]
    assert epochs == sorted(epochs), "and no old one comes back, though file numbers do"
    assert other.fence().epoch == 99


def test_looking_at_it_reads_nothing_until_it_is_set_again(
    on_files: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files()
    backend.set_fence(Fence("open", 1))
    backend.fence()
    monkeypatch.setattr(os, "open", None)
    assert backend.fence() == Fence("open", 1)


def test_a_fence_that_cannot_be_read_is_closed(on_files: Callable[..., Backend], users: Path) -> None:
    backend = on_files()
    backend.append("mia", records(0, 1))
    backend.set_fence(Fence("open", 1))
    (users.parent / "system/fence.json").write_bytes(b"{")
    with pytest.raises(Fenced, match=r"fence\.json"):
        backend.append("mia", records(1, 2))
    assert stored(backend, "mia") == joined(records(0, 1))
