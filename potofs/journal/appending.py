"""How bytes that somebody writes piece by piece become messages: one appender for each opened handle.

A write stores every record whose terminator it brings, all in one append, before it returns. The rest waits here. When
the handle is closed, a waiting tail is stored if it is a whole message; what is no message in the end is set aside.
While that cannot be done it is kept, as much as there is room for, until the next append comes through. A write that
fails stores nothing of itself, and the writes after it fail up to the next terminator, so that no record is ever put
together around a hole.

Where an error leaves open whether something was stored, trying again with the same bytes does not store it twice
(`doubt`); a message that was left without its terminator is tried again here, until the handle is closed.

No threads, no I/O of its own: what it needs of the journal are two functions.
"""

import logging
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from potofs.backends.base import Record
from potofs.config import MAX_MESSAGE_BYTES
from potofs.errors import InvalidMessage, MessageTooLarge, NotReplicated, PotofsError, WouldBlock
from potofs.journal import admission, reading, stream
from potofs.journal.doubt import Doubts, Find, Stamps, Tried, leaves_doubt, said

log = logging.getLogger(__name__)

# Below this, what waits is looked at after every write (bytes); above, whenever it has grown by half.
_CHEAP_TO_CHECK = 1 << 15
# A kernel cuts a write into as much at least, where it cuts one (bytes): 32 pages, less where it begins within one.
_CUT = (1 << 17) - (1 << 12)
# The most that one handle keeps of what could not be set aside (bytes of memory), however long an outage lasts.
_MOST_REFUSED = 16 << 20


class Commit(Protocol):
    """Stores records, all or none; with wait=False it raises WouldBlock instead of waiting."""

    def __call__(self, records: Sequence[Record], *, wait: bool) -> object: ...


class SetAside(Protocol):
    """Keeps bytes that are no message, or, `in_doubt`, may be of one that is stored; returns the name."""

    def __call__(self, data: bytes, *, in_doubt: bool) -> str: ...


class _Refused(NamedTuple):
    """What is to be set aside."""

    data: bytes
    in_doubt: bool


class _Failed(NamedTuple):
    """A write that left something in doubt, and what had been waiting before it."""

    before: bytes
    data: bytes
    #: How much of `before` was a whole message when one of several writers ended (bytes).
    whole: int


class Appender:
    """What one handle has written and not yet stored. To be used by one caller at a time."""

    def __init__(self, commit: Commit, set_aside: SetAside, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._commit = commit
        self._set_aside = set_aside
        self._max_bytes = max_bytes
        self._waiting = b""
        # How much of what waits has no terminator, and how much of it could still become a message (bytes).
        self._searched = 0
        self._checked = 0
        # How much of what waits was a whole message when one of several writers ended (bytes).
        self._whole = 0
        # What could be neither stored nor set aside, and its size (bytes of memory); tried again after the next commit.
        self._refused: deque[_Refused] = deque()
        self._refused_size = 0
        self._doubts = Doubts()
        self._stamps = Stamps()
        # The last write, if it failed and left something in doubt.
        self._failed: _Failed | None = None
        # While records are skipped after a failed write: the unfinished last line. None: nothing is skipped.
        self._skipped: bytes | None = None
        self._skips_too_large = False
        # How much the last write brought, if it was taken (bytes).
        self._taken = 0
        # What was refused last, up to a terminator, if it may have been cut from what was taken.
        self._refused_last = b""

    @property
    def waiting(self) -> int:
        """Bytes that were written and are not stored yet, or may not be."""
        return len(self._waiting) + sum(len(one.record.data) for one in self._doubts.owed)

    @property
    def held(self) -> int:
        """What it keeps, to be stored or set aside (bytes of memory)."""
        return self.waiting + self._refused_size

    @property
    def is_unsettled(self) -> bool:
        """Whether there is something that `close` has to store or to set aside."""
        return bool(self._refused or self._doubts.owed) or not stream.says_nothing(self._waiting)

    def write(self, data: bytes, *, wait: bool = True) -> None:
        """Takes in bytes and stores the records that they end.

        Raises InvalidMessage (MessageTooLarge) for what is no message or can become none, and what storing raises;
        nothing of `data` is stored then. After WouldBlock nothing has changed: call again with wait=True.
        """
        self._take_back(data)
        if self._skipped is not None or self._is_refused_again(data):
            # What is refused again may be written a third time.
            self._refuse((self._skipped or b"") + data, data if self._skipped is None else b"")
            kind = MessageTooLarge if self._skips_too_large else InvalidMessage
            raise kind("this belongs to a record that was refused: go on after the next --- line")
        self._refused_last = b""
        looked_at = self._searched, self._checked
        try:
            batch, rest = self._divided(self._waiting + data)
            if batch or self._doubts.come_first(rest):
                self._commit_and_settle(batch, wait)
        except WouldBlock:
            self._untry(looked_at)
            raise
        except (PotofsError, OSError) as error:
            if not wait and not stream.says_nothing(self._waiting):
                self._untry(looked_at)
                raise WouldBlock("setting aside what was waiting waits for the disk") from None
            if leaves_doubt(error):
                # Not now: it may be stored, as the next try will show; or whoever writes would wait for a second
                # deadline.
                self._put_aside_later(_Refused(self._waiting, in_doubt=True))
                self._failed = _Failed(self._waiting, data, self._whole)
            else:
                self._put_aside(self._waiting)
            self._refuse(self._waiting + data, data)
            self._skips_too_large = isinstance(error, MessageTooLarge)
            self._wait_for(b"")
            raise
        whole = 0 if batch else self._whole
        if batch:
            self._checked = 0
        self._wait_for(rest)
        self._whole = whole
        self._taken = len(data)

    def _untry(self, looked_at: tuple[int, int]) -> None:
        """What was written is given again, and looked at as if it had not been."""
        self._searched, self._checked = looked_at
        self._stamps.forget()

    def missed(self, data: bytes) -> None:
        """Notes a write that failed before it came here: as if it had been refused, so that there is no hole."""
        if self._skipped is not None:
            self._failed = None
            self._refuse(self._skipped + data, b"")
            return
        self._failed = _Failed(self._waiting, data, self._whole)
        self._put_aside_later(_Refused(self._waiting, in_doubt=False))
        self._refuse(self._waiting + data, data)
        self._skips_too_large = False
        self._wait_for(b"")

    def flush(self, *, wait: bool = True) -> None:
        """Stores what waits if it is a whole message.

        Raises InvalidMessage if it is none, and then it goes on waiting; and what storing raises. What that leaves in
        doubt is complete, and tried again when something else is stored, at the next flush, and at the close.
        """
        tail = self._waiting
        try:
            batch = [] if stream.says_nothing(tail) else [self._tail(tail)]
        except InvalidMessage:
            if not self._whole:
                # What is owed waits for nothing that comes behind it.
                self._store_tail([], tail, wait)
                raise
            # Two, and the second may be none.
            self._store_tail([self._tail(tail[: self._whole])], tail[self._whole :], wait)
            self.flush(wait=wait)
        else:
            self._store_tail(batch, b"", wait)

    def _store_tail(self, batch: Sequence[Tried], rest: bytes, wait: bool) -> None:
        if batch or self._doubts.owed:
            try:
                self._commit_and_settle(batch, wait, owed=True)
            except (PotofsError, OSError) as error:
                if leaves_doubt(error):
                    self._wait_for(rest)
                else:
                    self._stamps.forget()
                raise
        self._wait_for(rest)

    def pause(self) -> None:
        """Notes that one of several writers has ended: what waits may be a whole message, or others go on with it.

        Raises InvalidMessage if it is none yet.
        """
        if self._whole == len(self._waiting) or stream.says_nothing(self._waiting):
            return
        try:
            self._tail(self._waiting)
            self._whole = len(self._waiting)
            # What comes behind it may be another message, which is to be told soon.
            self._checked = 0
        except InvalidMessage:
            if not self._whole:
                raise
            # Behind the last pause there is another.
            self._tail(self._waiting[self._whole :])
        finally:
            self._stamps.forget()

    def close(self, *, tries: bool = True) -> None:
        """Sets aside what never became a message; raises OSError if even that cannot be.

        What a flush has left in doubt it `tries` once more to store, or sets aside, too.
        """
        # However much is kept already: this is all that comes.
        if self._doubts.owed:
            self._store_or_keep_owed(tries)
        if not stream.says_nothing(self._waiting):
            self._keep(_Refused(self._waiting, in_doubt=False))
        self._wait_for(b"")
        self._settle()

    def _store_or_keep_owed(self, tries: bool) -> None:
        owed = self._doubts.owed
        if tries:
            try:
                self._commit_and_settle([], wait=True)
                return
            except (PotofsError, OSError) as error:
                log.warning("a message that may be stored already could not be stored at the close: %s", error)
        self._doubts = Doubts()
        for one in owed:
            # With its timestamp: appended once more, it is known if it is there.
            self._keep(_Refused(one.record.data, in_doubt=True))

    def _take_back(self, data: bytes) -> None:
        """Forgets that the last write failed, if it comes again and its records may be stored: so there is no hole."""
        failed, self._failed = self._failed, None
        if failed is None or not data.startswith(failed.data):
            return
        if self._refused and self._refused[-1].data is failed.before:
            self._refused_size -= sys.getsizeof(self._refused.pop().data)
        self._skipped, self._refused_last = None, b""
        self._wait_for(failed.before)
        self._whole = failed.whole

    def _commit_and_settle(self, batch: Sequence[Tried], wait: bool, *, owed: bool = False) -> None:
        """Stores a batch, behind all that is owed; what is in doubt then is `owed`, or left to whoever wrote it."""
        if self._refused and not wait:
            raise WouldBlock("setting aside what was refused waits for the disk")
        try:
            self._commit([one.record for one in self._doubts.with_owed(batch)], wait=wait)
        except BaseException as error:
            if leaves_doubt(error):
                self._doubts.add(batch, owed=owed)
                self._stamps.keep()
            raise
        self._doubts.stored(batch)
        self._stamps.keep()
        # They are stored: that something else still is not says nothing of them. What `close` meets is told.
        with suppress(PotofsError, OSError):
            self._settle()

    def _settle(self) -> None:
        """Sets aside what was refused before; what cannot be stays."""
        while self._refused:
            data, in_doubt = self._refused[0]
            try:
                self._set_aside(data, in_doubt=in_doubt)
            except NotReplicated as error:
                # Once more it would be there twice.
                log.warning("what was set aside may be lost with the server that has it: %s", error)
            self._refused_size -= sys.getsizeof(self._refused.popleft().data)

    def _divided(self, buffer: bytes) -> tuple[list[Tried], bytes]:
        """The same as `_split`; what cannot go on behind a pause is a message of its own."""
        try:
            return self._split(buffer)
        except InvalidMessage:
            if not self._whole:
                raise
        self._searched = self._checked = 0
        tried_before = self._doubts.finder()
        first = self._tail(buffer[: self._whole], tried_before)
        batch, rest = self._split(buffer[self._whole :], tried_before)
        return [first, *batch], rest

    def _split(self, buffer: bytes, tried_before: Find | None = None) -> tuple[list[Tried], bytes]:
        """The records that end in the buffer, and what is left; raises InvalidMessage."""
        batch: list[Tried] = []
        start = 0
        tried_before = tried_before or self._doubts.finder()
        if stream.has_marker(buffer, stream.unsearched(buffer, self._searched)):
            for document in stream.ended(buffer):
                text = said(buffer[document.start : document.end])
                data = self._sized(buffer[start : document.stop])
                tried = tried_before(text)
                batch.append(tried or Tried(text, self._stamps.record(admission.from_bytes, data)))
                start = document.stop
        rest = self._sized(buffer[start:])
        if len(rest) > _CHEAP_TO_CHECK and stream.says_nothing(rest):
            rest = rest[_last_line(rest) :]  # So many markers and blank lines would be searched again each time.
        self._refuse_hopeless(rest, 0 if batch else self._checked)
        return batch, rest

    def _tail(self, tail: bytes, tried_before: Find | None = None) -> Tried:
        """What waits, as a record; raises InvalidMessage."""
        record = self._stamps.record(admission.from_tail, tail)
        (document,) = stream.documents(tail)
        text = said(tail[document.start : document.end])
        return (tried_before or self._doubts.finder())(text) or Tried(text, record)

    def _sized(self, data: bytes) -> bytes:
        return admission.sized(data, self._max_bytes)

    def _refuse_hopeless(self, tail: bytes, checked: int) -> None:
        """Raises InvalidMessage if no continuation could make a message of the complete lines of the tail."""
        if _CHEAP_TO_CHECK < len(tail) < checked * 3 // 2:
            return
        lines = tail[: tail.rfind(b"\n") + 1]
        for document in stream.documents(lines):
            reading.refuse_hopeless(lines[document.start : document.end])
        self._checked = len(tail)

    def _wait_for(self, rest: bytes) -> None:
        self._waiting = rest
        self._whole = 0
        self._searched = len(rest)
        if not rest:
            self._checked = 0

    def _refuse(self, data: bytes, last: bytes) -> None:
        """Notes that data were refused; skipping is over once they end in a terminator.

        `last` is what of them came last. A kernel cuts a large write, and whoever is told that its first part was taken
        writes the rest once more. It is answered likewise: behind that terminator it could be taken for a record of its
        own.
        """
        ended = data[_last_line(data.rstrip(b"\r\n")) :]
        # No marker's line is longer than this, but for blanks that nobody writes.
        self._skipped = None if stream.ends_in_marker(ended) else data[_last_line(data) :][:64]
        may_be_cut = self._taken >= _CUT or bool(self._refused_last)
        self._refused_last = last if self._skipped is None and may_be_cut else b""
        self._taken = 0

    def _is_refused_again(self, data: bytes) -> bool:
        if not self._refused_last:
            return False
        is_cut_elsewhere = len(data) > _CHEAP_TO_CHECK and self._refused_last.startswith(data)
        return is_cut_elsewhere or data.startswith(self._refused_last)

    def _put_aside_later(self, refused: _Refused) -> None:
        data = refused.data
        if stream.says_nothing(data):
            return
        if self._refused_size + sys.getsizeof(data) > _MOST_REFUSED:
            log.error(
                "%d bytes that are no message are dropped: what could not be set aside before takes %d bytes already",
                len(data),
                self._refused_size,
            )
            return
        self._keep(refused)

    def _keep(self, refused: _Refused) -> None:
        self._refused.append(refused)
        self._refused_size += sys.getsizeof(refused.data)

    def _put_aside(self, data: bytes) -> None:
        if stream.says_nothing(data):
            return
        try:
            self._set_aside(data, in_doubt=False)
        except (PotofsError, OSError) as error:
            log.warning("%d bytes that are no message could not be set aside yet: %s", len(data), error)
            self._put_aside_later(_Refused(data, in_doubt=False))


def _last_line(data: bytes) -> int:
    """Where the last line begins; behind the data if they end in a line break."""
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
