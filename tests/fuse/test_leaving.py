"""What was let go: settled behind the kernel's back, tried again for as long as it takes, and bounded meanwhile."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio
import trio.testing

from potofs.errors import Unreachable
from potofs.fuse import leaving
from potofs.fuse.files import OpenFile
from potofs.fuse.leaving import Leaving, settle_at_last
from potofs.fuse.workers import Workers
from potofs.tree.nodes import Kind, Node

Nothing = cast(Any, None)

pytestmark = pytest.mark.expects_warning("what was not finished")


class Left(OpenFile):
    """A file that fails so often before it can be settled."""

    def __init__(self, user: str, done: list[str], *, failures: float = 0, error: Exception | None = None) -> None:
        super().__init__(Nothing, Nothing, Node(Kind.CURRENT, user), 1)
        self._done, self._failures = done, failures
        self._error = error or Unreachable("it is down")

    @property
    def held(self) -> int:
        return 100

    def settle(self, *, is_last: bool = False) -> None:
        if self._failures > 0:
            self._failures -= 1
            raise self._error
        self._done.append(f"{self.node.user}{' at last' if is_last else ''}")

    async def read(self, offset: int, size: int) -> bytes: ...  # type: ignore[empty-body]
    async def write(self, offset: int, data: bytes) -> None: ...
    async def flush(self) -> None: ...
    async def fsync(self) -> None: ...
    async def release(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_PAUSE", 0.001)
    monkeypatch.setattr(leaving, "_LONGEST_PAUSE", 0.004)


def while_it_runs(main: Callable[[Leaving], Awaitable[None]]) -> Leaving:
    left = Leaving(Workers(1.0))

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.run)
            with trio.fail_after(30):
                await main(left)
            nursery.cancel_scope.cancel()

    trio.run(run)
    return left


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await trio.sleep(0.001)


def test_it_is_tried_until_it_is_done_and_no_user_waits_for_another() -> None:
    done: list[str] = []

    async def main(left: Leaving) -> None:
        left.add(Left("mia", done, failures=float("inf")))
        left.add(Left("noah", done))
        await until(lambda: done == ["noah"])
        left.add(Left("zoe", done, failures=3))
        await until(lambda: done == ["noah", "zoe"])

    left = while_it_runs(main)
    assert [file.node.user for file in left.files()] == ["mia"]


def test_what_came_before_it_ran_is_settled_too() -> None:
    done: list[str] = []
    left = Leaving(Workers(1.0))
    left.add(Left("mia", done))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.run)
            await until(lambda: done == ["mia"])
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert list(left.files()) == []


def test_an_error_that_nobody_expected_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    async def main(left: Leaving) -> None:
        left.add(Left("mia", done, failures=2, error=ValueError("a bug")))
        left.add(Left("noah", done))
        await until(lambda: set(done) == {"mia", "noah"})

    while_it_runs(main)
    assert "ValueError: a bug" in caplog.text
    settle_at_last([Left("mia", done, failures=1, error=ValueError("another bug"))], 1.0)
    assert "could not be kept in rejected/: another bug" in caplog.text


def test_at_last_it_is_tried_for_two_deadlines_and_each_users_in_turn() -> None:
    done: list[str] = []
    files = [Left("mia", done, failures=2), Left("mia", done), Left("noah", done, failures=float("inf"))]
    begun = time.monotonic()
    settle_at_last(files, 0.2)
    assert time.monotonic() - begun >= 0.4
    assert done == ["mia", "mia"]


def test_of_what_takes_too_much_memory_no_more_is_given_up_than_has_to_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leaving, "_FILE", 0)
    monkeypatch.setattr(leaving, "_MOST", 1000)

    async def main(left: Leaving) -> None:
        for _ in range(30):
            left.add(Left("mia", [], failures=float("inf")))
        assert len(left.files()) == 30, "what was not tried is kept"
        await until(lambda: len(left.files()) <= 10)
        await trio.sleep(0.05)

    left = while_it_runs(main)
    assert len(left.files()) == 10
    assert caplog.text.count("could not be kept in rejected/: it is down") == 20


def test_what_would_be_given_up_is_set_aside_if_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_MOST", 10)
    done: list[str] = []

    async def main(left: Leaving) -> None:
        left.add(Left("mia", done, failures=1))
        await until(lambda: bool(done))

    left = while_it_runs(main)
    assert (done, list(left.files())) == (["mia at last"], [])


def test_a_small_share_is_not_given_up_for_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_FILE", 0)
    monkeypatch.setattr(leaving, "_MOST", 1000)
    done: list[str] = []

    async def main(left: Leaving) -> None:
        for _ in range(50):
            left.add(Left("noah", [], failures=float("inf")))
        left.add(Left("mia", done, failures=3))
        await until(lambda: bool(done))

    while_it_runs(main)
    assert done == ["mia"]
