"""Asking mounts for a sign of life, without ever waiting for one that hangs."""

import errno
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from potofs.mount import probe

#: What the kernel says of a mount whose daemon is gone.
GONE: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED})

# How long a mount may take to answer (seconds).
_DEADLINE = 2.0


class Answer(NamedTuple):
    """What a probe says of a mount."""

    #: What it met, or 0.
    errno: int
    #: When it looked (seconds, monotonic), and the text of the mount's metrics then; none if nobody asked for them, or
    #: if the mount takes too long to tell, as it has to ask its backend for some.
    samples: Sequence[tuple[float, str]]


def ask(places: Sequence[str], pause: float | None = None) -> list[Answer | None]:
    """What a probe of each place says, all asked at once; None of one that does not answer within 2 seconds.

    `pause` is how long each waits before it looks at the metrics for the last time (seconds); None: it does not.
    """
    looking = [] if pause is None else [str(pause)]
    command = [sys.executable, "-I", "-S", probe.__file__]
    probes = [
        subprocess.Popen(
            [*command, place, *looking],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # Nothing of ours is held by one that cannot be ended.
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        for place in places
    ]
    said = [b""] * len(probes)
    deadline = time.monotonic() + (0 if pause is None else probe.APART + pause) + _DEADLINE
    with selectors.DefaultSelector() as selector:
        for number, process in enumerate(probes):
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ, number)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                piece = os.read(key.fd, 1 << 16)
                said[key.data] += piece
                if not piece:
                    selector.unregister(key.fileobj)
                    probes[key.data].wait()
    for process in probes:
        assert process.stdout is not None
        process.stdout.close()
        # It ends as soon as the kernel lets it; nobody waits.
        process.kill()
    return [_answer(text) for text in said]


def _answer(said: bytes) -> Answer | None:
    # What does not end with its line was cut off.
    lines = [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith(b"\n")]
    if not lines:
        return None
    return Answer(lines[0], [(moment, text) for moment, text in lines[1]] if len(lines) > 1 else [])
