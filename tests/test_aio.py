"""The journal of async programs, on asyncio and on trio: the same operations, none of them half done."""

import asyncio
import errno
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, get_type_hints

import anyio
import anyio.lowlevel
import pytest

from potofs import ChatMessage, DialogueJournal, aio
from potofs import open_journal as open_synchronously
from potofs.errors import InvalidMessage, NotFound, PotofsError
from potofs.journal.appending import Appender

HELLO = ChatMessage("user", "hello", "2024-01-15T10:30:00.000Z")

OPERATIONS = sorted(
    name for name, member in inspect.getmembers(DialogueJournal, inspect.isfunction) if not name.startswith("_")
)

both = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The event loop of a test."""
    loop: str = request.param
    return loop


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/journal"


class Gate:
    """An operation of a journal that begins and then waits to be let through."""

    def __init__(self, journal: aio.AsyncDialogueJournal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.under_way = self.most = 0
        self._lock = threading.Lock()
        self._append = journal._journal.backend.append
        monkeypatch.setattr(journal._journal.backend, "append", self.append)

    def append(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.begun.release()
        assert self.open.wait(30)
        try:
            return self._append(*args, **kwargs)
        finally:
            with self._lock:
                self.under_way -= 1

    async def has_begun(self) -> None:
        """Waits until one more is under way."""
        assert await anyio.to_thread.run_sync(self.begun.acquire, True, 30)


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[aio.AsyncDialogueJournal], Gate]]:
    gates: list[Gate] = []

    def gated(journal: aio.AsyncDialogueJournal) -> Gate:
        gates.append(Gate(journal, monkeypatch))
        return gates[-1]

    yield gated
    for gate in gates:
        gate.open.set()


# The same operations


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_of_the_journal_is_there_with_its_parameters(name: str) -> None:
    operation, counterpart = getattr(DialogueJournal, name), getattr(aio.AsyncDialogueJournal, name, None)
    assert counterpart is not None, f"aio.AsyncDialogueJournal lacks a line: {name} = _awaited(DialogueJournal.{name})"
    # Not by its signature alone, which two operations may share.
    assert inspect.unwrap(counterpart) is operation
    assert inspect.signature(counterpart) == inspect.signature(operation)
    assert inspect.getdoc(counterpart) == inspect.getdoc(operation)
    is_iterator = getattr(get_type_hints(operation)["return"], "__origin__", None) is Iterator
    assert inspect.isasyncgenfunction(counterpart) == is_iterator
    assert inspect.iscoroutinefunction(counterpart) != is_iterator


def test_it_has_no_operation_of_its_own() -> None:
    public = {name for name in vars(aio.AsyncDialogueJournal) if not name.startswith("_")}
    assert public == {*OPERATIONS, "capabilities"}


def test_an_appender_has_the_same_operations() -> None:
    public = {name for name in vars(Appender) if not name.startswith("_")}
    assert {name for name in vars(aio.AsyncAppender) if not name.startswith("_")} == public
    for name in ("write", "flush", "close"):
        counterpart, operation = getattr(aio.AsyncAppender, name), getattr(Appender, name)
        assert inspect.unwrap(counterpart) is operation
        assert inspect.iscoroutinefunction(counterpart)


@both
async def test_what_one_journal_stores_the_other_reads(url: str) -> None:
    async with await aio.open_journal(url) as journal:
        await journal.create_user("mia")
        await journal.add_message("mia", HELLO)
        await journal.add_messages("mia", [ChatMessage("assistant", "good day", HELLO.timestamp), HELLO])
        assert [message.content for message in await journal.get_conversation("mia")] == ["hello", "good day"]
        assert [user async for user in journal.users()] == ["mia"]
        name = await journal.archive_conversation("mia", "refund")
        assert name == "refund"
        assert [entry async for entry in journal.read_conversation("mia", archive=name)] == [
            HELLO,
            ChatMessage("assistant", "good day", HELLO.timestamp),
        ]
    with open_synchronously(url) as same:
        assert next(same.read_conversation("mia", "refund")) == HELLO


@both
async def test_what_an_operation_raises_its_caller_gets(url: str) -> None:
    with pytest.raises(NotFound):
        await aio.open_journal(url, create=False)
    async with await aio.open_journal(url) as journal:
        with pytest.raises(NotFound, match="nobody"):
            await journal.must_have_user("nobody")
        with pytest.raises(InvalidMessage):
            await journal.append_pieces("mia", iter([b"role: king\n---\n"]))
        with pytest.raises(NotFound):
            [entry async for entry in journal.read_conversation("mia", "nothing")]
        with pytest.raises(TypeError, match="unexpected keyword"):
            await journal.must_have_user(name="mia")  # type: ignore[call-arg]


@both
async def test_a_long_conversation_is_iterated_whole_and_can_be_left(url: str) -> None:
    messages = [ChatMessage("user", f"message {number}") for number in range(700)]
    async with await aio.open_journal(f"{url}?archiveThreshold=0") as journal:
        await journal.add_messages("mia", messages)
        found = [entry async for entry in journal.read_conversation("mia")]
        assert [entry.content for entry in found if isinstance(entry, ChatMessage)] == [
            message.content for message in messages
        ]
        async with aclosing(journal.read_conversation("mia")) as entries:
            async for entry in entries:
                assert entry == found[0]
                break


# Pieces


RECORD = b'role: user\ncontent: n%d\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'


async def coming(*pieces: Any) -> AsyncIterator[Any]:
    """The body of a request: each piece comes when it comes."""
    for piece in pieces:
        await anyio.lowlevel.checkpoint()
        yield piece


@both
async def test_records_are_appended_as_the_pieces_of_a_request_come(url: str) -> None:
    text = b"".join(RECORD % number for number in range(5))
    async with await aio.open_journal(url) as journal:
        stored = []

        async def body() -> AsyncIterator[bytes]:
            for at in range(0, len(text) - 4, 50):
                yield text[: len(text) - 4][at : at + 50]
                stored.append(len(await journal.read_bytes("mia")))

        # The last lacks its terminator.
        await journal.append_pieces("mia", body())
        assert await journal.read_bytes("mia") == text
        assert len(RECORD % 0) in stored
        with pytest.raises(InvalidMessage, match=r"^line 6, column 3: .*stored, nothing from there on"):
            await journal.append_pieces("mia", coming(RECORD % 6, b"- a\n", b"- \x01b\n---\n", RECORD % 7))
        assert await journal.read_bytes("mia") == text + RECORD % 6
        with pytest.raises(TypeError, match="a piece has to be bytes, not str"):
            await journal.append_pieces("mia", coming("role"))


@both
async def test_the_pieces_of_a_request_are_imported_whole_or_not_at_all(url: str) -> None:
    messages = [ChatMessage("user", f"n{number} ä" + "x" * 900, HELLO.timestamp) for number in range(2000)]
    async with await aio.open_journal(url) as journal:
        await journal.add_messages("mia", messages)
        (name,) = [archive.id for archive in await journal.get_archived_conversations("mia")]
        for number, form in enumerate(("json", "csv")):
            text = "".join([piece async for piece in journal.export_pieces("mia", form, name)])  # type: ignore[arg-type]
            data = text.encode()
            # Cut anywhere, inside of a character, too; and larger than what is held in memory.
            pieces = [data[at : at + 1001] for at in range(0, len(data), 1001)]
            user = f"max{number}"
            for cut in (pieces[:-1], [*pieces[:5], b"\xff", *pieces[5:]]):
                with pytest.raises(InvalidMessage, match=r"^line "):
                    await journal.import_pieces(user, coming(*cut), form)  # type: ignore[arg-type]
                assert await journal.read_bytes(user) == b""
            assert await journal.import_pieces(user, coming(*pieces), form) == 2000  # type: ignore[arg-type]
            assert await journal.import_pieces(user, coming(text), form) == 0  # type: ignore[arg-type]
            assert await journal.read_bytes(user) == await journal.read_bytes("mia", name)
        with pytest.raises(InvalidMessage, match="line 1, column 2: not UTF-8"):
            await journal.import_pieces("zoe", coming("[\ud800"), "json")
        with pytest.raises(TypeError, match="a piece has to be bytes or text, not int"):
            await journal.import_pieces("zoe", coming(5), "json")


@both
async def test_whoever_cancels_a_request_that_hangs_is_not_held_up(url: str) -> None:
    async def hanging() -> AsyncIterator[bytes]:
        yield RECORD % 0 + b"role: user\n"
        hangs.set()
        await anyio.sleep_forever()

    async with await aio.open_journal(url) as journal:
        for operation in (
            lambda: journal.append_pieces("mia", hanging()),
            lambda: journal.import_pieces("max", hanging(), "json"),
        ):
            hangs = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(operation)
                await hangs.wait()
                # Nor does it hold up anybody else meanwhile.
                await journal.add_message("zoe", HELLO)
                tasks.cancel_scope.cancel()
        assert await journal.read_bytes("mia") == RECORD % 0
        assert await journal.read_bytes("max") == b""


@both
@pytest.mark.expects_warning("8 bytes that are no message are kept")
async def test_an_appender_takes_bytes_in_any_pieces_one_writer_after_another(url: str) -> None:
    async with await aio.open_journal(url) as journal:
        appender = await journal.appender("mia")
        text = RECORD % 1 + RECORD % 2
        for at in range(0, len(text), 30):
            await appender.write(text[at : at + 30])
        async with anyio.create_task_group() as tasks:
            for number in range(3, 20):
                tasks.start_soon(appender.write, RECORD % number)
        await appender.write((RECORD % 20)[:-4])
        assert appender.waiting == len(RECORD % 20) - 4
        await appender.flush()
        assert not appender.is_unsettled
        await appender.write(b"role: us")
        await appender.close()
        found = await journal.get_conversation("mia")
        assert sorted(int(message.content[1:]) for message in found) == list(range(1, 21))
        with pytest.raises(TypeError, match="user has to be"):
            await journal.appender(5)  # type: ignore[arg-type]
    with open_synchronously(url) as same:
        assert [found.stat.size for found in same.backend.set_asides("mia")] == [len(b"role: us")]


@both
async def test_what_an_appender_was_left_in_doubt_of_is_stored_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fdatasync = os.fdatasync

    def fails(descriptor: int) -> None:
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        raise OSError(errno.EIO, "Input/output error")

    async with await aio.open_journal(url) as journal:
        appender = await journal.appender("mia")
        await appender.write(b"role: user\ncontent: hello\n")
        monkeypatch.setattr(os, "fdatasync", fails)
        with pytest.raises(OSError, match="the disk did not take"):
            await appender.flush()
        await appender.close()
        assert [message.content for message in await journal.get_conversation("mia")] == ["hello"]


@both
async def test_a_range_of_bytes_is_read_without_the_rest(url: str) -> None:
    text = RECORD % 1 + RECORD % 2
    async with await aio.open_journal(url) as journal:
        await journal.append_pieces("mia", [text])
        assert await journal.read_range("mia", 5, 20) == text[5:25]
        assert await journal.read_range("mia", len(text) - 3, 20) == b"--\n"
        assert await journal.read_range("mia", len(text) + 3, 20) == b""
        assert await journal.read_range("nobody", 0, 20) == b""
        await journal.archive_conversation("mia", "one")
        assert await journal.read_range("mia", 0, 4, "one") == b"role"
        with pytest.raises(NotFound):
            await journal.read_range("mia", 0, 4, "two")
        with pytest.raises(PotofsError, match="offset: expected 0 or more, got -1"):
            await journal.read_range("mia", -1, 4)


# At once


@both
async def test_the_event_loop_goes_on_while_an_operation_waits(
    url: str, gated: Callable[[aio.AsyncDialogueJournal], Gate]
) -> None:
    async with await aio.open_journal(url) as journal:
        gate = gated(journal)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.add_message, "mia", HELLO)
            await gate.has_begun()
            assert await journal.get_conversation("mia") == []
            gate.open.set()
        assert await journal.get_conversation("mia") == [HELLO]


@both
async def test_so_many_operations_are_under_way_at_a_time_and_the_others_wait_their_turn(
    url: str, gated: Callable[[aio.AsyncDialogueJournal], Gate]
) -> None:
    users = [f"user {number}" for number in range(aio.THREADS + 8)]
    async with await aio.open_journal(url) as journal:
        gate = gated(journal)
        async with anyio.create_task_group() as tasks:
            for user in users:
                tasks.start_soon(journal.add_message, user, HELLO)
            for _ in range(aio.THREADS):
                await gate.has_begun()
            await anyio.wait_all_tasks_blocked()
            assert gate.under_way == aio.THREADS
            gate.open.set()
        assert gate.most == aio.THREADS
        assert sorted([user async for user in journal.users()]) == sorted(users)


# Closing


@both
async def test_closing_waits_for_what_is_under_way_and_for_what_waits_its_turn(
    url: str, gated: Callable[[aio.AsyncDialogueJournal], Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"user {number}" for number in range(aio.THREADS + 3)]
    journal = await aio.open_journal(url)
    gate = gated(journal)
    backend = journal._journal.backend
    done: list[str] = []
    close = backend.close

    def closed() -> None:
        done.append("closed")
        close()

    monkeypatch.setattr(backend, "close", closed)

    async def add(user: str) -> None:
        await journal.add_message(user, HELLO)
        done.append(user)

    async with anyio.create_task_group() as tasks:
        for user in users:
            tasks.start_soon(add, user)
        for _ in range(aio.THREADS):
            await gate.has_begun()
        # Twice at once: it is closed once.
        tasks.start_soon(journal.close)
        tasks.start_soon(journal.close)
        await anyio.wait_all_tasks_blocked()
        assert done == []
        gate.open.set()
    assert sorted(done[:-1]) == sorted(users)
    assert done[-1] == "closed"
    with open_synchronously(url) as same:
        assert sorted(same.users()) == sorted(users)


@both
async def test_a_closed_journal_takes_no_more(url: str) -> None:
    journal = await aio.open_journal(f"{url}?archiveThreshold=0")
    await journal.add_messages("mia", [ChatMessage("user", f"message {number}") for number in range(600)])
    async with aclosing(journal.read_conversation("mia")) as entries:
        await anext(entries)
        await journal.close()
        with pytest.raises(PotofsError, match="the journal is closed"):
            [entry async for entry in entries]
    with pytest.raises(PotofsError, match="the journal is closed"):
        await journal.add_message("mia", HELLO)
    with pytest.raises(PotofsError, match="the journal is closed"):
        [user async for user in journal.users()]
    await journal.close()
    with open_synchronously(url) as same:
        assert len(list(same.read_conversation("mia"))) == 600


@both
async def test_a_closing_that_was_cancelled_can_be_done_again(
    url: str, gated: Callable[[aio.AsyncDialogueJournal], Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await aio.open_journal(url)
    gate = gated(journal)
    closed: list[str] = []
    monkeypatch.setattr(journal._journal.backend, "close", lambda: closed.append("backend"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.add_message, "mia", HELLO)
        await gate.has_begun()
        with anyio.move_on_after(0.05) as scope:
            await journal.close()
        assert scope.cancelled_caught
        assert closed == []
        with pytest.raises(PotofsError, match="the journal is closed"):
            await journal.add_message("mia", HELLO)
        gate.open.set()
    await journal.close()
    assert closed == ["backend"]


# Cancelling


@both
async def test_an_operation_that_has_begun_is_finished_although_its_scope_is_cancelled(
    url: str, gated: Callable[[aio.AsyncDialogueJournal], Gate]
) -> None:
    async with await aio.open_journal(url) as journal:
        gate = gated(journal)
        ended: list[int] = []

        async def add() -> None:
            try:
                await journal.add_message("mia", HELLO)
            finally:
                ended.append(gate.under_way)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(add)
            await gate.has_begun()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
                assert ended == [], "its caller waits"
                gate.open.set()
        assert ended == [0]
        assert await journal.get_conversation("mia") == [HELLO]


@both
async def test_an_operation_that_waits_for_its_turn_is_not_begun_when_it_is_cancelled(
    url: str, gated: Callable[[aio.AsyncDialogueJournal], Gate]
) -> None:
    async with await aio.open_journal(url) as journal:
        gate = gated(journal)
        async with anyio.create_task_group() as tasks:
            for number in range(aio.THREADS):
                tasks.start_soon(journal.add_message, f"user {number}", HELLO)
                await gate.has_begun()
            async with anyio.create_task_group() as others:
                others.start_soon(journal.add_message, "mia", HELLO)
                await anyio.wait_all_tasks_blocked()
                others.cancel_scope.cancel()
            gate.open.set()
        assert await journal.get_conversation("mia") == []
        assert "mia" not in [user async for user in journal.users()]


@both
async def test_it_is_closed_although_its_block_was_cancelled(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    with anyio.CancelScope() as scope:
        async with await aio.open_journal(url) as journal:
            monkeypatch.setattr(journal._journal.backend, "close", lambda: closed.append("backend"))
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert closed == ["backend"]


async def _cancelled(journal: aio.AsyncDialogueJournal, gate: Gate) -> None:
    task = asyncio.create_task(journal.add_message("mia", HELLO))
    await gate.has_begun()
    for _ in range(3):
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not task.done(), "its caller waits"
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _timed_out(journal: aio.AsyncDialogueJournal, gate: Gate) -> None:
    async def add_in_time() -> None:
        async with asyncio.timeout(None) as timeout:
            task = asyncio.create_task(expire(timeout))
            try:
                await journal.add_message("mia", HELLO)
            finally:
                await task

    async def expire(timeout: asyncio.Timeout) -> None:
        await gate.has_begun()
        loop = asyncio.get_running_loop()
        timeout.reschedule(loop.time())
        # Its turn comes after the timeout's, which has an earlier time.
        loop.call_later(0.01, gate.open.set)

    with pytest.raises(TimeoutError):
        await add_in_time()


@pytest.mark.parametrize("way", [_cancelled, _timed_out])
def test_what_asyncio_itself_cancels_is_finished_too(
    url: str,
    gated: Callable[[aio.AsyncDialogueJournal], Gate],
    way: Callable[[aio.AsyncDialogueJournal, Gate], Any],
) -> None:
    async def main() -> None:
        async with await aio.open_journal(url) as journal:
            gate = gated(journal)
            await way(journal, gate)
            assert gate.under_way == 0
            assert await journal.get_conversation("mia") == [HELLO]

    asyncio.run(main())


def test_what_has_begun_is_finished_although_the_loop_ends(
    url: str, gated: Callable[[aio.AsyncDialogueJournal], Gate]
) -> None:
    came_back: list[tuple[str, int]] = []
    tasks: list[asyncio.Task[None]] = []
    with asyncio.Runner() as runner:
        journal = runner.run(aio.open_journal(url))
        gate = gated(journal)

        async def add() -> None:
            try:
                await journal.add_message("mia", HELLO)
            except BaseException as error:
                came_back.append((type(error).__name__, gate.under_way))
                raise

        async def begin() -> None:
            tasks.append(asyncio.create_task(add()))
            await gate.has_begun()

        runner.run(begin())
        timer = threading.Timer(0.2, gate.open.set)
        timer.start()
        # Its end cancels all tasks, as the end of asyncio.run does.
    timer.join()
    assert came_back == [("CancelledError", 0)]
    with open_synchronously(url) as same:
        assert same.get_conversation("mia") == [HELLO]


def test_a_journal_that_is_opened_while_it_is_cancelled_is_closed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    opened: list[DialogueJournal] = []
    closed: list[DialogueJournal] = []

    def open_slowly(*args: Any, **kwargs: Any) -> DialogueJournal:
        begun.set()
        assert go_on.wait(30)
        journal = open_synchronously(*args, **kwargs)
        opened.append(journal)
        monkeypatch.setattr(journal.backend, "close", lambda: closed.append(journal))
        return journal

    monkeypatch.setattr("potofs.journal.journal.open_journal", open_slowly)

    async def main(cancellings: int) -> None:
        begun.clear()
        go_on.clear()
        task = asyncio.create_task(aio.open_journal(url))
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        # Also when it is cancelled again at any step of the closing.
        for _ in range(cancellings):
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(opened) == 1
        assert opened[0] in closed

    for cancellings in range(10):
        opened.clear()
        closed.clear()
        asyncio.run(main(cancellings))


def test_it_is_closed_although_its_task_was_cancelled_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    inside = threading.Event()

    async def use() -> None:
        async with await aio.open_journal(url) as journal:
            inside.set()
            monkeypatch.setattr(journal._journal.backend, "close", lambda: closed.append("backend"))
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(use())
        assert await asyncio.to_thread(inside.wait, 30)
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed

    asyncio.run(main())
