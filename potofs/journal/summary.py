"""The figures of a user that are derived from what was said: counts, times, tokens.

Reckoned once for each conversation and remembered; a running one is caught up from where it was.
"""

import threading
from collections import OrderedDict

import msgspec

from potofs import times
from potofs.backends.base import RECORD_END, Backend, Reader
from potofs.errors import NotFound
from potofs.journal.message import ChatMessage
from potofs.journal.reading import messages

# Conversations remembered, those asked for last (some 200 bytes each).
_CONVERSATIONS = 1 << 16


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
    tokens = metadata.get("tokens")
    response_time = metadata.get("processingTime") if message.role == "assistant" else None
    responded = isinstance(response_time, int | float)
    moment = times.nanoseconds(message.timestamp)
    return Summary(
        user_messages=message.role == "user",
        assistant_messages=message.role == "assistant",
        other_messages=message.role not in {"user", "assistant"},
        tokens=tokens if isinstance(tokens, int) else 0,
        response_time=response_time if responded and response_time else 0,
        responses=responded,
        first_ns=moment,
        last_ns=moment,
    )


class Summaries:
    """The figures of users of one backend; thread-safe."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._guard = threading.Lock()
        # By conversation: the bytes accounted for, a record ends there, and what they hold.
        self._known: OrderedDict[int, tuple[int, Summary]] = OrderedDict()

    def of_user(self, user: str) -> Summary:
        """The figures over the running conversation and all archives of a user."""
        total = Summary()
        for archive in [None, *(archive.name for archive in self._backend.archives(user))]:
            try:
                with self._backend.open(user, archive) as reader:
                    total += self._of_conversation(reader)
            except NotFound:
                continue
        return total

    def _of_conversation(self, reader: Reader) -> Summary:
        conversation, size, *_ = reader.stat()
        covered, summary = self._known.get(conversation, (0, Summary()))
        if covered > size:
            covered, summary = 0, Summary()
        new = reader.read(covered, size - covered)
        whole = new.rfind(RECORD_END) + len(RECORD_END) if RECORD_END in new else 0
        summary = sum(map(of_message, messages(new[:whole])), summary)
        with self._guard:
            self._known[conversation] = covered + whole, summary
            self._known.move_to_end(conversation)
            if len(self._known) > _CONVERSATIONS:
                self._known.popitem(last=False)
        return sum(map(of_message, messages(new[whole:])), summary)
