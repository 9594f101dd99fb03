"""What is mounted here and how it is: the mounts of this system, the daemons that serve them, and how busy they are."""

import errno
import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from potofs.mount import mountpoints, probe, running

# How long is counted, and how long a mount may take to answer besides (seconds).
_PAUSE = 0.5
_DEADLINE = 2.0

#: `ok` answers; `dead` was left behind by a daemon that was killed; `hung` does not answer in time; `closed` lets this
#: user look at nothing; `failing` answers with an error.
State = Literal["ok", "dead", "hung", "closed", "failing"]
_STATES: Mapping[int, State] = {
    0: "ok",
    # It answers that there are no metrics.
    errno.ENOENT: "ok",
    errno.ENOTCONN: "dead",
    errno.ECONNABORTED: "dead",
    errno.ETIMEDOUT: "hung",
    errno.EACCES: "closed",
    errno.EPERM: "closed",
}


class Overview(NamedTuple):
    """One mount."""

    mountpoint: str
    #: The backend's URL without a password.
    backend: str
    state: State
    #: Of the daemon; None if this user cannot know.
    pid: int | None
    #: When it was mounted (seconds since 1970).
    since: float | None
    #: None: the mount does not say.
    requests_per_second: float | None
    open_files: int | None


def overviews() -> list[Overview]:
    """All mounts that this process can see, by mountpoint; takes no longer than 3 seconds."""
    found = sorted(mountpoints.mounts())
    answers = _ask([mount.mountpoint for mount in found])
    return [_overview(mount, answer) for mount, answer in zip(found, answers, strict=True)]


def _overview(mount: mountpoints.Mount, answer: "_Answer | None") -> Overview:
    daemon = running.daemon_of(mount.mountpoint, mount.uid)
    state: State = "hung" if answer is None else _STATES.get(answer.errno, "failing")
    rate, open_files = (None, None) if answer is None else _figures(answer.samples)
    return Overview(
        mount.mountpoint,
        daemon.backend if daemon is not None and daemon.backend else mount.source,
        state,
        None if daemon is None else daemon.pid,
        None if daemon is None else daemon.since,
        rate,
        open_files,
    )


class _Answer(NamedTuple):
    errno: int
    samples: Sequence[tuple[float, str]]


def _ask(places: Sequence[str]) -> list[_Answer | None]:
    """What a probe of each place says, all at once; None of one that has not ended in time."""
    command = [sys.executable, "-I", "-S", probe.__file__]
    probes = [
        subprocess.Popen(
            [*command, place, str(_PAUSE)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # Nothing of ours is held by one that cannot be ended.
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        for place in places
    ]
    said = [b""] * len(probes)
    deadline = time.monotonic() + _PAUSE + _DEADLINE
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
    return [_Answer(**json.loads(text)) if text.endswith(b"\n") else None for text in said]


def _figures(samples: Sequence[tuple[float, str]]) -> tuple[float | None, int | None]:
    """Requests in a second, without those that the looks took, and open files without the one that was looked at."""
    requests = [_sum(text, "potofs_requests_total") for _, text in samples]
    open_files = _sum(samples[-1][1], "potofs_open_files") if samples else None
    if len(requests) < 3:
        return None, None if open_files is None else max(0, int(open_files) - 1)
    first, second, last = requests
    rate = None
    if first is not None and second is not None and last is not None:
        rate = max(0.0, last - second - (second - first)) / (samples[2][0] - samples[1][0])
    return rate, None if open_files is None else max(0, int(open_files) - 1)


def _sum(text: str, name: str) -> float | None:
    """All of a metric together, over its labels; None if it is not there."""
    values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", text, re.MULTILINE)
    return sum(map(float, values)) if values else None
