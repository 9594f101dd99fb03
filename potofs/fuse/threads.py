"""What a thread of another program is doing, as /proc tells it.

Everything raises OSError where nobody can tell: it has ended, or it is another user's, or of another namespace.
Source: proc_pid_syscall(5), proc_pid_mem(5), proc_pid_stat(5), proc_pid_fdinfo(5).
"""

import os
import time
from collections import Counter
from contextlib import suppress

# How often it is looked at while it has not come to rest, waiting for our answer, and how long between (seconds).
_LOOKS, _PAUSE = 50, 0.0001
_PAGE = 4096
# Where in its stat, behind the name, its flags stand and what it ends with; and of these, PF_EXITING
# (include/linux/sched.h) and the number of the signal (wait(2)).
_FLAGS, _EXIT_CODE = 6, 49
_EXITING, _SIGNAL = 0x4, 0x7F


def system_call(thread: int) -> tuple[int, list[int]]:
    """The number of the system call that it is in, and its arguments; -1 if it is in none."""
    for _ in range(_LOOKS):
        call = present_call(thread)
        if call is not None:
            return call
        time.sleep(_PAUSE)
    return -1, []


def present_call(thread: int) -> tuple[int, list[int]] | None:
    """The same, in one quick look; None if it is not at rest."""
    # Past Python's layers, for this may be asked on the thread that answers everybody.
    descriptor = os.open(f"/proc/{thread}/syscall", os.O_RDONLY)
    try:
        number, *arguments = os.read(descriptor, _PAGE).split()
    finally:
        os.close(descriptor)
    return None if number == b"running" else (int(number), [int(argument, 16) for argument in arguments])


def text(thread: int, address: int) -> bytes:
    """The bytes in its memory from an address up to a zero."""
    found = b""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        while b"\0" not in found and len(found) <= _PAGE:
            # Not beyond a page at once: the next one may not be there.
            at = address + len(found)
            found += os.pread(memory.fileno(), _PAGE - at % _PAGE, at)
    return found.partition(b"\0")[0]


def process(thread: int) -> int:
    """The process that it belongs to."""
    with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    raise ProcessLookupError(f"thread {thread} has ended")


def threads(of: int) -> list[int]:
    """All threads of a process."""
    return [int(name) for name in os.listdir(f"/proc/{of}/task")]


def is_exiting(thread: int) -> bool:
    """Whether it is about to end, and closes what it had."""
    return bool(int(_stat(thread)[_FLAGS]) & _EXITING)


def is_killed(thread: int) -> bool:
    """Whether it ends by a signal. Not told by its flags, for one thread's exit kills all others of a process."""
    fields = _stat(thread)
    return bool(int(fields[_FLAGS]) & _EXITING and int(fields[_EXIT_CODE]) & _SIGNAL)


def _stat(thread: int) -> list[bytes]:
    with open(f"/proc/{thread}/stat", "rb") as file:
        # Behind the name, which may hold anything.
        return file.read().rpartition(b")")[2].split()


def descriptors(thread: int) -> Counter[int]:
    """How many descriptors it has of what may be conversations, open to write, by the file's number."""
    found = Counter[int]()
    folder = f"/proc/{thread}/fd"
    for descriptor in os.listdir(folder):
        # It may close one meanwhile.
        with suppress(FileNotFoundError):
            # What is a conversation ends so wherever it is mounted, and most are something else.
            if os.readlink(f"{folder}/{descriptor}").removesuffix(" (deleted)").endswith(".yaml"):
                with open(f"{folder}info/{descriptor}", "rb", buffering=0) as file:
                    told = dict(line.split(b":", 1) for line in file.read(_PAGE).splitlines())
                found[int(told[b"ino"])] += int(told[b"flags"], 8) & os.O_ACCMODE != os.O_RDONLY
    return found
