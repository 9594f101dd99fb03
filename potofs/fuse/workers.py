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

from potofs.backends.waiting import having_waited
from potofs.errors import WouldBlock
from potofs.fuse import turns
from potofs.fuse.turns import InTime, NotBegun
from potofs.tree.nodes import Node

Result = TypeVar("Result")

# Threads for all requests of users, and for those of one user; and how many of one user's may have one or wait.
_THREADS = 64
_THREADS_OF_USER = 6
_REQUESTS_OF_USER = 2048
# For those that are about the journal as a whole.
_THREADS_APART = 16
# For what is done when nobody waits for it any more.
_THREADS_BEHIND = 48
# For what takes a while, and waits for nobody.
_THREADS_BESIDE = 8


class _Threads:
    """Those of one user, and how many requests want one."""

    def __init__(self, most: int, patience: float) -> None:
        self.are_free = InTime(trio.CapacityLimiter(most), patience)
        self.wanted_by = 0


class Workers:
    """The worker threads of one mount. `patience` is how long a request may take in all (seconds)."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._all = trio.CapacityLimiter(_THREADS)
        self._any_is_free = InTime(self._all, patience)
        self._apart = trio.CapacityLimiter(_THREADS_APART)
        self._behind = trio.CapacityLimiter(_THREADS_BEHIND)
        self._beside = trio.CapacityLimiter(_THREADS_BESIDE)
        # Of threads that were waited for before.
        self._taken = trio.CapacityLimiter(math.inf)
        # Those of a user live as long as somebody wants them.
        self._of_users: WeakValueDictionary[str, _Threads] = WeakValueDictionary()

    async def run(self, user: str, function: Callable[[], Result]) -> Result:
        """Runs a function in a worker thread on behalf of a user; raises what it raises, and NotBegun."""
        threads = self._of_users.get(user)
        if threads is None:
            threads = self._of_users[user] = _Threads(_THREADS_OF_USER, self.patience)
        if threads.wanted_by >= _REQUESTS_OF_USER:
            raise NotBegun(
                f"user {user!r}: {_REQUESTS_OF_USER} requests are under way already; nothing was changed, try again"
            )
        threads.wanted_by += 1
        try:
            async with threads.are_free, self._any_is_free:
                # From here on it takes as long as it takes.
                return await trio.to_thread.run_sync(_as_one_request(function), limiter=self._taken)
        finally:
            threads.wanted_by -= 1

    async def run_apart(self, function: Callable[[], Result]) -> Result:
        """Runs a function in a worker thread that no request of a user can take: how the journal is can be asked for
        even when it is not well.
        """
        return await trio.to_thread.run_sync(_as_one_request(function), limiter=self._apart)

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


def _as_one_request(function: Callable[[], Result]) -> Callable[[], Result]:
    """The same, which waits for others only as long as the request that it is part of may still do."""
    return having_waited(turns.waited())(function)
