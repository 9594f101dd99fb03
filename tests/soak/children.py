"""Processes that use a journal, and what they say through memory that they share with who started them.

What a process wrote there is there, also if it is killed at the next instruction.
"""

import ctypes
import errno
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any

#: How long anything may take that is waited for (seconds).
PATIENCE = 60.0

context = multiprocessing.get_context("spawn")


@contextmanager
def running(*processes: SpawnProcess) -> Iterator[None]:
    """Starts processes; whatever happens, none of them is left in the end."""
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join(PATIENCE)


def wait_until(condition: Callable[[], object], what: str, process: SpawnProcess | None = None) -> None:
    """Waits for a condition; fails, saying what did not come, after a while or if the process has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        # A process may end right after it did what is waited for.
        if process is not None and process.exitcode is not None and not condition():
            raise AssertionError(f"the process ended with {process.exitcode}, and still not: {what}")
        if time.monotonic() > deadline:
            raise AssertionError(f"after {PATIENCE:g} s still not: {what}")
        time.sleep(0.001)


class Words(logging.Handler):
    """Keeps what potofs warns of in this process, instead of printing it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        logger = logging.getLogger("potofs")
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


class Notes(ctypes.Structure):
    """What a writer says of itself, and is told: eight bytes each, written at one stroke. Made by `notes`."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("begun", "done", "refused", "busy", "told"))

    #: Up to which message it has begun to append, and up to which it was told that they are stored.
    begun: int
    done: int
    #: How many of its appends failed.
    refused: int
    #: Whether it archives.
    busy: int
    #: What it is told: any bits of STOP and FULL.
    told: int


def notes() -> Notes:
    """Notes in memory that is shared with the processes that are given them."""
    made: Notes = context.RawValue(Notes)
    return made


def wait_for_more(done: Notes, what: str, more: int, process: SpawnProcess) -> None:
    """Waits until a number in what a process notes, `refused` for example, has grown by so much."""
    wanted = getattr(done, what) + more
    wait_until(lambda: getattr(done, what) >= wanted, f"{more} more {what}", process)


#: To end after this append.
STOP = 1
#: To find every disk full.
FULL = 2


def pretend_a_full_disk(told: Notes) -> None:
    """From now on writes to conversations stop half-way in this process, and then fail, while it is told so."""
    write, is_cut = os.write, [False]

    def limited(descriptor: int, data: Any, /) -> int:
        if not told.told & FULL or not os.readlink(f"/proc/self/fd/{descriptor}").endswith(".yaml"):
            return write(descriptor, data)
        is_cut[0] = not is_cut[0] and len(data) > 1
        if is_cut[0]:
            return write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    os.write = limited
