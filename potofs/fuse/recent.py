"""What was a moment ago, and may be on its way still."""

import time

# How long after the kernel was told of something it may still come for it (seconds). It remembers the name of a running
# conversation for no time at all, so a busy machine is all that lies between.
_ON_ITS_WAY = 2.0


class Recent:
    """Numbers to which something has just happened."""

    def __init__(self) -> None:
        # When that was (seconds, monotonic); the longest ago first, and of others only what nobody has asked for.
        self._moments: dict[int, float] = {}

    def note(self, number: int) -> None:
        """It has happened to a number; those to which it did long ago are forgotten."""
        self._moments.pop(number, None)
        while self._moments:
            oldest = next(iter(self._moments))
            if is_recent(self._moments[oldest]):
                break
            del self._moments[oldest]
        self._moments[number] = time.monotonic()

    def forget(self, number: int) -> None:
        """It counts no more."""
        self._moments.pop(number, None)

    def take(self, number: int) -> bool:
        """Whether it has just happened to a number; it counts no more."""
        return is_recent(self._moments.pop(number, None))

    def is_noted(self, number: int) -> bool:
        """Whether it is known that it has happened to a number, however long ago."""
        return number in self._moments

    def __contains__(self, number: int) -> bool:
        return is_recent(self._moments.get(number))


def is_recent(moment: float | None) -> bool:
    """Whether what was then (seconds, monotonic) may be on its way still."""
    return moment is not None and time.monotonic() - moment < _ON_ITS_WAY
