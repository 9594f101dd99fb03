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


def is_making(thread: int, name: str, *, folder: bool) -> bool:
    """Whether a thread is in a system call that makes a folder, or else a file, of this name, and fails if it is there.

    It is to be one that waits for an answer of ours. False where nobody can tell: another user's process, another
    namespace, a kind of machine that is not known.
    """
    try:
        number, arguments = threads.system_call(thread)
        call = _CALLS.get(platform.machine(), {}).get(number)
        if call is None or folder != (call.flags is None):
            return False
        if call.flags is not None and arguments[call.flags] & _EXCLUSIVELY != _EXCLUSIVELY:
            return False
        # A path leads through folders, which are looked up for the same call.
        return os.path.basename(threads.text(thread, arguments[call.path]).rstrip(b"/")) == os.fsencode(name)
    except OSError:
        return False
