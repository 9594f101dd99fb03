"""What a process that looks a name up wants of it: the kernel knows, and tells a file system nothing.

`cp -a` and `tar` make every folder and file of a copy, and take it for a mistake if one is there that they did not
make. But the folders of a user are there as soon as the user is. So of a user who has just been made they are shown to
everybody but to whoever is about to make them.
"""

import os
import platform
from typing import Final, NamedTuple

from potofs.fuse import threads


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


def may_be_making(thread: int, *, folder: bool) -> bool:
    """Whether `is_making` is worth asking: one look at what the system says of a thread, and none at its memory."""
    try:
        call = threads.present_call(thread)
    except OSError:
        return False
    return call is None or _makes(*call, folder) is not None


def is_making(thread: int, name: str, *, folder: bool) -> bool:
    """Whether a thread is in a system call that makes a folder, or else a file, of this name, and fails if it is there.

    It is to be one that waits for an answer of ours. False where nobody can tell: another user's process, another
    namespace, a kind of machine that is not known.
    """
    try:
        path = _makes(*threads.system_call(thread), folder)
        # A path leads through folders, which are looked up for the same call.
        return path is not None and os.path.basename(threads.text(thread, path).rstrip(b"/")) == os.fsencode(name)
    except OSError:
        return False


def _makes(number: int, arguments: list[int], folder: bool) -> int | None:
    """Where in memory the path of a folder or file is that a system call makes; None if it makes none."""
    call = _CALLS.get(platform.machine(), {}).get(number)
    if call is None or folder != (call.flags is None):
        return None
    if call.flags is not None and arguments[call.flags] & _EXCLUSIVELY != _EXCLUSIVELY:
        return None
    return arguments[call.path]
