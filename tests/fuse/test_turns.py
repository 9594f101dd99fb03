"""A request has one deadline, whatever it waits for: a thread, those that came before, a lock."""

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from potofs import open_journal
from potofs.backends.waiting import left_of
from potofs.errors import InvalidMessage
from potofs.fuse import turns, workers
from potofs.fuse.files import ConversationFile
from potofs.fuse.turns import InTime, NotBegun
from potofs.fuse.workers import Workers
from potofs.tree.nodes import Kind, Node
from potofs.tree.tree import Tree

# What is as good as for ever here (seconds).
LONG = 30.0
MIAS = Node(Kind.CURRENT, "mia")


async def begun(request: Callable[[], Awaitable[object]]) -> object:
    """What comes of something that the kernel asks for now."""
    turns.begin(time.perf_counter())
    try:
        return await request()
    except NotBegun:
        return "not begun"


@asynccontextmanager
async def busy(of: Workers, user: str) -> AsyncIterator[tuple[trio.Nursery, Callable[[], None]]]:
    """All threads of a user are at work, until a function is called that is given, or it is over."""
    over = threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(workers._THREADS_OF_USER):
            nursery.start_soon(of.run, user, lambda: over.wait(LONG))
        await trio.testing.wait_all_tasks_blocked()
        try:
            yield nursery, over.set
        finally:
            over.set()


def test_what_a_request_has_waited_for_a_thread_it_does_not_wait_for_a_lock_as_well() -> None:
    async def main() -> None:
        of = Workers(LONG)
        async with busy(of, "mia") as (nursery, end):
            nursery.start_soon(_after, 0.3, end)
            left = await begun(lambda: of.run("mia", lambda: left_of(LONG)))
        assert isinstance(left, float)
        assert left <= LONG - 0.3

    trio.run(main)


def test_a_lock_that_is_free_is_taken_however_long_a_request_has_waited() -> None:
    async def main() -> None:
        of = Workers(LONG)
        turns.begin(time.perf_counter() - 100)
        assert await of.run("mia", lambda: left_of(1.0)) == 0.2

    trio.run(main)


def test_whoever_waits_for_a_thread_until_the_deadline_is_told_so_and_other_users_wait_for_nobody() -> None:
    async def main() -> None:
        of = Workers(0.1)
        async with busy(of, "mia"):
            assert await begun(lambda: of.run("mia", lambda: "done")) == "not begun"
            assert await begun(lambda: of.run("noah", lambda: "done")) == "done"

    trio.run(main)


def test_of_more_requests_of_a_user_than_may_wait_the_last_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_REQUESTS_OF_USER", workers._THREADS_OF_USER + 1)

    async def main() -> None:
        of = Workers(LONG)
        async with busy(of, "mia") as (nursery, _):
            nursery.start_soon(of.run, "mia", lambda: None)
            await trio.testing.wait_all_tasks_blocked()
            assert await begun(lambda: of.run("mia", lambda: "done")) == "not begun"
        assert await begun(lambda: of.run("mia", lambda: "done")) == "done"

    trio.run(main)


def test_whoever_waits_for_those_at_work_on_the_same_file_is_told_at_the_deadline() -> None:
    async def main() -> None:
        turn = InTime(trio.Lock(), 0.1)

        async def take() -> str:
            async with turn:
                return "done"

        answers: list[object] = []

        async def ask() -> None:
            answers.append(await begun(take))

        async with trio.open_nursery() as nursery, turn:
            nursery.start_soon(ask)
            await trio.sleep(0.2)
        assert answers == ["not begun"]
        assert await begun(take) == "done"

    trio.run(main)


def test_whoever_comes_to_wait_after_the_deadline_is_told_so_too() -> None:
    async def main() -> None:
        turn = InTime(trio.Lock(), 0.1)

        async def take_late() -> None:
            turns.begin(time.perf_counter() - 1)
            with pytest.raises(NotBegun):
                async with turn:
                    pass

        async with turn, trio.open_nursery() as nursery:
            nursery.start_soon(take_late)

    trio.run(main)


@pytest.mark.expects_warning("user .mia.")
def test_no_record_is_put_together_around_a_write_that_waited_in_vain(root: Path) -> None:
    first, missed, rest = b"role: user\ncontent: |\n  first\n", b"  missed\n", b"  last\n---\n"
    with open_journal(f"file://{root}") as journal:
        journal.create_user("mia")
        tree = Tree(journal)

        async def main() -> None:
            file = ConversationFile(tree, Workers(0.1), MIAS, 1, None, tree.appender(MIAS), None)
            await file.write(0, first)
            answers: list[object] = []

            async def write() -> None:
                answers.append(await begun(lambda: file.write(0, missed)))

            async with trio.open_nursery() as nursery, file._turn:
                nursery.start_soon(write)
                await trio.sleep(0.2)
            assert answers == ["not begun"]
            with pytest.raises(InvalidMessage):
                await file.write(0, rest)
            await file.write(0, b"role: user\ncontent: whole\n---\n")
            assert await file.release(), "what was written before it is set aside"

        trio.run(main)
        assert [message.content for message in journal.get_conversation("mia")] == ["whole"]
        assert [
            journal.backend.open_set_aside("mia", one.name).read_all() for one in journal.backend.set_asides("mia")
        ] == [first]


async def _after(seconds: float, what: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    what()
