"""What was said: one message of a conversation, as a frozen value that cannot be wrong."""

import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal, Self, get_args

import msgspec

from potofs import times
from potofs.backends.base import Mark
from potofs.errors import InvalidMessage
from potofs.journal import arguments, jsontext

Role = Literal["user", "assistant", "system", "tool"]
#: Who can speak: the document's user and assistant, and the two that every chat application also has.
ROLES: Final[tuple[str, ...]] = get_args(Role)

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
                f"timestamp has to be text, not {type(self.timestamp).__name__}: "
                + (
                    "give timestamp.astimezone(UTC).isoformat()"
                    if isinstance(self.timestamp, datetime)
                    else "write it like 2024-01-15T10:30:00.000Z"
                )
            )
        if self.timestamp and times.nanoseconds(self.timestamp) is None:
            raise InvalidMessage(
                f"timestamp {self.timestamp!r:.40} is not a time: write it like 2024-01-15T10:30:00.000Z"
            )
        if self.metadata is not None and not isinstance(self.metadata, dict):
            raise InvalidMessage(f"metadata has to be a mapping, not {type(self.metadata).__name__}")
        if not isinstance(self.extra, dict):
            raise InvalidMessage(f"extra has to be a mapping, not {type(self.extra).__name__}")
        if self.extra and not _FIELDS.isdisjoint(self.extra):
            # In a record the key would stand twice, and nobody could read it.
            raise InvalidMessage("extra is for other keys than role, content, timestamp and metadata")

    def to_items(self) -> dict[str, Any]:
        """The document's form as one mapping: the four keys that are there, then the others."""
        items: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.timestamp:
            items["timestamp"] = self.timestamp
        if self.metadata is not None:
            items["metadata"] = self.metadata
        return {**items, **self.extra}

    @classmethod
    def from_items(cls, items: Mapping[str, Any]) -> Self:
        """The message of such a mapping; raises InvalidMessage, and TypeError for what is no mapping."""
        if not isinstance(items, Mapping):
            raise arguments.wrong_type("items", items, "a mapping", "ChatMessage.from_json takes text")
        for key in ("role", "content"):
            if key not in items:
                raise InvalidMessage(f"the key {key} is missing")
        extra = {key: value for key, value in items.items() if key not in _FIELDS}
        return cls(items["role"], items["content"], items.get("timestamp", ""), items.get("metadata"), extra)

    def to_json(self) -> str:
        """The document's form on one line; what JSON itself does not have is written as in `jsontext`."""
        return jsontext.dumps(self.to_items())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The message of such a text; raises InvalidMessage, and TypeError for what is no text."""
        if not isinstance(text, str):
            raise arguments.wrong_type("text", text, "text", "ChatMessage.from_items takes a mapping")
        try:
            items = jsontext.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidMessage(error.msg, line=error.lineno, column=error.colno) from None
        if not isinstance(items, dict):
            raise InvalidMessage("a message has to be an object")
        return cls.from_items(items)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the document's form."""
        return msgspec.json.schema(Annotated[_Form, msgspec.Meta(title=cls.__name__)])


class _Form(msgspec.Struct):
    """What a message looks like as JSON: beside these four, it may have any key."""

    role: Role
    content: str
    timestamp: str = ""
    metadata: dict[str, Any] | None = None


def mark(message: ChatMessage) -> Mark:
    """What a backend is told of a message; one given twice is known by the digest of role, content and timestamp."""
    digest = blake2b(digest_size=16)
    # Roles and timestamps never hold a NUL, so the three parts cannot run into each other.
    digest.update(f"{message.role}\0{message.timestamp}\0".encode())
    digest.update(message.content.encode())
    return Mark(digest.digest(), times.nanoseconds(message.timestamp))
