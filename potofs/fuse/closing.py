"""Whether a file that is closed is done with: the kernel tells of each close, and neither who closes nor who goes on.

It asks for a flush whenever a process closes one of its descriptors, or ends. A shell that writes one message with
several programs has it flushed by each of them as it ends, in the middle of the message. So whoever opened it is looked
at: it waits for our answer in a call that closes, or does something else.
"""

import functools
import platform
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

import trio

from potofs.fuse import threads

#: By the kind of machine, the calls that close: close, close_range, dup2, dup3, execve, execveat.
_CLOSING: Final[dict[str, frozenset[int]]] = {
    "x86_64": frozenset({3, 436, 33, 292, 59, 322}),
    "aarch64": frozenset({57, 436, 24, 221, 281}),
}


class Closed(Enum):
    """What a close means for what was written."""

    #: Whoever opened it is done with it, as far as anybody can tell.
    DONE = "done"
    #: Whoever opened it closes one of several descriptors.
    COPY = "copy"
    #: It is open still: somebody else ends that had it, too.
    OPEN = "open"
    #: Whoever opened it was killed, maybe in the middle of a message.
    KILLED = "killed"


class _Process(NamedTuple):
    """A process that closes something."""

    threads: frozenset[int]
    #: How many descriptors it has, by the number of what is open to write.
    open: Counter[int]


class _Turn:
    """The looks at one thread's process: how many were begun and how many have ended, and what the last one found."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.begun = self.ended = 0
        self.found: Closed | _Process = Closed.DONE


class Openers:
    """Who has opened which numbers to append to, and has them open still. To be used on trio's thread only.

    `aside` runs in another thread what reads /proc.
    """

    def __init__(self, aside: Callable[[Callable[[], Closed | _Process]], Awaitable[Closed | _Process]]) -> None:
        self._aside = aside
        self._threads: dict[int, list[int]] = {}
        # By thread, as long as somebody waits for a look.
        self._turns: WeakValueDictionary[int, _Turn] = WeakValueDictionary()

    def opened(self, inode: int, thread: int) -> "Opener":
        """A thread opens a number once more; 0 is one that cannot be known."""
        self._threads.setdefault(inode, []).append(thread)
        return Opener(self, inode, thread)

    async def closed(self, inode: int, thread: int) -> Closed:
        """What it means that a descriptor is closed of what a thread has opened."""
        before = self._threads[inode].copy()
        found = await self._look(thread)
        if isinstance(found, Closed):
            return found
        # It may have opened it several times, and closes one of these. What has come or gone during the look counts:
        # it is noted here before it is a descriptor, and for as long as it is one.
        opened = max(sum(opener in found.threads for opener in openers) for openers in (before, self._threads[inode]))
        return Closed.COPY if found.open[inode] >= opened else Closed.DONE

    def released(self, inode: int, thread: int) -> None:
        """One of these has no descriptor any more."""
        self._threads[inode].remove(thread)
        if not self._threads[inode]:
            del self._threads[inode]

    async def _look(self, thread: int) -> Closed | _Process:
        """One look for all who close at once: a program with many files has many descriptors to look at."""
        turn = self._turns.get(thread)
        if turn is None:
            turn = self._turns[thread] = _Turn()
        # One that has begun may have been before this close: the next one.
        ours = turn.begun + 1
        async with turn.lock:
            if turn.ended < ours:
                turn.begun = ours
                turn.found = await self._aside(functools.partial(_look, thread))
                turn.ended = ours
            return turn.found


class Opener:
    """Who has opened one file to append to it."""

    def __init__(self, openers: Openers, inode: int, thread: int) -> None:
        self._openers, self._inode, self._thread = openers, inode, thread

    async def closed(self) -> Closed:
        """What it means that one of the file's descriptors is closed.

        `DONE` where nobody can tell: another user's process, another namespace, a kind of machine that is not known.
        """
        return await self._openers.closed(self._inode, self._thread) if self._thread else Closed.DONE

    def release(self) -> None:
        """All of the file's descriptors are closed."""
        self._openers.released(self._inode, self._thread)


def _look(thread: int) -> Closed | _Process:
    """The process that a thread belongs to, if it closes something; else, or if nobody can tell, what that means."""
    try:
        process = threads.process(thread)
        if threads.is_killed(process):
            return Closed.KILLED
        its = threads.threads(process)
        if not any(map(_closes, its)):
            return Closed.OPEN
        return _Process(frozenset(its), threads.descriptors(process))
    except (FileNotFoundError, ProcessLookupError):
        # It has left the file to others.
        return Closed.OPEN
    except (OSError, KeyError):
        return Closed.DONE


def _closes(thread: int) -> bool:
    try:
        if threads.is_exiting(thread):
            return True
        calls = _CLOSING.get(platform.machine())
        return calls is None or threads.system_call(thread)[0] in calls
    except (FileNotFoundError, ProcessLookupError):
        # It has ended meanwhile: whoever closes waits for our answer.
        return False
