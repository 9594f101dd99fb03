"""Whether a file that is closed is done with: the kernel tells of each close, and neither who closes nor who goes on.

It asks for a flush whenever a process closes one of its descriptors, or ends. A shell that writes one message with
several programs has it flushed by each of them as it ends, in the middle of the message. So whoever opened it is looked
at: it waits for our answer in a call that closes, or does something else.
"""

import platform
from enum import Enum
from typing import Final

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


class Openers:
    """Who has opened which numbers to append to, and has them open still. To be changed by one thread only."""

    def __init__(self) -> None:
        self._threads: dict[int, list[int]] = {}

    def opened(self, inode: int, thread: int) -> "Opener":
        """A thread opens a number once more; 0 is one that cannot be known."""
        self._threads.setdefault(inode, []).append(thread)
        return Opener(self, inode, thread)

    def by_process(self, inode: int, process: int) -> int:
        """How often a process has a number open; in any thread."""
        return sum(_is_of(process, thread) for thread in list(self._threads.get(inode, ())))

    def released(self, inode: int, thread: int) -> None:
        """One of these has no descriptor any more."""
        self._threads[inode].remove(thread)
        if not self._threads[inode]:
            del self._threads[inode]


class Opener:
    """Who has opened one file to append to it."""

    def __init__(self, openers: Openers, inode: int, thread: int) -> None:
        self._openers, self._inode, self._thread = openers, inode, thread

    def closed(self) -> Closed:
        """What it means that one of the file's descriptors is closed; reads /proc, so not for trio's thread.

        `DONE` where nobody can tell: another user's process, another namespace, a kind of machine that is not known.
        """
        if not self._thread:
            return Closed.DONE
        try:
            process = threads.process(self._thread)
            if threads.is_killed(process):
                return Closed.KILLED
            if not any(map(_closes, threads.threads(process))):
                return Closed.OPEN
            # It may have opened it several times, and closes one of these.
            opened = self._openers.by_process(self._inode, process)
            return Closed.COPY if threads.descriptors(process, self._inode) >= opened else Closed.DONE
        except (FileNotFoundError, ProcessLookupError):
            # It has left the file to others.
            return Closed.OPEN
        except (OSError, KeyError):
            return Closed.DONE

    def release(self) -> None:
        """All of the file's descriptors are closed."""
        self._openers.released(self._inode, self._thread)


def _is_of(process: int, thread: int) -> bool:
    if thread == process:
        return True
    try:
        return threads.process(thread) == process
    except OSError:
        return False


def _closes(thread: int) -> bool:
    try:
        if threads.is_exiting(thread):
            return True
        calls = _CLOSING.get(platform.machine())
        return calls is None or threads.system_call(thread)[0] in calls
    except (FileNotFoundError, ProcessLookupError):
        # It has ended meanwhile: whoever closes waits for our answer.
        return False
