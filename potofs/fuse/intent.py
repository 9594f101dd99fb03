"""What a process that looks a name up wants of it: the kernel knows, and tells a file system nothing.

`cp -a` and `tar` make every folder and file of a copy, and take it for a mistake if one is there that they did not
make. But the folders of a user are there as soon as the user is. So of a user who has just been made they are shown to
everybody but to whoever is about to make them. Source: proc_pid_syscall(5),
proc_pid_mem(5).
"""

import os
import platform
import time
from typing import Final, NamedTuple


class _Call(NamedTuple):
    """A system call that makes something: which of its arguments is the path, and which has the flags, if any."""

    path: int
    flags: int | None = None


#: By the kind of machine and the number there: mkdir, mkdirat, open, openat.
_CALLS: Final[dict[str, dict[int, _Call]]] = {
    "x86_64": {83: _Call(0), 258: _Call(1), 2: _Call(0, 1), 257: _Call(1, 2)},
    "aarch64": {34: _Call(1), 56: _Call(1, 2)},
}
_EXCLUSIVELY = os.O_CREAT | os.O_EXCL
# How often it is looked at while it has not come to rest, waiting for our answer, and how long between (seconds).
_LOOKS, _PAUSE = 50, 0.0001
_PAGE = 4096


def is_making(thread: int, name: str, *, folder: bool) -> bool:
    """Whether a thread is in a system call that makes a folder, or else a file, of this name, and fails if it is there.

    It is to be one that waits for an answer of ours. False where nobody can tell: another user's process, another
    namespace, a kind of machine that is not known.
    """
    try:
        number, arguments = _system_call(thread)
        call = _CALLS.get(platform.machine(), {}).get(number)
        if call is None or folder != (call.flags is None):
            return False
        if call.flags is not None and arguments[call.flags] & _EXCLUSIVELY != _EXCLUSIVELY:
            return False
        # A path leads through folders, which are looked up for the same call.
        return os.path.basename(_text(thread, arguments[call.path]).rstrip(b"/")) == os.fsencode(name)
    except OSError:
        return False


def _system_call(thread: int) -> tuple[int, list[int]]:
    """Its number and arguments; -1 if it is in none. Raises OSError."""
    for _ in range(_LOOKS):
        with open(f"/proc/{thread}/syscall", encoding="ascii") as file:
            number, *arguments = file.read().split()
        if number != "running":
            return int(number), [int(argument, 16) for argument in arguments]
        time.sleep(_PAUSE)
    return -1, []


def _text(thread: int, address: int) -> bytes:
    """The bytes in its memory from an address up to a zero; raises OSError."""
    text = b""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        while b"\0" not in text and len(text) <= _PAGE:
            # Not beyond a page at once: the next one may not be there.
            at = address + len(text)
            text += os.pread(memory.fileno(), _PAGE - at % _PAGE, at)
    return text.partition(b"\0")[0]
