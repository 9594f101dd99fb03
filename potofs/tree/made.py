"""What is made when somebody looks, and is then the same for everybody for a moment.

So the size that one request is told is that of what the next one reads, and many who look cost no more than one.
"""

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

# How long what was made stands after it was made or opened (seconds), for whoever asked for the size or is about to.
_STANDS = 1.0

Data = TypeVar("Data")


class Contents(NamedTuple, Generic[Data]):
    """What was made."""

    data: Data
    #: When it was first made as it is (nanoseconds since 1970).
    mtime_ns: int


class Made(Generic[Data]):
    """Something of that kind. Thread-safe."""

    def __init__(
        self,
        make: Callable[[], Data],
        changed: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
        stands: float = _STANDS,
    ) -> None:
        """`stands`: how long it stands (seconds); after twice as long it is made anew for whoever opens it."""
        self._make, self._changed, self._clock, self._stands = make, changed, clock, stands
        # Whoever comes while it is made waits, and gets the same.
        self._guard = threading.Lock()
        self._made_at = self._stands_until = 0.0
        # How often making it has ended, and what the last one raised.
        self._ended = 0
        self._failure: Exception | None = None
        #: As it was made last; None if it never was.
        self.last: Contents[Data] | None = None

    def look(self, *, opens: bool = False) -> Contents[Data]:
        """What was made, anew unless it stands; raises what making it does.

        Whoever `opens` it is going to ask for the size once more: for that it stands for a moment longer.
        """
        ended = self._ended
        with self._guard:
            if self._failure is not None and self._ended != ended:
                # Made while we waited: trying once more would have those who wait fail one after the other.
                raise self._failure.with_traceback(None)
            now = self._clock()
            last = self.last
            stands = now < self._stands_until and not (opens and now >= self._made_at + 2 * self._stands)
            if last is None or not stands:
                last = self.last = self._made(last)
                now = self._made_at = self._clock()
                self._stands_until = now + self._stands
            elif opens:
                self._stands_until = now + self._stands
            return last

    def _made(self, last: Contents[Data] | None) -> Contents[Data]:
        try:
            data = self._make()
        except Exception as error:
            self._failure = error
            raise
        else:
            self._failure = None
        finally:
            self._ended += 1
        return last if last is not None and last.data == data else Contents(data, self._changed())
