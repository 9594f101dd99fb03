"""The figures of a user that are derived from what was said: counts, times, tokens.

Reckoned once for each conversation and remembered; a running one is caught up from where it was. Of a user's archives,
which may be any number, only the sum is remembered, and what tells them from others.
"""

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from potofs import times
from potofs.backends.base import PIECE, RECORD_END, Backend, Reader, Stat, up_to_error, whole_records
from potofs.errors import NotFound
from potofs.journal.message import ChatMessage
from potofs.journal.reading import messages

# Conversations remembered, those asked for last (some 700 bytes each), archives only if they are asked for alone.
_CONVERSATIONS = 1 << 16
# Users of whose archives something is remembered (some 500 bytes each, and 8 for each archive).
_USERS = 1 << 14
# How much of the bytes accounted for has to be where it was; a conversation's number may come again, with other bytes.
_SEEN = 256
# Figures are exact below this; what is larger counts nothing.
_LARGEST = 1 << 53


class _Known(NamedTuple):
    """What is remembered of a conversation."""

    #: Bytes accounted for (a record ends there), and the last of them.
    covered: int
    seen: bytes
    summary: "Summary"


class _Archives(NamedTuple):
    """What is remembered of a user's archives."""

    #: A hash of each, of what an archive's state is told from another by: id, size, time of last append.
    states: "array[int]"
    #: Over all of them.
    summary: "Summary"


class Summary(msgspec.Struct, frozen=True):
    """Figures over messages; two of them add up."""

    user_messages: int = 0
    assistant_messages: int = 0
    other_messages: int = 0
    #: Sum of metadata.tokens.
    tokens: int = 0
    #: Sum of metadata.processingTime of the assistant's messages (milliseconds), and how many had one.
    response_time: float = 0
    responses: int = 0
    #: The earliest and the latest timestamp (nanoseconds since 1970).
    first_ns: int | None = None
    last_ns: int | None = None

    @property
    def messages(self) -> int:
        return self.user_messages + self.assistant_messages + self.other_messages

    def __add__(self, other: "Summary") -> "Summary":
        firsts = [time for time in (self.first_ns, other.first_ns) if time is not None]
        lasts = [time for time in (self.last_ns, other.last_ns) if time is not None]
        return Summary(
            self.user_messages + other.user_messages,
            self.assistant_messages + other.assistant_messages,
            self.other_messages + other.other_messages,
            self.tokens + other.tokens,
            self.response_time + other.response_time,
            self.responses + other.responses,
            min(firsts, default=None),
            max(lasts, default=None),
        )


def of_message(message: ChatMessage) -> Summary:
    """The figures of one message."""
    metadata = message.metadata or {}
    tokens = _number(metadata.get("tokens"))
    response_time = _number(metadata.get("processingTime")) if message.role == "assistant" else None
    moment = times.nanoseconds(message.timestamp)
    return Summary(
        user_messages=message.role == "user",
        assistant_messages=message.role == "assistant",
        other_messages=message.role not in {"user", "assistant"},
        tokens=tokens if isinstance(tokens, int) else 0,
        response_time=response_time or 0,
        responses=response_time is not None,
        first_ns=moment,
        last_ns=moment,
    )


def _number(value: object) -> int | float | None:
    """A figure that can be added up: metadata may hold anything, infinity and NaN included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < _LARGEST else None


def _state(stat: Stat) -> int:
    return hash((stat.id, stat.size, stat.mtime_ns))


_NOTHING = _Known(0, b"", Summary())
_NO_ARCHIVES = _Archives(array("q"), Summary())


class Summaries:
    """The figures of users of one backend; thread-safe."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._guard = threading.Lock()
        # By conversation's number.
        self._known: OrderedDict[int, _Known] = OrderedDict()
        # By user.
        self._archives: OrderedDict[str, _Archives] = OrderedDict()

    def of_user(self, user: str) -> Summary:
        """The figures over the running conversation and all archives of a user."""
        running, summary = None, Summary()
        # First: archived meanwhile, it is known by its number; the other way round it might be missed.
        with suppress(NotFound), self._backend.open(user) as reader:
            running, summary = reader.stat().id, self._of_conversation(reader)
        return summary + self._of_archives(user, running)

    def _of_archives(self, user: str, running: int | None) -> Summary:
        """The figures over a user's archives, but for one that was the `running` conversation just now."""
        there = {_state(one.stat): one.name for one in self._backend.archives(user) if one.stat.id != running}
        remembered, summary = self._archives.get(user, _NO_ARCHIVES)
        states = set(remembered)
        if not states <= there.keys():
            # What one that is gone had in the sum nobody knows any more.
            states, summary = set(), Summary()
        try:
            for new in there.keys() - states:
                with suppress(NotFound), self._backend.open(user, there[new]) as reader:
                    # It may be another one that is called so by now.
                    state, conversation = _state(reader.stat()), reader.stat().id
                    if state not in states and conversation != running:
                        summary += self._of_conversation(reader, is_kept=False)
                        states.add(state)
        finally:
            # Also of those that were read before one that could not be.
            with self._guard:
                self._archives[user] = _Archives(array("q", states), summary)
                self._archives.move_to_end(user)
                if len(self._archives) > _USERS:
                    self._archives.popitem(last=False)
        return summary

    def of_conversation(self, user: str, archive: str | None) -> Summary:
        """The figures over one conversation; raises NotFound."""
        with self._backend.open(user, archive) as reader:
            return self._of_conversation(reader)

    def _of_conversation(self, reader: Reader, *, is_kept: bool = True) -> Summary:
        conversation, size, *_ = reader.stat()
        known = self._known.get(conversation, _NOTHING)
        start = known.covered - len(known.seen)
        data = reader.read(start, max(0, min(size - start, PIECE)))
        if size < known.covered or not data.startswith(known.seen):
            known, start, data = _NOTHING, 0, reader.read(0, min(size, PIECE))
        if start + len(data) >= size:
            pieces: Iterable[bytes] = [data[len(known.seen) :]]
        else:
            # Of a damaged one what is before the damage counts.
            pieces = up_to_error(whole_records(reader.read, known.covered, size))
        behind = Summary()
        for piece in pieces:
            whole = piece.rfind(RECORD_END) + len(RECORD_END) if RECORD_END in piece else 0
            summary = sum(map(of_message, messages(piece[:whole])), known.summary)
            seen = (known.seen + piece[max(0, whole - _SEEN) : whole])[-_SEEN:]
            known = _Known(known.covered + whole, seen, summary)
            # There are some behind the last piece only.
            behind = sum(map(of_message, messages(piece[whole:])), Summary())
        with self._guard:
            self._known.pop(conversation, None)
            if is_kept:
                self._known[conversation] = known
            if len(self._known) > _CONVERSATIONS:
                self._known.popitem(last=False)
        return known.summary + behind
