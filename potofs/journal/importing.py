"""Whole conversations out of a file, one a line, as JSON:

    {"user": "mia", "conversation": "refund", "messages": [{"role": "user", "content": "…", "timestamp": "…"}, …]}

Several conversations of one user become archives, called by `conversation` (or by the time of their last message), in
the order of the file; the last stays the running one, unless the user has a running one of their own. What is stored
already, whole, is left alone: the same file can be imported again, and an import that was cut short is finished so.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec

from potofs import names, times
from potofs.backends.base import Archived, Backend, Record
from potofs.errors import AlreadyExists, InvalidMessage, InvalidName, NameTooLong, NotFound, PotofsError, reason
from potofs.journal import admission, jsontext
from potofs.journal.exchange import mistakes
from potofs.journal.exchange.mistakes import Mistake
from potofs.journal.exchange.text import Place
from potofs.journal.journal import DialogueJournal
from potofs.journal.message import ChatMessage

_ARRAY: Final = (
    "a conversation has to be an object, and an array begins here, as in an exported file: write each conversation "
    'on one line, {"user": "mia", "messages": […]}'
)


class _Line(NamedTuple):
    """A conversation, as it will be stored."""

    user: str
    conversation: str | None
    messages: int
    data: bytes
    #: When the latest message was said (nanoseconds since 1970).
    when: int


class Imported(msgspec.Struct, frozen=True):
    """What an import did."""

    #: Conversations and messages that are new in the journal.
    conversations: int
    messages: int
    #: Conversations that were there already.
    present: int


def import_file(journal: DialogueJournal, path: str, progress: Callable[[int], None] = lambda _: None) -> Imported:
    """Imports a file; raises InvalidMessage with line and column for a bad one, before anything is stored, and OSError.

    What the journal's place refuses on the way (a full disk) is a PotofsError that says how far it came; importing the
    same file again goes on from there.

    `progress` is told how many bytes were done; the file is read twice, first to look at all of it.
    """
    last: dict[str, int] = {}
    for number, size, line in _lines(path):
        last[line.user] = number
        progress(size)
    conversations = messages = present = 0
    for number, size, line in _lines(path):
        try:
            is_new = _store(journal, line, is_last=last[line.user] == number)
        except OSError as error:
            raise PotofsError(
                f"line {number}: {reason(error)}; the conversations before it are imported: "
                "mend that, and import the same file again"
            ) from error
        if is_new:
            conversations += 1
            messages += line.messages
        else:
            present += 1
        progress(size)
    return Imported(conversations, messages, present)


def size_of(path: str) -> int:
    """What `progress` adds up to (bytes)."""
    return 2 * os.path.getsize(path)


def _lines(path: str) -> Iterator[tuple[int, int, _Line]]:
    with open(path, "rb") as file:
        for number, text in enumerate(file, 1):
            if not text.isspace():
                yield number, len(text), _line(text, number)


def _line(line: bytes, number: int) -> _Line:
    """The conversation of a line; raises InvalidMessage with the line's number and the column."""
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise Place(number).after(line[: error.start].decode()).error(f"not UTF-8: {error.reason}") from None
    begin = len(text) - len(text.lstrip())
    if text[begin] == "[":
        # What `export` writes, mostly: an array over many lines, of which the first alone is not even JSON.
        raise Place(number, begin + 1).error(_ARRAY)
    try:
        return _conversation(jsontext.loads(text))
    except json.JSONDecodeError as error:
        is_cut = not text[error.pos :].strip()
        raise Place(number, error.colno).error(error.msg + "; a conversation stands on one line" * is_cut) from None
    except InvalidMessage as error:
        found = mistakes.in_object(text, begin, _KEYS, lambda _: _anything) if text[begin] == "{" else None
        at, why = found or Mistake(begin, error.reason)
        raise Place(number, at + 1).error(why) from None


def _conversation(items: Any) -> _Line:
    if not isinstance(items, dict):
        raise InvalidMessage("a conversation has to be an object")
    for key in ("user", "messages"):
        if key not in items:
            raise InvalidMessage(f"the key {key} is missing")
    user, conversation = items["user"], items.get("conversation")
    _user(user)
    _name(conversation)
    _messages(items["messages"])
    records = [_record(message) for message in items["messages"]]
    when = max(record.mark.time_ns or 0 for record in records)
    return _Line(user, conversation, len(records), b"".join([record.data for record in records]), when)


def _user(user: Any) -> None:
    _checked("user", user, names.encode)


def _name(conversation: Any) -> None:
    if conversation is not None:
        _checked("conversation", conversation, names.archive_file)


def _checked(key: str, value: Any, check: Callable[[str], object]) -> None:
    if not isinstance(value, str):
        raise InvalidMessage(f"{key} has to be text, not {type(value).__name__}")
    try:
        check(value)
    except (InvalidName, NameTooLong) as error:
        raise InvalidMessage(f"{key}: {error}") from None


def _messages(messages: Any) -> None:
    if not isinstance(messages, list):
        raise InvalidMessage(f"messages has to be an array, not {type(messages).__name__}")
    if not messages:
        raise InvalidMessage("a conversation without messages")


def _record(items: Any) -> Record:
    if not isinstance(items, dict):
        raise InvalidMessage("a message has to be an object")
    message = ChatMessage.from_items(items)
    mistakes.needs_time(message.timestamp)
    return admission.from_message(message)


def _in_messages(text: str, at: int) -> Mistake | None:
    """The first mistake in the array of messages that begins at a character of a line."""
    if text[at] == "[":
        for number, part in enumerate(mistakes.parts(text, at), 1):
            try:
                _record(jsontext.read(text, part.at)[0])
            except InvalidMessage as error:
                where, why = mistakes.in_message(text, part.at, error)
                return Mistake(where, f"message {number}: {why}")
    return mistakes.in_value(text, at, _messages)


def _anything(value: Any) -> None:
    """Keys beside the three say nothing to us, but what they hold has to be readable."""


_KEYS: Final[dict[str, mistakes.Find]] = {
    "user": mistakes.by(_user),
    "conversation": mistakes.by(_name),
    "messages": _in_messages,
}


def _store(journal: DialogueJournal, line: _Line, *, is_last: bool) -> bool:
    """Stores a conversation unless it is there; whether it was new."""
    backend = journal.backend
    journal.ensure_user(line.user)
    while True:
        archives = backend.archives(line.user)
        if _is_stored(backend, line.user, archives, line.data):
            return False
        if is_last:
            # Unless the user talks to somebody right now: then it becomes an archive like the others.
            with suppress(AlreadyExists):
                backend.put_current(line.user, line.data, line.when)
                return True
        taken = {archive.name for archive in archives}
        name = names.first_free(line.conversation or times.compact(line.when), taken.__contains__)
        # Another import may be as quick, of the same file even: then look again.
        with suppress(AlreadyExists):
            backend.put_archive(line.user, name, line.data, line.when)
            return True


def _is_stored(backend: Backend, user: str, archives: list[Archived], data: bytes) -> bool:
    """Whether one of a user's conversations begins with these bytes; it may have gone on since."""
    for archive in (None, *(archive.name for archive in archives if archive.stat.size >= len(data))):
        try:
            with backend.open(user, archive) as reader:
                if reader.read(0, len(data)) == data:
                    return True
        except NotFound:
            continue
    return False
