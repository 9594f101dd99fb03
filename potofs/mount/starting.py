"""Starting a daemon and waiting for its word: ready, or why not."""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from potofs.mount import logs
from potofs.mount.mountpoints import MountError

_READY = b"ready\n"
# How long a daemon may take until it says that it is ready (seconds): longer than any backend takes to be reached.
_READY_WITHIN = 60.0


def start(arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """Runs `potofs` with these arguments in the background, and returns once it says that it is ready.

    `environment` is added to ours, for what not everybody may read.

    Its word comes through a pipe, whose descriptor it is given as the last argument. Raises MountError with what it
    said instead.
    """
    read_end, write_end = os.pipe()
    try:
        with open(log, "ab", opener=logs.private) as output:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "potofs", *arguments, f"--ready-fd={write_end}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[write_end],
                cwd="/",
                env={**os.environ, **environment},
                start_new_session=True,
            )
    finally:
        os.close(write_end)
    with open(read_end, "rb") as pipe:
        if not select.select([pipe], [], [], _READY_WITHIN)[0]:
            daemon.kill()
            raise MountError(f"the daemon was not ready after {_READY_WITHIN:g} s and was ended: see {log}")
        word = pipe.read()
    if word == _READY:
        return
    code = daemon.wait()
    raise MountError(word.decode(errors="replace").strip() or f"the daemon ended with exit code {code}: see {log}")


def tell(descriptor: int | None) -> tuple[Callable[[], None], Callable[[str], None]]:
    """How a daemon says that it is ready, and how it says why it cannot be; each once."""
    if descriptor is not None:
        # fusermount3 lives as long as the mount, and would keep the pipe open.
        os.set_inheritable(descriptor, False)

    unsaid = descriptor

    def say(word: bytes) -> None:
        nonlocal unsaid
        if unsaid is not None:
            # Once: its number may soon be another file's.
            said_to, unsaid = unsaid, None
            os.write(said_to, word)
            os.close(said_to)

    return lambda: say(_READY), lambda reason: say(reason.encode(errors="replace"))
