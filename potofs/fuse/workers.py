"""Which thread does what.

On trio's thread, where every request waits for the one before: memory, local file I/O, and locks that are free at once.
In worker threads: whatever waits for a disk, a network or another writer, goes over many archives, or inflates one. One
user's requests get only a few of them, so that a slow user never slows another; and one that has waited for a thread as
long as it would for a writer or a server is told so, and not kept any longer.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from weakref import WeakValueDictionary

import trio

from potofs.errors import DeadlineExceeded, WouldBlock
from potofs.tree.nodes import Node

Result = TypeVar("Result")


class NotBegun(DeadlineExceeded):
    """What was to be done was not begun: others had all threads."""


# Threads for all requests of users, and for those of one user.
_THREADS = 64
_THREADS_OF_USER = 6
# For those that are about the journal as a whole, and for what is done when nobody waits for it any more.
_THREADS_APART = 16
_THREADS_BEHIND = 16
# For what takes a while, and waits for nobody.
_THREADS_BESIDE = 8


class Workers:
    """The worker threads of one mount. `patience` is how long a request waits for one (seconds)."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._all = trio.CapacityLimiter(_THREADS)
        self._apart = trio.CapacityLimiter(_THREADS_APART)
        self._behind = trio.CapacityLimiter(_THREADS_BEHIND)
        self._beside = trio.CapacityLimiter(_THREADS_BESIDE)
        # Of threads that were waited for before.
        self._taken = trio.CapacityLimiter(math.inf)
        # A user's limiter lives as long as a request that holds it.
        self._of_users: WeakValueDictionary[str, trio.CapacityLimiter] = WeakValueDictionary()

    async def run(self, user: str, function: Callable[[], Result]) -> Result:
        """Runs a function in a worker thread on behalf of a user; raises what it raises, and NotBegun."""
        limiter = self._of_users.get(user)
        if limiter is None:
            limiter = self._of_users[user] = trio.CapacityLimiter(_THREADS_OF_USER)
        with trio.move_on_after(self._patience) as waiting:
            async with limiter, self._all:
                # From here on it takes as long as it takes.
                waiting.deadline = math.inf
                return await trio.to_thread.run_sync(function, limiter=self._taken)
        raise NotBegun(
            f"user {user!r}: other requests have taken all threads for {self._patience:g} s; nothing was changed"
        )

    async def run_apart(self, function: Callable[[], Result]) -> Result:
        """Runs a function in a worker thread that no request of a user can take: how the journal is can be asked for
        even when it is not well.
        """
        return await trio.to_thread.run_sync(function, limiter=self._apart)

    async def run_beside(self, function: Callable[[], Result]) -> Result:
        """Runs a function in a worker thread that waits for nobody; there are enough for whoever closes files."""
        return await trio.to_thread.run_sync(function, limiter=self._beside)

    async def run_behind(self, function: Callable[[], Result]) -> Result:
        """Runs a function in a worker thread that nobody waits for: however long it takes, no request is kept by it."""
        return await trio.to_thread.run_sync(function, limiter=self._behind)

    def at_work(self) -> int:
        """How many threads are running something."""
        return sum(limiter.borrowed_tokens for limiter in (self._all, self._apart, self._behind, self._beside))

    async def ask_about(self, node: Node, blocks: bool, question: Callable[[], Result]) -> Result:
        """Asks something about an entry: here where that is quick, in a worker thread if it `blocks`.

        What is asked about the journal as a whole waits for no user, and nobody waits for it.
        """
        if not node.kind.is_of_journal:
            return await self.ask(node.user, blocks, question)
        return question() if node.kind.is_directory else await self.run_apart(question)

    async def look_about(self, node: Node, blocks: bool, question: Callable[[bool], Result]) -> Result:
        """The same of what is quick mostly: the question is told whether it may wait, as by `run_soon`."""
        if node.kind.is_of_journal:
            return await self.ask_about(node, blocks, lambda: question(True))
        return await self.run_soon(node.user, blocks, question)

    async def ask(self, user: str, blocks: bool, question: Callable[[], Result]) -> Result:
        """Asks something on behalf of a user: here where that is quick, in a worker thread if it `blocks`."""
        return await self.run(user, question) if blocks else question()

    async def run_soon(self, user: str, blocks: bool, function: Callable[[bool], Result]) -> Result:
        """Runs a function here if it neither `blocks` nor finds that it would take long, else in a worker thread.

        It is told whether it may wait, and raises WouldBlock, with nothing done, where it would have to.
        """
        if not blocks:
            with suppress(WouldBlock):
                return function(False)
        return await self.run(user, lambda: function(True))
