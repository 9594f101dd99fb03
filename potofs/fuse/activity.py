"""What a mount is asked and how it answers, counted.

This is on the path of every request, so it is a few lookups in plain dictionaries, all on trio's thread. `metrics`
makes a text of it when somebody reads one.
"""

from bisect import bisect_left
from typing import Final

#: Where the pieces of the histogram of answers end (seconds): from what memory takes to more than any deadline.
BOUNDS: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Operation:
    """One kind of request."""

    __slots__ = ("failures", "pieces", "seconds")

    def __init__(self) -> None:
        #: How many were answered in the time up to each of BOUNDS, and last, later.
        self.pieces = [0] * (len(BOUNDS) + 1)
        #: What all of them took.
        self.seconds = 0.0
        #: How many were answered with an errno.
        self.failures: dict[int, int] = {}


class Activity:
    """The requests of one mount."""

    def __init__(self) -> None:
        #: By the operation's name. A dictionary is never changed, but replaced: it may be gone over in any thread.
        self.operations: dict[str, Operation] = {}

    def answered(self, operation: str, seconds: float, errno: int = 0) -> None:
        """A request was answered after so long, with an errno if it failed. On trio's thread only."""
        found = self.operations.get(operation)
        if found is None:
            found = Operation()
            self.operations = {**self.operations, operation: found}
        found.pieces[bisect_left(BOUNDS, seconds)] += 1
        found.seconds += seconds
        if errno:
            found.failures = {**found.failures, errno: found.failures.get(errno, 0) + 1}
