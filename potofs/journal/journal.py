"""DialogueJournal: the conversations of users, whatever backend has their bytes.

Synchronous and thread-safe. Source: the DialogueJournal interface of the design document.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Self

from potofs import config, names
from potofs.backends.base import Appended, Backend, Record
from potofs.backends.registry import open_backend
from potofs.config import Where
from potofs.errors import AlreadyExists, NotFound
from potofs.journal import admission, metadata, piping, reading
from potofs.journal.appending import Appender
from potofs.journal.message import ChatMessage
from potofs.journal.reading import Damage
from potofs.journal.summary import Summaries

log = logging.getLogger(__name__)


class DialogueJournal:
    """A journal on one backend. Close it, or use it as a context manager.

    Whatever the backend's place refuses (a full disk, missing rights) comes through as OSError.
    """

    def __init__(self, backend: Backend) -> None:
        #: The bytes, for those who show them as they are.
        self.backend = backend
        self._summaries = Summaries(backend)

    # Users

    def users(self) -> Iterator[str]:
        """The ids of all users, in no order."""
        return self.backend.users()

    def create_user(self, user: str) -> None:
        """Makes a user without conversations; raises AlreadyExists, InvalidName, NameTooLong."""
        names.encode(user)  # Before the profile, which would call it a message's mistake.
        self.backend.create_user(user, metadata.new_profile(user))

    def must_have_user(self, user: str) -> None:
        """Raises NotFound if there is no such user."""
        if not self.backend.has_user(user):
            raise NotFound(f"there is no user {user!r}")

    def ensure_user(self, user: str) -> None:
        """Makes a user unless there is one."""
        if not self.backend.has_user(user):
            # Somebody else's first message may be quicker.
            with suppress(AlreadyExists):
                self.create_user(user)

    def user_metadata(self, user: str) -> bytes:
        """metadata.yaml of a user, figures and all; reckoned from the conversations where they are not known yet."""
        return metadata.render(self.backend, self._summaries, user)

    # Conversations

    def get_conversation(self, user: str) -> list[ChatMessage]:
        """The messages of the running conversation; none if there is none.

        Damage in it is stepped over and logged; `read_conversation` returns it.
        """
        found = []
        for entry in self.read_conversation(user):
            if isinstance(entry, Damage):
                log.warning("user %r: damage at byte %d: %s", user, entry.offset, entry.reason)
            else:
                found.append(entry)
        return found

    def read_conversation(self, user: str, archive: str | None = None) -> Iterator[ChatMessage | Damage]:
        """What the running conversation or an archive holds, in order: messages, and damage with its place.

        Raises NotFound for an archive that is not there.
        """
        return reading.read(self.read_bytes(user, archive))

    def read_bytes(self, user: str, archive: str | None = None) -> bytes:
        """The same as it is stored; empty if there is no running conversation."""
        try:
            with self.backend.open(user, archive) as reader:
                return reader.read_all()
        except NotFound:
            if archive is None:
                return b""
            raise

    def add_message(self, user: str, message: ChatMessage) -> None:
        """Appends a message; stored when this returns. Raises InvalidMessage.

        Without a timestamp it gets the present time. With one, it is stored only once: giving it again, after an error
        or a timeout, adds nothing.
        """
        self.add_messages(user, [message])

    def add_messages(self, user: str, messages: Iterable[ChatMessage]) -> None:
        """Appends messages, all or none, with nobody else's between them; otherwise as `add_message`."""
        self.append(user, [admission.from_message(message) for message in messages])

    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        """Appends records, all or none; raises WouldBlock instead of waiting for another writer if told to."""
        self.ensure_user(user)
        return self.backend.append(user, records, wait=wait)

    def append_pieces(self, user: str, pieces: Iterable[bytes]) -> None:
        """Appends a user's records as they come out of a pipe, up to the first mistake: `piping.append_pieces`."""
        piping.append_pieces(lambda records: self.append(user, records), pieces)

    def appender(self, user: str) -> Appender:
        """Takes a user's records as bytes, in any pieces."""

        def commit(records: Sequence[Record], *, wait: bool) -> Appended:
            return self.append(user, records, wait=wait)

        def set_aside(data: bytes) -> str:
            name = self.backend.set_aside(user, data)
            log.warning("user %r: %d bytes that are no message are kept in rejected/%s", user, len(data), name)
            return name

        return Appender(commit, set_aside)

    def archive_conversation(self, user: str, conversation_id: str | None = None, *, wait: bool = True) -> str:
        """Turns the running conversation into an archive, called by the present time unless it is given a name.

        Returns the name. Raises NotFound if there is none, AlreadyExists, InvalidName.
        """
        return self.backend.archive(user, conversation_id, wait=wait)

    def close(self) -> None:
        """Lets go of the backend."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_journal(where: str | Where, *, create: bool = True) -> DialogueJournal:
    """The journal at a URL such as file:///var/lib/poto, made if it is not there and `create` is not False.

    Raises ConfigError for a place or setting that cannot be, NotFound, OSError.
    """
    if isinstance(where, str):
        where = config.parse(where)
    backend = open_backend(where, reading.marks)
    backend.prepare(create=create)
    return DialogueJournal(backend)
