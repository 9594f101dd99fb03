"""How bytes become messages, tolerantly: whatever YAML 1.2 writers produce is read, damage is named and stepped over.

Three ways lead to the same message, quickest first: the record format's own (`record.decode`), JSON for a document that
begins with `{`, and libyaml for everything else.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

from potofs.backends.base import Mark
from potofs.errors import InvalidMessage
from potofs.journal import record, yamldoc
from potofs.journal.message import ROLES, ChatMessage, mark
from potofs.journal.stream import Document, documents

# An escape in JSON; grouped, if it stands for a surrogate.
_ESCAPE = re.compile(r"\\(?:(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)")
_KNOWN = ("role", "content", "timestamp", "metadata")


class Damage(msgspec.Struct, frozen=True):
    """Bytes of a conversation that are no message."""

    #: Where they begin in the conversation, and how many they are (bytes).
    offset: int
    length: int
    reason: str
    #: Whether they are the conversation's unterminated end: an append that was cut off.
    torn: bool


def parse(document: bytes) -> ChatMessage:
    """The message of one document, without its terminator; the timestamp is empty if it has none.

    Raises InvalidMessage with the reason.
    """
    text = text_of(document)
    message = record.decode(text)
    if message is None and text.lstrip(" \t\r\n")[:1] == "{":
        message = _from_json(text)
    return message or _from_mapping(yamldoc.load(text).items)


def text_of(document: bytes) -> str:
    """A document as text, its byte order mark taken off; raises InvalidMessage if it is not UTF-8."""
    try:
        return document.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = document[: error.start].decode().removeprefix("\ufeff")
        line, column = yamldoc.place_of(before, len(before))
        raise InvalidMessage(f"not UTF-8: {error.reason}", offset=error.start, line=line, column=column) from None


def refuse_hopeless(lines: bytes) -> None:
    """Raises InvalidMessage if complete lines, the first of a document, can become no message whatever follows."""
    text = text_of(lines)
    if text.lstrip(" \t\r\n")[:1] == "{":
        # JSON's way to write an emoji, which only JSON's parser takes; whether it is JSON shows at the end.
        text = _ESCAPE.sub(lambda found: f"?{found[1]}" if found[1] else found[0], text)
    try:
        mapping = yamldoc.load(text)
    except yamldoc.Broken as error:
        if not error.at_end:
            raise
        return
    if mapping.flow:
        # Closed, so that nothing can be added.
        _from_mapping(mapping.items)
    elif mapping.items:
        # The value of the last key may go on; the others will not change any more.
        *settled, _ = mapping.items.items()
        _from_mapping({"role": yamldoc.Scalar(ROLES[0], True), "content": yamldoc.Scalar("", True), **dict(settled)})


def read(data: bytes, base: int = 0) -> Iterator[ChatMessage | Damage]:
    """What a conversation's bytes hold, in order: messages, and the damage between them.

    `base` is the offset of `data` in the conversation. An unterminated end counts as a message if it ends in a
    newline and has everything that a message needs.
    """
    return (entry(data, document, base) for document in documents(data))


def entry(data: bytes, document: Document, base: int = 0) -> ChatMessage | Damage:
    """What one document of a conversation's bytes is; for the rest as `read`."""
    try:
        message = parse(data[document.start : document.end])
        if not message.timestamp:
            raise InvalidMessage("the key timestamp is missing")
        if not document.terminated and data[-1:] not in b"\r\n":
            raise InvalidMessage("the end is missing: no newline, no ---")
    except InvalidMessage as error:
        return _damage(document, base, str(error))
    return message


def messages(data: bytes) -> Iterator[ChatMessage]:
    """Only the messages of a conversation's bytes."""
    return (entry for entry in read(data) if isinstance(entry, ChatMessage))


def marks(data: bytes) -> Iterator[Mark]:
    """One mark a message: what a backend asks about its bytes."""
    return map(mark, messages(data))


def _damage(document: Document, base: int, reason: str) -> Damage:
    return Damage(base + document.start, document.stop - document.start, reason, torn=not document.terminated)


class _NotOurJson(Exception):
    """JSON that the YAML parser has to decide upon."""


# libyaml wants a key and its colon on one line, within 1024 characters.
_SPREAD_KEY = re.compile(r'"[ \t\r\n]+:')
# A key in escapes only is twelve times as long as its text.
_LONG_KEY = 1000 // 12


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) != len(pairs) or max(map(len, items), default=0) > _LONG_KEY:
        raise _NotOurJson
    return items


def _constant(name: str) -> NoReturn:
    # NaN and Infinity are no JSON; in YAML they are text.
    raise _NotOurJson


_JSON = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _from_json(text: str) -> ChatMessage | None:
    """The message of a JSON document; None where it is none, or one that only YAML's rules can decide upon."""
    # A tab that begins a line is no white space to libyaml.
    if _SPREAD_KEY.search(text) or "\t" in text[: text.index("{")]:
        return None
    try:
        items = _JSON.decode(text)
    except (ValueError, RecursionError, _NotOurJson):
        return None
    # What JSON takes for a number or a null in these places is text to us: libyaml keeps it as it was written.
    if not all(isinstance(items.get(key, ""), str) for key in _KNOWN[:3]):
        return None
    if not _fits(items, yamldoc.DEPTH + 1):
        return None
    if r"\u" in text:
        _refuse_surrogates(items)
    return _message(items, items.get("metadata"))


def _fits(value: Any, depth: int) -> bool:
    """Whether a value is nested no deeper than that."""
    if isinstance(value, dict):
        return depth > 0 and all(_fits(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_fits(item, depth - 1) for item in value)
    return True


def _refuse_surrogates(items: dict[str, Any]) -> None:
    """Raises InvalidMessage for a lone surrogate: JSON's escapes can write one, UTF-8 cannot."""
    try:
        json.dumps(items, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise InvalidMessage(f"a lone surrogate U+{code:04X} is no text: decode it as UTF-16, or replace it") from None


def _from_mapping(items: dict[str, yamldoc.Node]) -> ChatMessage:
    values: dict[str, Any] = {}
    for key, node in items.items():
        if key in _KNOWN[:3]:
            if not isinstance(node, yamldoc.Scalar):
                raise InvalidMessage(f"{key} has to be text, not a {_kind(node)}")
            # Always the text, whatever type it looks like: somebody said `yes`, not true.
            values[key] = node.text
        else:
            values[key] = _plain_value(node)
    return _message(values, values.get("metadata"))


def _message(items: dict[str, Any], metadata: Any) -> ChatMessage:
    for key in ("role", "content"):
        if key not in items:
            raise InvalidMessage(f"the key {key} is missing")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidMessage(f"metadata has to be a mapping, not a {_kind(metadata)}")
    extra = {key: value for key, value in items.items() if key not in _KNOWN}
    return ChatMessage(items["role"], items["content"], items.get("timestamp", ""), metadata, extra)


def plain_values(items: dict[str, yamldoc.Node]) -> dict[str, Any]:
    """The values of a mapping by YAML's core schema."""
    return {key: _plain_value(value) for key, value in items.items()}


def _plain_value(node: yamldoc.Node) -> Any:
    if isinstance(node, yamldoc.Scalar):
        return node.value()
    if isinstance(node, dict):
        return plain_values(node)
    return [_plain_value(value) for value in node]


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "mapping"
    return "sequence" if isinstance(value, list) else "scalar"
