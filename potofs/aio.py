"""The same journal for async programs, on asyncio and on trio.

    from potofs import ChatMessage, aio

    async with await aio.open_journal("file:///var/lib/poto") as journal:
        await journal.add_message("mia", ChatMessage("user", "Where is my parcel?"))
        async for entry in journal.read_conversation("mia"):
            print(entry)

Every operation of `DialogueJournal` has its name and its parameters here and runs in a worker thread: what returns a
value there is awaited here, and what returns an iterator there is iterated with `async for` (by whoever may leave early
inside `async with contextlib.aclosing(…)`, as with any async generator). At most `THREADS` operations of one journal
are under way at a time, the others wait their turn.

Cancelling (by a scope of trio or anyio, by asyncio's timeouts, by `Task.cancel` or by the end of the loop) keeps an
operation from beginning. One that has begun is finished, and its caller waits for that: whenever an await has come
back, with a value or with an exception, nothing of it goes on behind it. How long that can take the backend's own
deadlines say.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from functools import partial, update_wrapper, wraps
from itertools import islice
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import anyio
import anyio.to_thread
import sniffio

from potofs.backends.base import Capability
from potofs.config import Where
from potofs.errors import PotofsError
from potofs.journal import journal as synchronous
from potofs.journal.journal import DialogueJournal

#: Worker threads of one journal, and so operations of it under way at a time.
THREADS: Final = 16

# What an iterator is asked for at a time: a hop to a thread costs as much as some hundred short messages.
_AT_ONCE = 256

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _awaited(
    operation: Callable[Concatenate[DialogueJournal, Parameters], Result],
) -> "Callable[Concatenate[AsyncDialogueJournal, Parameters], Coroutine[Any, Any, Result]]":
    """An operation of the journal, to be awaited."""

    @wraps(operation)
    async def run(self: "AsyncDialogueJournal", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await self._workers.run(partial(operation, self._journal, *args, **kwargs))

    return run


def _iterated(
    operation: Callable[Concatenate[DialogueJournal, Parameters], Iterator[Result]],
) -> "Callable[Concatenate[AsyncDialogueJournal, Parameters], AsyncGenerator[Result]]":
    """An operation that returns an iterator, to be iterated with `async for`; some hundred results are read ahead."""

    @wraps(operation)
    async def run(
        self: "AsyncDialogueJournal", /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> AsyncGenerator[Result]:
        results = await self._workers.run(partial(operation, self._journal, *args, **kwargs))
        error = None
        while error is None:
            batch, error = await self._workers.run(partial(_next_of, results))
            for result in batch:
                yield result
            if not batch and error is None:
                return
        raise error

    return run


def _next_of(results: Iterator[Result]) -> tuple[list[Result], Exception | None]:
    """The next results, and the error behind them: what was read before it is not lost with it."""
    batch: list[Result] = []
    try:
        for result in islice(results, _AT_ONCE):
            batch.append(result)  # noqa: PERF402 - a comprehension would lose them
    except Exception as error:
        return batch, error
    return batch, None


class _Workers:
    """The worker threads of one journal."""

    def __init__(self) -> None:
        self._turns = anyio.CapacityLimiter(THREADS)
        # Whoever has a turn finds a thread free: only the wait for a turn may be cancelled.
        self._threads = anyio.CapacityLimiter(THREADS)
        #: Functions that run or wait for their turn.
        self._asked = 0
        self._none_asked = anyio.Event()
        self._closing = anyio.Lock()
        self._takes_more = True
        self._is_closed = False

    async def run(self, function: Callable[[], Result]) -> Result:
        """Runs a function in a worker thread, to its end once it has begun; raises what it raises."""
        if not self._takes_more:
            raise PotofsError("the journal is closed")
        self._asked += 1
        try:
            return await self._run_in_turn(function)
        finally:
            self._asked -= 1
            if not self._asked:
                self._none_asked.set()

    async def close(self, function: Callable[[], None]) -> None:
        """Takes no more, and runs a last function after all others; once, however often it is closed."""
        self._takes_more = False
        async with self._closing:
            if self._is_closed:
                return
            if self._asked:
                self._none_asked = anyio.Event()
                await self._none_asked.wait()
            await self._run_in_turn(function)
            self._is_closed = True

    async def _run_in_turn(self, function: Callable[[], Result]) -> Result:
        async with self._turns:
            run = self._run_on_asyncio if sniffio.current_async_library() == "asyncio" else self._run
            with anyio.CancelScope(shield=True):
                result = await run(function)
        return result

    async def _run(self, function: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(function, limiter=self._threads)

    async def _run_on_asyncio(self, function: Callable[[], Result]) -> Result:
        # No scope keeps off what asyncio itself cancels (its timeouts, Task.cancel, all tasks when its loop ends), and
        # the thread would go on alone. What the thread has begun is no task, and so nothing that could be cancelled.
        job: Future[Result] = Future()

        def run() -> None:
            if job.set_running_or_notify_cancel():
                try:
                    job.set_result(function())
                except BaseException as error:
                    job.set_exception(error)

        try:
            await self._run(run)
        except asyncio.CancelledError as error:
            if job.cancel():
                raise  # It had not begun, and will not.
            cancelled = error
            ended = asyncio.wrap_future(job)
            while not ended.done():
                try:
                    await asyncio.wait([ended])
                except asyncio.CancelledError as again:
                    cancelled = again
            raise cancelled from ended.exception()
        return job.result()


class AsyncDialogueJournal:
    """A journal on one backend, for one event loop. Close it in the end, or use it as an async context manager.

    What an operation does, returns and raises, `DialogueJournal` says. Iterables that are given to it are read in the
    worker thread. Its `appender` has no counterpart: it keeps what one handle has written, and belongs to one thread.

    `close` waits for the operations that were asked for before it. One that is asked for after it raises PotofsError,
    as does an iterator that is read on; also if the closing was cancelled, which can be done again then.
    """

    def __init__(self, journal: DialogueJournal) -> None:
        self._journal = journal
        self._workers = _Workers()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this backend can do of what not every backend can."""
        return self._journal.capabilities

    # Users

    users = _iterated(DialogueJournal.users)
    create_user = _awaited(DialogueJournal.create_user)
    must_have_user = _awaited(DialogueJournal.must_have_user)
    ensure_user = _awaited(DialogueJournal.ensure_user)
    user_metadata = _awaited(DialogueJournal.user_metadata)

    # Conversations

    get_conversation = _awaited(DialogueJournal.get_conversation)
    read_conversation = _iterated(DialogueJournal.read_conversation)
    read_bytes = _awaited(DialogueJournal.read_bytes)
    read_pieces = _iterated(DialogueJournal.read_pieces)
    add_message = _awaited(DialogueJournal.add_message)
    add_messages = _awaited(DialogueJournal.add_messages)
    append = _awaited(DialogueJournal.append)
    append_pieces = _awaited(DialogueJournal.append_pieces)
    clear_conversation = _awaited(DialogueJournal.clear_conversation)

    # Archives

    archive_conversation = _awaited(DialogueJournal.archive_conversation)
    get_archived_conversations = _awaited(DialogueJournal.get_archived_conversations)
    restore_conversation = _awaited(DialogueJournal.restore_conversation)

    # Figures and upkeep

    get_stats = _awaited(DialogueJournal.get_stats)
    cleanup = _awaited(DialogueJournal.cleanup)
    fsck = _iterated(DialogueJournal.fsck)

    # Export and import

    export_conversation = _awaited(DialogueJournal.export_conversation)
    export_pieces = _iterated(DialogueJournal.export_pieces)
    import_conversation = _awaited(DialogueJournal.import_conversation)
    import_pieces = _awaited(DialogueJournal.import_pieces)

    async def close(self) -> None:
        await self._workers.close(self._journal.close)

    update_wrapper(close, DialogueJournal.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await _in_any_case(self.close)


async def open_journal(where: str | Where, *, create: bool = True) -> AsyncDialogueJournal:
    """The journal at a URL such as file:///var/lib/poto, made if it is not there and `create` is not False.

    Raises what `potofs.open_journal` raises.
    """
    opened: list[AsyncDialogueJournal] = []
    try:
        await _Workers().run(
            lambda: opened.append(AsyncDialogueJournal(synchronous.open_journal(where, create=create)))
        )
    except BaseException:
        # Cancelled when it was open already: nobody else will close it.
        for journal in opened:
            await _in_any_case(journal.close)
        raise
    return opened[0]


async def _in_any_case(operation: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Awaits what may be done twice until it is done, whoever cancels; raises that it was cancelled afterwards."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while True:
            try:
                await operation()
                break
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
