"""What in a message's JSON text is wrong, and where: the value, or the key, that is no good even by itself.

Asked only once a message is known to be wrong, so it may look at parts of it again and again. A part is tried inside a
message that is well but for it; and if it is wrong, so are its own parts, down to the smallest.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from potofs.errors import InvalidMessage
from potofs.journal import admission, jsontext
from potofs.journal.message import ChatMessage
from potofs.journal.yamldoc import DEPTH

#: A time that every message may have.
TIME: Final = "2024-01-15T10:30:00.000Z"

#: Tries a value in its place; raises InvalidMessage if it cannot stand there.
Check = Callable[[Any], object]
#: Finds the mistake in the value that begins at a character of a text; None if there is none.
Find = Callable[[str, int], "Mistake | None"]

_SPACE = re.compile(r"[ \t\r\n]*+")
# A value and where it ends, whatever it says.
_raw_value = json.JSONDecoder().raw_decode


class Mistake(NamedTuple):
    """What is wrong."""

    #: Where it begins, in characters of the text.
    at: int
    reason: str


class Part(NamedTuple):
    """A value in an array or in an object, and where it begins; in an object also its key."""

    at: int
    key: str | None = None
    key_at: int = 0


def needs_time(timestamp: str) -> None:
    """Raises InvalidMessage for a message without a timestamp: a second import would not know it again."""
    if not timestamp:
        raise InvalidMessage("the key timestamp is missing or empty")


def _time(value: Any) -> None:
    needs_time(value)
    ChatMessage("user", "", value)


def _extra(key: str) -> Check:
    return lambda value: admission.from_message(ChatMessage("user", "", TIME, None, {key: value}))


def by(check: Check) -> Find:
    """Finds what a check refuses."""
    return lambda text, at: in_value(text, at, check)


#: What the keys of a message are tried with, each by itself.
_KEYS: Final[dict[str, Find]] = {
    "role": by(lambda value: ChatMessage(value, "", TIME)),
    "content": by(lambda value: admission.from_message(ChatMessage("user", value, TIME))),
    "timestamp": by(_time),
    "metadata": by(lambda value: admission.from_message(ChatMessage("user", "", TIME, value))),
}


def in_message(text: str, at: int, error: InvalidMessage) -> Mistake:
    """The first mistake in the message that begins at a character of a JSON text.

    It is the error that the message gave, where no part of it is wrong by itself.
    """
    return (in_object(text, at, _KEYS, _extra) if text[at] == "{" else None) or Mistake(at, error.reason)


def in_object(
    text: str, at: int, keys: dict[str, Find], other: Callable[[str], Check], depth: int = DEPTH
) -> Mistake | None:
    """The first mistake in an object or an array: some keys have their own way to find it, the others are checked."""
    seen: set[str] = set()
    for part in parts(text, at):
        key = part.key
        if key is not None and key in seen:
            return Mistake(part.key_at, f"the key {key!r:.40} stands twice")
        if key is not None:
            seen.add(key)
        if key is not None and key in keys:
            mistake = keys[key](text, part.at)
        else:
            check = other(key or "")
            # With another value, too: then it is the key.
            if key is not None and (error := _error(check, None)):
                return Mistake(part.key_at, error.reason)
            mistake = in_value(text, part.at, check, depth)
        if mistake:
            return mistake
    return None


def in_value(text: str, at: int, check: Check, depth: int = DEPTH) -> Mistake | None:
    """The smallest part of a value that is wrong; None if the check takes the value."""
    try:
        value, _ = jsontext.read(text, at)
        error = _error(check, value)
    except InvalidMessage as unreadable:
        error = unreadable
    if error is None:
        return None
    whole = Mistake(at, error.reason)
    # Of a wrong kind, or too deep already: then no part of it is to blame.
    if not depth or text[at] not in "{[" or _error(check, {} if text[at] == "{" else []):
        return whole
    inside: Callable[[str], Check] = (
        (lambda key: lambda value: check({key: value})) if text[at] == "{" else (lambda _: lambda value: check([value]))
    )
    return in_object(text, at, {}, inside, depth - 1) or whole


def _error(check: Check, value: Any) -> InvalidMessage | None:
    try:
        check(value)
    except InvalidMessage as error:
        return error
    return None


def parts(text: str, at: int) -> Iterator[Part]:
    """The parts of the object or array that begins here, up to one that nobody can read."""
    is_object = text[at] == "{"
    try:
        at = _after_space(text, at + 1)
        while text[at] not in "}]":
            key, key_at = None, at
            if is_object:
                key, end = _raw_value(text, at)
                at = _after_space(text, _after_space(text, end) + 1)
            yield Part(at, key, key_at)
            _, end = _raw_value(text, at)
            at = _after_space(text, end)
            if text[at] == ",":
                at = _after_space(text, at + 1)
    except (ValueError, IndexError, RecursionError):
        return


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # it matches nothing, too
    return found.end()
