"""Whole conversations out of a file, one a line, as JSON:

    {"user": "mia", "conversation": "refund", "messages": [{"role": "user", "content": "…", "timestamp": "…"}, …]}

Several conversations of one user become archives, called by `conversation` (or by the time of their last message), in
the order of the file; the last stays the running one, unless the user has a running one of their own. What is stored
already, whole, is left alone: the same file can be imported again, and an import that was cut short is finished so.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec

from potofs import names, times
from potofs.backends.base import Archived, Backend
from potofs.errors import AlreadyExists, InvalidMessage, InvalidName, NameTooLong, NotFound, PotofsError, reason
from potofs.journal import admission
from potofs.journal.journal import DialogueJournal
from potofs.journal.message import ChatMessage


class _Line(msgspec.Struct):
    user: str
    messages: list[dict[str, Any]]
    conversation: str | None = None


class Imported(msgspec.Struct, frozen=True):
    """What an import did."""

    #: Conversations and messages that are new in the journal.
    conversations: int
    messages: int
    #: Conversations that were there already.
    present: int


_decode = msgspec.json.Decoder(_Line).decode
_KEYS = ("role", "content", "timestamp", "metadata")


def import_file(journal: DialogueJournal, path: str, progress: Callable[[int], None] = lambda _: None) -> Imported:
    """Imports a file; raises InvalidMessage with the line for a bad one, before anything is stored, and OSError.

    What the journal's place refuses on the way (a full disk) is a PotofsError that says how far it came; importing the
    same file again goes on from there.

    `progress` is told how many bytes were done; the file is read twice, first to look at all of it.
    """
    last: dict[str, int] = {}
    for number, size, line in _lines(path):
        last[line.user] = number
        _data(line, number)
        progress(size)
    conversations = messages = present = 0
    for number, size, line in _lines(path):
        try:
            is_new = _store(journal, line, _data(line, number), is_last=last[line.user] == number)
        except OSError as error:
            raise PotofsError(
                f"line {number}: {reason(error)}; the conversations before it are imported: "
                "mend that, and import the same file again"
            ) from error
        if is_new:
            conversations += 1
            messages += len(line.messages)
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
            if text.isspace():
                continue
            try:
                line = _decode(text)
                names.encode(line.user)
                if line.conversation is not None:
                    names.archive_file(line.conversation)
            except (msgspec.DecodeError, UnicodeDecodeError, InvalidName, NameTooLong) as error:
                raise InvalidMessage(f"line {number}: {error}") from None
            if not line.messages:
                raise InvalidMessage(f"line {number}: a conversation without messages")
            yield number, len(text), line


def _data(line: _Line, number: int) -> bytes:
    """The conversation as it will be stored."""
    records = []
    for position, items in enumerate(line.messages, 1):
        try:
            for key in _KEYS[:3]:
                if not isinstance(items.get(key), str) or (key == "timestamp" and not items[key]):
                    raise InvalidMessage(f"the key {key} has to be there, and text")
            metadata = items.get("metadata")
            if not isinstance(metadata, dict | None):
                raise InvalidMessage("the key metadata has to be an object")
            extra = {key: value for key, value in items.items() if key not in _KEYS}
            message = ChatMessage(items["role"], items["content"], items["timestamp"], metadata, extra)
            records.append(admission.from_message(message).data)
        except InvalidMessage as error:
            raise InvalidMessage(f"line {number}, message {position}: {error}") from None
    return b"".join(records)


def _store(journal: DialogueJournal, line: _Line, data: bytes, *, is_last: bool) -> bool:
    """Stores a conversation unless it is there; whether it was new."""
    backend = journal.backend
    journal.ensure_user(line.user)
    when = max(times.nanoseconds(message["timestamp"]) or 0 for message in line.messages)
    while True:
        archives = backend.archives(line.user)
        if _is_stored(backend, line.user, archives, data):
            return False
        if is_last:
            # Unless the user talks to somebody right now: then it becomes an archive like the others.
            with suppress(AlreadyExists):
                backend.put_current(line.user, data, when)
                return True
        taken = {archive.name for archive in archives}
        name = names.first_free(line.conversation or times.compact(when), taken.__contains__)
        # Another import may be as quick, of the same file even: then look again.
        with suppress(AlreadyExists):
            backend.put_archive(line.user, name, data, when)
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
