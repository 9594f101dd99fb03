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


def closed(opener: int, inode: int) -> Closed:
    """What it means that a file is closed which a thread has opened; reads /proc, so not on trio's thread.

    `DONE` where nobody can tell: another user's process, another namespace, a kind of machine that is not known.
    """
    if not opener:
        return Closed.DONE
    try:
        process = threads.process(opener)
        if threads.is_killed(process):
            return Closed.KILLED
        if not any(map(_closes, threads.threads(process))):
            return Closed.OPEN
        return Closed.COPY if threads.writes(process, inode) else Closed.DONE
    except (FileNotFoundError, ProcessLookupError):
        # It has left the file to others.
        return Closed.OPEN
    except (OSError, KeyError):
        return Closed.DONE


def _closes(thread: int) -> bool:
    if threads.is_exiting(thread):
        return True
    calls = _CLOSING.get(platform.machine())
    return calls is None or threads.system_call(thread)[0] in calls
