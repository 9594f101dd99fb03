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
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial, update_wrapper, wraps
from itertools import islice
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import anyio
import anyio.to_thread
import sniffio

from potofs import temporary
from potofs.backends.base import Capability
from potofs.config import Where
from potofs.errors import PotofsError
from potofs.journal import arguments, piping
from potofs.journal import journal as synchronous
from potofs.journal.appending import Appender
from potofs.journal.exchange import Format
from potofs.journal.journal import DialogueJournal
from potofs.journal.models import User
from potofs.journal.tally import Tally

#: Worker threads of one journal, and so operations of it under way at a time.
THREADS: Final = 16

# What an iterator is asked for at a time: a hop to a thread costs as much as some hundred short messages.
_AT_ONCE = 256
# What of an import is written to a file at a time, and what is held in memory without one (bytes).
_PIECE = 1 << 18
_IN_MEMORY = 1 << 20

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
    worker thread. Where it takes `pieces` it takes an async iterable, too, as the body of a request is one: that is
    read in the caller's task and holds up no other operation; `append_pieces` stores what each piece ends before it
    takes the next, and whoever cancels leaves that stored. A generator is closed by that, also at a mistake in it.

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
    read_range = _awaited(DialogueJournal.read_range)
    read_pieces = _iterated(DialogueJournal.read_pieces)
    add_message = _awaited(DialogueJournal.add_message)
    add_messages = _awaited(DialogueJournal.add_messages)
    append = _awaited(DialogueJournal.append)

    async def append_pieces(self, user: User, pieces: Iterable[bytes] | AsyncIterable[bytes]) -> None:
        if not isinstance(pieces, AsyncIterable):
            await self._workers.run(lambda: self._journal.append_pieces(user, pieces))
            return
        pipe = piping.Pipe(lambda records: self._journal.append(user, records))
        async with _read_once(pieces):
            async for piece in pieces:
                await self._workers.run(partial(pipe.take, piece))
        await self._workers.run(pipe.end)

    update_wrapper(append_pieces, DialogueJournal.append_pieces)

    async def appender(self, user: User, tally: Tally | None = None) -> "AsyncAppender":
        return AsyncAppender(await self._workers.run(lambda: self._journal.appender(user, tally)), self._workers)

    update_wrapper(appender, DialogueJournal.appender)

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

    async def import_pieces(
        self,
        user: User,
        pieces: Iterable[bytes | str] | AsyncIterable[bytes | str],
        format: Format,  # noqa: A002  (the document's name)
    ) -> int:
        if not isinstance(pieces, AsyncIterable):
            return await self._workers.run(lambda: self._journal.import_pieces(user, pieces, format))
        # All of it is looked at before any is stored: so nothing is begun that would have to wait for the rest.
        waiting = bytearray()
        with temporary.Spooled(_IN_MEMORY) as file:
            async with _read_once(pieces):
                async for piece in pieces:
                    if not isinstance(piece, bytes | str):
                        raise arguments.wrong_type("a piece", piece, "bytes or text")
                    # What no UTF-8 can hold is found out, and its place told, when it is read.
                    waiting += piece.encode(errors="surrogatepass") if isinstance(piece, str) else piece
                    if len(waiting) >= _PIECE:
                        await self._workers.run(partial(file.write, bytes(waiting)))
                        waiting.clear()

            def take_in() -> int:
                file.write(waiting)
                file.seek(0)
                return self._journal.import_pieces(user, iter(partial(file.read, _PIECE), b""), format)

            return await self._workers.run(take_in)

    update_wrapper(import_pieces, DialogueJournal.import_pieces)

    async def close(self) -> None:
        await self._workers.close(self._journal.close)

    update_wrapper(close, DialogueJournal.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await _in_any_case(self.close)


class AsyncAppender:
    """An `Appender` whose operations are awaited, one after another, whoever asks for them.

    What they do and raise, `Appender` says. Close it before the journal: what waits then is set aside.
    """

    def __init__(self, appender: Appender, workers: _Workers) -> None:
        self._appender = appender
        self._workers = workers
        self._one_at_a_time = anyio.Lock()

    @property
    def waiting(self) -> int:
        return self._appender.waiting

    @property
    def held(self) -> int:
        return self._appender.held

    @property
    def is_unsettled(self) -> bool:
        return self._appender.is_unsettled

    async def write(self, data: bytes, *, wait: bool = True) -> None:
        await self._run(partial(self._appender.write, data, wait=wait))

    async def flush(self, *, wait: bool = True) -> None:
        await self._run(partial(self._appender.flush, wait=wait))

    async def pause(self) -> None:
        await self._run(self._appender.pause)

    async def missed(self, data: bytes) -> None:
        await self._run(partial(self._appender.missed, data))

    async def close(self) -> None:
        await self._run(self._appender.close)

    update_wrapper(write, Appender.write)
    update_wrapper(flush, Appender.flush)
    update_wrapper(pause, Appender.pause)
    update_wrapper(missed, Appender.missed)
    update_wrapper(close, Appender.close)

    async def _run(self, operation: Callable[[], None]) -> None:
        async with self._one_at_a_time:
            await self._workers.run(operation)


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


@asynccontextmanager
async def _read_once(pieces: AsyncIterable[object]) -> AsyncIterator[None]:
    """Ends a generator behind the last piece that is taken of it: trio complains of one that is left half read."""
    try:
        yield
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


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
