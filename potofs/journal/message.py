"""What was said: one message of a conversation, as a frozen value that cannot be wrong."""

from hashlib import blake2b
from typing import Any, Final

import msgspec

from potofs import times
from potofs.backends.base import Mark
from potofs.errors import InvalidMessage

#: Who can speak: the document's user and assistant, and the two that every chat application also has.
ROLES: Final = ("user", "assistant", "system", "tool")

_FIELDS = frozenset({"role", "content", "timestamp", "metadata"})


class ChatMessage(msgspec.Struct, frozen=True):
    """One message; raises InvalidMessage when made of what no conversation can hold.

    Source: ChatMessage of the dialogue journal's design document, with two more roles.
    """

    #: One of ROLES.
    role: str
    #: What was said; any Unicode text, empty included.
    content: str
    #: ISO 8601, kept as it was given. Empty means: not given, and appending puts in the time at which it happens.
    timestamp: str = ""
    #: model, tokens, processingTime (milliseconds), sessionId, and whatever else the application wants to keep.
    metadata: dict[str, Any] | None = None
    #: Keys beside these four, kept as they were found.
    extra: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidMessage(f"role {self.role!r:.40} is unknown: it has to be one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise InvalidMessage(f"content has to be text, not {type(self.content).__name__}")
        try:
            self.content.encode()
        except UnicodeEncodeError as error:
            raise InvalidMessage(
                f"content has a lone surrogate U+{ord(self.content[error.start]):04X} at character {error.start}, "
                "which is no text: decode it as UTF-16, or replace it"
            ) from None
        if not isinstance(self.timestamp, str):
            raise InvalidMessage(
                f"timestamp has to be text, not {type(self.timestamp).__name__}: write it like 2024-01-15T10:30:00.000Z"
            )
        if self.timestamp and times.nanoseconds(self.timestamp) is None:
            raise InvalidMessage(
                f"timestamp {self.timestamp!r:.40} is not a time: write it like 2024-01-15T10:30:00.000Z"
            )
        if self.metadata is not None and not isinstance(self.metadata, dict):
            raise InvalidMessage(f"metadata has to be a mapping, not {type(self.metadata).__name__}")
        if self.extra and not _FIELDS.isdisjoint(self.extra):
            # In a record the key would stand twice, and nobody could read it.
            raise InvalidMessage("extra is for other keys than role, content, timestamp and metadata")


def mark(message: ChatMessage) -> Mark:
    """What a backend is told of a message; one given twice is known by the digest of role, content and timestamp."""
    digest = blake2b(digest_size=16)
    # Roles and timestamps never hold a NUL, so the three parts cannot run into each other.
    digest.update(f"{message.role}\0{message.timestamp}\0".encode())
    digest.update(message.content.encode())
    return Mark(digest.digest(), times.nanoseconds(message.timestamp))
