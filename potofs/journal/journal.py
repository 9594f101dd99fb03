"""DialogueJournal: the conversations of users, whatever backend has their bytes.

Synchronous and thread-safe. Source: the DialogueJournal interface of the design document.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Self, TypeVar

from potofs import config, names
from potofs.backends.base import Appended, Backend, Capability, Finding, Record
from potofs.backends.registry import open_backend
from potofs.config import Where
from potofs.errors import AlreadyExists, NotFound, PotofsError, Unsupported
from potofs.journal import admission, arguments, cleaning, fsck, listing, metadata, piping, ranges, reading
from potofs.journal.appending import Appender
from potofs.journal.exchange import Format, exporting, intake
from potofs.journal.message import ChatMessage
from potofs.journal.models import (
    ArchivedConversation,
    CleanupOptions,
    CleanupResult,
    DialogueJournalStats,
    User,
    id_of,
)
from potofs.journal.reading import Damage
from potofs.journal.summary import Summaries
from potofs.journal.tally import Tally

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class DialogueJournal:
    """A journal on one backend. Close it, or use it as a context manager.

    A user is a PotoUser or its id. Whatever the backend's place refuses (a full disk, missing rights) comes through as
    OSError; every change raises Fenced while none is taken, and Unsupported is for what this backend cannot do. An
    argument of a wrong type is a TypeError that names it. Once it is closed, every operation raises PotofsError, and so
    does an iterator that is read on.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._summaries = Summaries(backend)
        self._is_closed = False

    @property
    def backend(self) -> Backend:
        """The bytes, for those who show them as they are; raises PotofsError once the journal is closed."""
        # Every operation begins here, so none goes on with a backend that was let go of.
        self._check_open()
        return self._backend

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this backend can do of what not every backend can."""
        return self._backend.capabilities

    # Users

    def users(self) -> Iterator[str]:
        """The ids of all users, in no order."""
        return self._while_open(self.backend.users())

    def create_user(self, user: User) -> None:
        """Makes a user without conversations; raises AlreadyExists, InvalidName, NameTooLong."""
        user = id_of(user)
        names.encode(user)  # Before the profile, which would call it a message's mistake.
        self.backend.create_user(user, metadata.new_profile(user))

    def must_have_user(self, user: User) -> None:
        """Raises NotFound if there is no such user."""
        if not self.backend.has_user(id_of(user)):
            raise NotFound(f"there is no user {id_of(user)!r}")

    def ensure_user(self, user: User) -> None:
        """Makes a user unless there is one."""
        if not self.backend.has_user(id_of(user)):
            # Somebody else's first message may be quicker.
            with suppress(AlreadyExists):
                self.create_user(user)

    def user_metadata(self, user: User) -> bytes:
        """metadata.yaml of a user, figures and all; reckoned from the conversations where they are not known yet."""
        return metadata.render(self.backend, self._summaries, id_of(user))

    # Conversations

    def get_conversation(self, user: User) -> list[ChatMessage]:
        """The messages of the running conversation; none if there is none.

        Damage in it is stepped over and logged; `read_conversation` returns it.
        """
        found = []
        for entry in reading.read(self.read_bytes(user)):
            if isinstance(entry, Damage):
                log.warning("user %r: damage at byte %d: %s", id_of(user), entry.offset, entry.reason)
            else:
                found.append(entry)
        return found

    def read_conversation(self, user: User, archive: str | None = None) -> Iterator[ChatMessage | Damage]:
        """What the running conversation or an archive holds, in order: messages, and damage with its place.

        Raises NotFound for an archive that is not there; OSError behind what can be read of a damaged archive.
        """
        try:
            return self._while_open(reading.read(self.read_bytes(user, archive)))
        except OSError:
            return self._while_open(self._entries(user, archive))

    def read_bytes(self, user: User, archive: str | None = None) -> bytes:
        """The same as it is stored; empty if there is no running conversation."""
        arguments.optional_text("archive", archive)
        try:
            with self.backend.open(id_of(user), archive) as reader:
                return reader.read_all()
        except NotFound:
            if archive is None:
                return b""
            raise

    def read_range(self, user: User, offset: int, size: int, archive: str | None = None) -> bytes:
        """So many bytes of the same from an offset on, without the rest; fewer, or none, where it ends before."""
        arguments.optional_text("archive", archive)
        for name, value in (("offset", offset), ("size", size)):
            arguments.number(name, value)
            if value < 0:
                raise PotofsError(f"{name}: expected 0 or more, got {value}")
        try:
            with self.backend.open(id_of(user), archive) as reader:
                return reader.read(offset, size)
        except NotFound:
            if archive is None:
                return b""
            raise

    def read_pieces(self, user: User, archive: str | None = None) -> Iterator[bytes]:
        """The same in pieces; raises OSError behind what can be read of a damaged archive."""
        try:
            yield self.read_bytes(user, archive)
        except OSError:
            with self.backend.open(id_of(user), archive) as reader:
                offset, size = 0, reader.stat().size
                while piece := reader.read(offset, min(ranges.RANGE, size - offset)):
                    yield piece
                    offset += len(piece)

    def _entries(self, user: User, archive: str | None) -> Iterator[ChatMessage | Damage]:
        with self.backend.open(id_of(user), archive) as reader:
            yield from ranges.entries(reader)

    def add_message(self, user: User, message: ChatMessage) -> None:
        """Appends a message; stored when this returns. Raises InvalidMessage.

        Without a timestamp it gets the present time. With one, it is stored only once: giving it again, after an error
        or a timeout, adds nothing.
        """
        self.append(user, [admission.from_message(_checked(message))])

    def add_messages(self, user: User, messages: Iterable[ChatMessage]) -> None:
        """Appends messages, all or none, with nobody else's between them; otherwise as `add_message`."""
        given = arguments.several("messages", messages, "ChatMessage")
        self.append(user, [admission.from_message(_checked(message)) for message in given])

    def append(self, user: User, records: Sequence[Record], *, wait: bool = True) -> Appended:
        """Appends records, all or none; raises WouldBlock instead of waiting for another writer if told to."""
        for record in records:
            if not isinstance(record, Record):
                raise arguments.wrong_type("records", record, "Records", "add_messages takes ChatMessages")
        self.ensure_user(user)
        return self.backend.append(id_of(user), records, wait=wait)

    def append_pieces(self, user: User, pieces: Iterable[bytes]) -> None:
        """Appends a user's records as they come out of a pipe, up to the first mistake: `piping.append_pieces`."""
        given = arguments.several("pieces", pieces, "bytes")
        piping.append_pieces(lambda records: self.append(user, records), given)

    def appender(self, user: User, tally: Tally | None = None) -> Appender:
        """Takes a user's records as bytes, in any pieces; `tally` counts what is taken in."""
        id_of(user)
        self._check_open()

        def commit(records: Sequence[Record], *, wait: bool) -> Appended:
            appended = self.append(user, records, wait=wait)
            if tally is not None:
                tally.appended(records, appended)
            return appended

        def set_aside(data: bytes, *, in_doubt: bool) -> str:
            name = self.backend.set_aside(id_of(user), data)
            what = "may be of a message that is stored already" if in_doubt else "are no message"
            log.warning("user %r: %d bytes that %s are kept in rejected/%s", id_of(user), len(data), what, name)
            if tally is not None:
                tally.rejected()
            return name

        return Appender(commit, set_aside)

    def clear_conversation(self, user: User) -> None:
        """Ends the running conversation; the next message begins a new one. Without a running one, does nothing.

        Where there is archival it becomes an archive, called by the present time. Where there is none, as in memory,
        its messages are forgotten.
        """
        with suppress(NotFound):
            if Capability.ARCHIVAL in self.backend.capabilities:
                self.backend.archive(id_of(user))
            else:
                self.backend.clear(id_of(user))

    # Archives: Unsupported where there is no archival

    def archive_conversation(self, user: User, conversation_id: str | None = None, *, wait: bool = True) -> str:
        """Turns the running conversation into an archive, called by the present time unless it is given a name.

        Returns the name. Raises NotFound if there is none, AlreadyExists, InvalidName.
        """
        arguments.optional_text("conversation_id", conversation_id)
        return self.backend.archive(id_of(user), conversation_id, wait=wait)

    def get_archived_conversations(self, user: User) -> list[ArchivedConversation]:
        """The archives of a user, first archived first; their figures are remembered, not reckoned each time."""
        if Capability.ARCHIVAL not in self.backend.capabilities:
            raise Unsupported("this backend has no archival: it cannot list archives")
        return listing.archives(self.backend, self._summaries, id_of(user))

    def restore_conversation(self, user: User, archive_id: str) -> str | None:
        """Turns an archive into the running conversation; a running one becomes an archive first.

        Returns the name of that one, called by the present time; None if there was none. Raises NotFound.
        """
        arguments.text("archive_id", archive_id)
        names.archive_file(archive_id)  # Before anything makes way for it.
        return self.backend.restore(id_of(user), archive_id)

    # Figures and upkeep

    def get_stats(self) -> DialogueJournalStats:
        """The figures over all users."""
        return listing.stats(self.backend, cleaning.last_in_log(self.backend))

    def cleanup(self, options: CleanupOptions | None = None) -> CleanupResult:
        """Archives what is idle, compresses old archives, counts what is past a limit; deletes nothing.

        By default with the configuration's defaults. What the backend cannot do is left out. The mistakes of one user
        do not stop the others; they are counted, and logged. It may be stopped anywhere, and run twice at once. What it
        did is one line of the journal's cleanup.log, unless nothing was to be changed.
        """
        if options is None:
            options = CleanupOptions()
        elif not isinstance(options, CleanupOptions):
            raise arguments.wrong_type(
                "options", options, "CleanupOptions", "CleanupOptions.from_json makes them of the document's JSON"
            )
        return cleaning.clean(self.backend, options)

    def fsck(
        self,
        users: Iterable[User] | None = None,
        *,
        repair: bool = False,
        on_user: Callable[[str], object] = lambda _: None,
    ) -> Iterator[Finding]:
        """What is wrong with what is stored, of all users or some, and mends it if told to: `fsck.check`.

        Nothing is lost by that: what is no message goes to `rejected/`. Happens as the findings are taken.
        """
        ids = None if users is None else map(id_of, arguments.several("users", users, "users"))
        return self._while_open(fsck.check(self.backend, ids, repair=repair, on_user=on_user))

    # Export and import: the formats are described in `potofs.journal.exchange`

    def export_conversation(self, user: User, format: Format) -> str:  # noqa: A002  (the document's name)
        """The running conversation as a file's text, `json` or `csv`; raises ConfigError for another format."""
        return "".join(self.export_pieces(user, format))

    def export_pieces(self, user: User, format: Format, archive: str | None = None) -> Iterator[str]:  # noqa: A002
        """The same piece by piece, for a conversation of any size, or for an archive: `exporting.export`."""
        arguments.text("format", format)
        arguments.optional_text("archive", archive)
        return self._while_open(exporting.export(self.backend, id_of(user), format, archive))

    def import_conversation(self, user: User, data: str | bytes, format: Format) -> bool:  # noqa: A002
        """Adds the messages of an exported file that the user does not have yet; whether there were any.

        Raises InvalidMessage with line and column, and stores nothing, if anything in it is wrong.
        """
        if not isinstance(data, str | bytes):
            raise arguments.wrong_type("data", data, "text, or bytes of UTF-8")
        return self.import_pieces(user, [data], format) > 0

    def import_pieces(self, user: User, pieces: Iterable[bytes | str], format: Format) -> int:  # noqa: A002
        """The same for a file of any size, as pieces of UTF-8 or text: `intake.take_in`. Returns how many were new."""
        given = arguments.several("pieces", pieces, "bytes or text")
        arguments.text("format", format)
        return intake.take_in(self.backend, id_of(user), given, format, lambda: self.ensure_user(user))

    def close(self) -> None:
        """Lets go of the backend; a second time does nothing. Ends no operation of another thread: end those before."""
        if not self._is_closed:
            self._is_closed = True
            self._backend.close()

    def _while_open(self, results: Iterator[Result]) -> Iterator[Result]:
        """The same results; reading on once the journal is closed raises PotofsError."""
        for result in results:
            yield result
            self._check_open()

    def _check_open(self) -> None:
        if self._is_closed:
            raise PotofsError("the journal is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_journal(where: str | Where, *, create: bool = True) -> DialogueJournal:
    """The journal at a URL such as file:///var/lib/poto, made if it is not there and `create` is not False.

    Raises ConfigError for a place or setting that cannot be, NotFound, OSError; PotofsError for the backend of another
    package that cannot be loaded.
    """
    if isinstance(where, str):
        where = config.parse(where)
    elif not isinstance(where, Where):
        raise arguments.wrong_type(
            "where", where, "a backend's URL or a Where", 'write "file:///var/lib/poto", or config.root(folder)'
        )
    backend = open_backend(where, reading.marks)
    backend.prepare(create=create)
    return DialogueJournal(backend)


def _checked(message: ChatMessage) -> ChatMessage:
    """A message; raises TypeError for anything else, however much it looks like one."""
    if isinstance(message, ChatMessage):
        return message
    raise arguments.wrong_type(
        "message",
        message,
        "a ChatMessage",
        "ChatMessage.from_json makes one of the document's JSON, ChatMessage.from_items of a mapping",
    )
