"""What the log is told of requests that failed: why, for whoever asked sees a number only.

An outage fails every request in the same way, thousands in a minute, and it is one thing to tell.
"""

import errno
import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

# For how long the same is told once, and how many different things of one errno (seconds).
_WHILE = 60.0
_DIFFERENT = 10


class _Lately:
    """What was told of one errno lately."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.told: set[str] = set()
        # How many failures were left out.
        self.untold = 0


class Complaints:
    """What the log is told of failures of one mount. On trio's thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lately: dict[int, _Lately] = {}

    def tell(self, operation: str, number: int, reason: str) -> None:
        """A request failed with this errno; what is left out is counted, and that is said with the next that is not."""
        now = self._clock()
        lately, before = self._lately.get(number), 0
        if lately is None or now - lately.since >= _WHILE:
            before = 0 if lately is None else lately.untold
            lately = self._lately[number] = _Lately(now)
        if reason in lately.told or len(lately.told) >= _DIFFERENT:
            lately.untold += 1
            return
        lately.told.add(reason)
        more = f" (and {before} more with {errno.errorcode.get(number, number)} before)" if before else ""
        log.warning("%s: %s%s", operation, reason, more)
