"""What was given to the journal and may be stored or not: no answer came in time, a disk failed behind the write.

A message with a timestamp is known by it when it is given once more. One without gets the present time, a later one at
the next try, and would be stored twice. So an appender remembers the records that it left in doubt: as long as nothing
else has been stored since, the same text that comes again is a second try, and becomes the same record.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from potofs import times
from potofs.backends.base import Fingerprint, Record
from potofs.errors import Fenced, InvalidMessage, WouldBlock

# What is remembered of writes that failed one after another (bytes): as much as the kernel writes at once. The last
# one is remembered whatever its size.
_MOST = 1 << 20


class Tried(NamedTuple):
    """A record, and the text that it was made of."""

    #: The document as it was written, without the blank lines before it and the marker behind it.
    text: bytes
    record: Record


#: Finds what was tried of a text.
Find = Callable[[bytes], Tried | None]


def leaves_doubt(error: BaseException) -> bool:
    """Whether what was to be stored may be, after this error. These say that nothing was done."""
    return not isinstance(error, WouldBlock | InvalidMessage | Fenced)


def said(text: bytes) -> bytes:
    """A document's text without what one try may have before it and the other not."""
    return text.lstrip(b"\r\n")


class Doubts:
    """What one appender has left in doubt."""

    def __init__(self) -> None:
        #: To be tried again by the appender itself: whoever wrote it has closed his descriptor, and may be gone.
        self.owed: list[Tried] = []
        # Of writes that failed: whoever wrote it was told, and may try again; oldest first, and its size (bytes).
        self._failed: deque[Tried] = deque()
        self._size = 0

    def finder(self) -> Find:
        """Finds what was tried of a text, each no more than once."""
        if not self.owed and not self._failed:
            return lambda text: None
        left: defaultdict[bytes, deque[Tried]] = defaultdict(deque)
        for one in (*self.owed, *self._failed):
            left[one.text].append(one)
        return lambda text: left[text].popleft() if left.get(text) else None

    def come_first(self, rest: bytes) -> bool:
        """Whether something is owed, and a text that is not complete yet cannot become it."""
        return bool(self.owed) and not any(_may_become(said(rest), one.text) for one in self.owed)

    def with_owed(self, batch: Sequence[Tried]) -> list[Tried]:
        """What is owed and not in a batch, and then the batch."""
        return [*self._not_in(batch, self.owed), *batch]

    def add(self, batch: Sequence[Tried], *, owed: bool) -> None:
        """A batch may be stored or not."""
        known = set(map(id, (*self.owed, *self._failed)))
        # From now on it is a second try.
        doubtful = [one if id(one) in known else Tried(one.text, one.record._replace(retry=True)) for one in batch]
        if owed:
            self._failed = deque(self._not_in(doubtful, self._failed))
            self.owed = [*self._not_in(doubtful, self.owed), *doubtful]
        else:
            self._failed.extend(one for one in doubtful if id(one) not in known)
        self._size = sum(map(_size, self._failed))
        while self._size > _MOST and len(self._failed) > len(batch):
            self._size -= _size(self._failed.popleft())

    def stored(self, batch: Sequence[Tried]) -> None:
        """A batch that somebody wrote is stored, with all that was owed.

        If there was anything new in it, no second try is waited for any more; else those that did not come yet may.
        """
        if not self.owed and not self._failed:
            return
        known = set(map(id, (*self.owed, *self._failed)))
        all_known = all(id(one) in known for one in batch)
        self._failed = deque(self._not_in(batch, self._failed) if all_known else ())
        self.owed = []
        self._size = sum(map(_size, self._failed))

    @staticmethod
    def _not_in(batch: Sequence[Tried], several: Iterable[Tried]) -> list[Tried]:
        there = set(map(id, batch))
        return [one for one in several if id(one) not in there]


class Stamps:
    """Makes records, and the times that they lack: never two alike of the same text.

    Within a millisecond somebody may say the same twice; should one be in doubt then, it would be taken for the other.
    """

    def __init__(self) -> None:
        # In which millisecond (nanoseconds since 1970), what was stamped in it, and what of that may come to nothing.
        self._present: int | None = None
        self._stamped: set[Fingerprint] = set()
        self._last: set[Fingerprint] = set()

    def record(self, admit: Callable[[bytes, str], Record], data: bytes) -> Record:
        """What `admit` makes of bytes and of the time to be added (empty: the present); raises what it raises."""
        record = admit(data, "")
        if record.retry or record.mark.time_ns is None:
            return record
        if record.mark.time_ns != self._present:
            self._present, self._stamped, self._last = record.mark.time_ns, set(), set()
        if record.mark.fingerprint in self._stamped:
            # Behind the milliseconds, so that they stay in their order.
            record = admit(data, f"{times.iso(self._present).removesuffix('Z')}{len(self._stamped):06d}Z")
        self._stamped.add(record.mark.fingerprint)
        self._last.add(record.mark.fingerprint)
        return record

    def keep(self) -> None:
        """What was stamped last was tried."""
        self._last = set()

    def forget(self) -> None:
        """What was stamped last was not tried: the same will be stamped again."""
        self._stamped -= self._last
        self._last = set()


def _may_become(rest: bytes, text: bytes) -> bool:
    """Whether bytes are the beginning of a text, or it and of the marker behind it."""
    return text.startswith(rest) or (rest.startswith(text) and b"---".startswith(rest[len(text) :].strip(b"\r\n")))


def _size(one: Tried) -> int:
    return len(one.text) + len(one.record.data)
