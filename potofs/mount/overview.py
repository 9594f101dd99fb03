"""What is mounted here and how it is: the mounts of this system, the daemons that serve them, and how busy they are."""

import errno
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from potofs.mount import asking, mountpoints, running
from potofs.mount.asking import Answer

# How long is counted (seconds).
_PAUSE = 0.5
# More than one look takes (requests).
_LOOK = 10

#: `ok` answers; `dead` was left behind by a daemon that was killed; `hung` does not answer in time; `closed` lets this
#: user look at nothing; `failing` answers with an error.
State = Literal["ok", "dead", "hung", "closed", "failing"]
_STATES: Mapping[int, State] = {
    0: "ok",
    # It answers that there is no such thing.
    errno.ENOENT: "ok",
    **dict.fromkeys(asking.GONE, "dead"),
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
    answers = asking.ask([mount.mountpoint for mount in found], _PAUSE)
    return [_overview(mount, answer) for mount, answer in zip(found, answers, strict=True)]


def _overview(mount: mountpoints.Mount, answer: Answer | None) -> Overview:
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


def _figures(samples: Sequence[tuple[float, str]]) -> tuple[float | None, int | None]:
    """Requests in a second, without those that the looks took, and open files without the one that was looked at."""
    requests = [_sum(text, "potofs_requests_total") for _, text in samples]
    open_files = _sum(samples[-1][1], "potofs_open_files") if samples else None
    if len(requests) < 3:
        return None, None if open_files is None else max(0, int(open_files) - 1)
    first, second, last = requests
    rate = None
    if first is not None and second is not None and last is not None:
        # Between the first two, others may have asked for more than a look does.
        look = min(second - first, _LOOK)
        rate = max(0.0, last - second - look) / (samples[2][0] - samples[1][0])
    return rate, None if open_files is None else max(0, int(open_files) - 1)


def _sum(text: str, name: str) -> float | None:
    """All of a metric together, over its labels; None if it is not there."""
    values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", text, re.MULTILINE)
    # What somebody else mounted may say anything.
    with suppress(ValueError, OverflowError):
        total = math.fsum(map(float, values))
        return total if values and math.isfinite(total) else None
    return None
