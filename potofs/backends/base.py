"""What a backend is: bytes of conversations, and what may happen to them at once.

A backend stores for each user one running conversation and its archives, as bytes that it never looks into. What it
knows of a record is where it ends and its mark: what makes it the same message as another, and when it was said. To
know what its bytes hold (after a restart, or when another program appended) it asks the `scan` function that it was
opened with.

A new backend is one module with a subclass of `Backend`, and one entry in the group `potofs.backends`. It has to have
the abstract methods; what archives, restores and compresses it may leave out, and says so in its `capabilities`.
"""

import errno
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Literal, NamedTuple, NoReturn, Self, TypeVar

from potofs.config import Limits, Settings, Where
from potofs.errors import Fenced, NotFound, Unsupported

Item = TypeVar("Item")

#: What makes two records the same message, as the layer above decides it.
Fingerprint = bytes


class Mark(NamedTuple):
    """What a backend is told of a message."""

    fingerprint: Fingerprint
    #: When it was said (nanoseconds since 1970); None if nobody can tell.
    time_ns: int | None


#: The marks of all messages in a conversation's bytes, one a message, in order.
Scan = Callable[[bytes], Iterable[Mark]]


class Capability(Enum):
    """What not every backend can do; rows of the design document's capability matrix."""

    #: What was stored is there after a restart.
    PERSISTENCE = "persistence"
    #: Conversations can be archived and restored.
    ARCHIVAL = "archival"
    #: Archives can be compressed.
    COMPRESSION = "compression"


#: Every committed record ends in this.
RECORD_END = b"\n---\n"
#: Bytes of a conversation that are looked at at once.
PIECE = 1 << 22


def seam(tail: bytes) -> bytes:
    """What has to stand between a conversation that ends in `tail` (its last bytes) and the next record.

    Nothing after a whole record or at the beginning; else the marker, so that a torn tail stays by itself.
    """
    if not tail or tail.endswith(RECORD_END) or tail == RECORD_END[1:]:
        return b""
    return RECORD_END[1:] if tail.endswith(b"\n") else RECORD_END


def whole_records(read: Callable[[int, int], bytes], start: int, end: int) -> Iterator[bytes]:
    """A conversation's bytes from `start` to `end` in pieces that end in a record's end; what is behind the last of
    those comes last.

    `read` is asked for an offset and a size, as `Reader.read`. So a long conversation is never in memory as a whole.
    """
    waiting = b""
    while start < end:
        # A record longer than a piece is looked through again, but for twice as many bytes each time.
        data = read(start, min(end - start, max(PIECE, len(waiting))))
        if not data:
            break
        start += len(data)
        waiting += data
        stop = waiting.rfind(RECORD_END) + len(RECORD_END)
        if start < end and stop >= len(RECORD_END):
            yield waiting[:stop]
            waiting = waiting[stop:]
    if waiting:
        yield waiting


def up_to_error(items: Iterable[Item]) -> Iterator[Item]:
    """What comes before damage (EIO), which ends it; raises OSError otherwise."""
    try:
        yield from items
    except OSError as error:
        if error.errno != errno.EIO:
            raise


class Record(NamedTuple):
    """One message's bytes on their way in."""

    #: The document and its terminator.
    data: bytes
    mark: Mark
    #: Whether it may be a second try (its timestamp was given, not made up just now): then it is stored only once.
    retry: bool


def new_ones(records: Iterable[Record], was_given: Callable[[Record], bool]) -> list[Record]:
    """The records that are no second try of what was given before, or of one another."""
    fresh: list[Record] = []
    batch: set[Fingerprint] = set()
    for record in records:
        if not (record.retry and (record.mark.fingerprint in batch or was_given(record))):
            batch.add(record.mark.fingerprint)
            fresh.append(record)
    return fresh


class Stat(NamedTuple):
    """What is known of a conversation without reading it."""

    #: Its number for life, through archival and compression; an inode number, below 2^63.
    id: int
    #: Bytes, uncompressed.
    size: int
    #: Last append, nanoseconds since 1970.
    mtime_ns: int
    #: Last change of anything, its name included; nanoseconds since 1970.
    ctime_ns: int


class Archived(NamedTuple):
    """One archive in a listing."""

    name: str
    stat: Stat
    #: Bytes that it takes up where it is stored.
    stored_size: int


class Appended(NamedTuple):
    """What an append did."""

    #: Records stored, those left out as given before not counted.
    stored: int
    #: The archive that the conversation became, if it reached its threshold.
    archived_as: str | None


class Usage(NamedTuple):
    """How full the backend's place is, as statvfs(3) has it (blocks of `block_size` bytes)."""

    block_size: int
    blocks: int
    blocks_free: int
    blocks_available: int


class Totals(NamedTuple):
    """Figures over all users."""

    users: int
    #: Running conversations.
    conversations: int
    archives: int
    #: In all conversations, archives included.
    messages: int
    #: As they are stored.
    bytes: int
    #: When the earliest and the latest message was said (nanoseconds since 1970); None if there is none.
    first_ns: int | None
    last_ns: int | None


class Fence(NamedTuple):
    """Whether changes are taken: every one of them looks at it, under its lock or in its transaction."""

    state: Literal["open", "frozen", "moved"] = "open"
    #: Counts up whenever it is set.
    epoch: int = 0
    #: The URL of the journal that has taken over, if it is moved.
    moved_to: str = ""

    def check(self) -> None:
        """Raises Fenced unless it is open."""
        if self.state == "frozen":
            raise Fenced("the journal is frozen: nothing is changed until it is opened again")
        if self.state == "moved":
            raise Fenced(f"the journal has moved to {self.moved_to}: use that one")


class Finding(NamedTuple):
    """Something that is not as it should be, found by a check."""

    #: None: it is the whole journal's.
    user: str | None
    #: In which of the user's things, as `conversation_file` and the backend call them.
    place: str
    what: str
    #: Whether it is mended; nothing was lost by that.
    repaired: bool = False
    #: Where it begins in a conversation, and how long it is (bytes); None if it is about the whole.
    offset: int | None = None
    length: int | None = None

    def __str__(self) -> str:
        whose = "" if self.user is None else f"user {self.user!r}, "
        at = "" if self.offset is None else f", byte {self.offset}"
        return f"{whose}{self.place}{at}: {self.what}{' (repaired)' if self.repaired else ''}"


class Notice(NamedTuple):
    """What was changed of a user, other than what is in a conversation."""

    user: str
    #: Whether the user was added.
    is_new: bool = False
    #: Names of archives, and of what was set aside, that are no more or mean something else now.
    archives_gone: tuple[str, ...] = ()
    set_asides_gone: tuple[str, ...] = ()


def conversation_file(archive: str | None) -> str:
    """What a conversation is called in a finding: as the mount does."""
    return "current.yaml" if archive is None else f"archived/{archive}.yaml"


class Reader(ABC):
    """An opened conversation; it stays readable as it is, whatever becomes of its name."""

    #: Whether its size, or reading from it, takes long, as of what has to be inflated.
    blocks: bool = False

    @abstractmethod
    def stat(self) -> Stat:
        """Its present size and times."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; fewer only at the end."""

    @abstractmethod
    def close(self) -> None: ...

    def read_all(self) -> bytes:
        """All bytes that it has now."""
        return self.read(0, self.stat().size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def marks_of(reader: Reader, scan: Scan) -> Iterator[Mark]:
    """The marks of all messages that an opened conversation has now."""
    for piece in whole_records(reader.read, 0, reader.stat().size):
        yield from scan(piece)


class Snapshot(Reader):
    """Bytes that were made or read when they were opened."""

    def __init__(self, data: bytes, stat: Stat) -> None:
        self._data = data
        self._stat = stat

    def stat(self) -> Stat:
        return self._stat

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def close(self) -> None: ...


class Backend(ABC):
    """A place for conversations. Thread-safe and synchronous; OSError comes through as the system said it.

    `wait=False` asks for an answer without waiting: WouldBlock, with nothing done, if another writer is at work on
    the user, or if a disk has to be waited for that `append_blocks` does not speak of.
    A user need not exist to be appended to. NotFound names a user, conversation or archive that is not there.
    """

    capabilities: frozenset[Capability] = frozenset({Capability.PERSISTENCE, Capability.ARCHIVAL})
    #: What the configuration calls it; one of another package is called by its entry point.
    name: str = ""
    #: Where it is, as whoever opened it said.
    where: Where | None = None
    #: What it was told, defaults included; None where only the backend knows its settings.
    configured: Settings | None = None
    #: What it was told about clean-ups, which are the layer above's.
    limits: Limits = Limits()
    #: Whether everything waits for a network, reading too.
    blocks: bool = False
    #: Whether `append` waits for a disk or a network even when no other writer is there.
    append_blocks: bool = True
    #: Whether whoever opened a conversation to append calls `sync` when done.
    sync_on_close: bool = False

    @abstractmethod
    def prepare(self, *, create: bool) -> None:
        """Reaches its place, and makes it if told to; raises NotFound if it is not there, OSError if it cannot."""

    def hurry(self) -> None:  # noqa: B027  (only what waits for others cares)
        """From now on, what has just kept somebody waiting until a deadline gets little time from whoever comes next: a
        server that hangs, a writer that holds a lock.

        DeadlineExceeded comes soon then, and nothing is done. Told by a mount, where one request waits for another:
        programs would wait for one deadline after the other.
        """

    @property
    def patience(self) -> float:
        """How long a change waits for a server or for other writers (seconds); infinite where it waits for nobody."""
        return math.inf

    # Users

    @abstractmethod
    def users(self) -> Iterator[str]:
        """The ids of all users, in no order."""

    @abstractmethod
    def users_changed(self) -> int:
        """When a user was last added (nanoseconds since 1970); 0 if never."""

    @abstractmethod
    def has_user(self, user: str) -> bool: ...

    @abstractmethod
    def create_user(self, user: str, profile: bytes) -> None:
        """Makes a user without conversations, and with an empty profile without any; raises AlreadyExists."""

    @abstractmethod
    def user_changed(self, user: str) -> int:
        """When a conversation of the user came, went or was renamed (nanoseconds since 1970)."""

    def changes_of(self, users: Sequence[str]) -> list[int | None]:
        """`user_changed` of each of many users, None for one who is not there; here one after the other."""
        return [self.user_changed(user) if self.has_user(user) else None for user in users]

    def set_changed(self, user: str | None, when_ns: int) -> None:  # noqa: B027  (a time that is only shown)
        """Sets what `user_changed`, or with None `users_changed`, says, for whoever restores a copy's times.

        Until the next real change. By default nothing is done. Raises NotFound if there is no user.
        """

    @abstractmethod
    def read_profile(self, user: str) -> bytes:
        """What is stored of the user beside conversations; empty if nothing is."""

    @abstractmethod
    def profile_changed(self, user: str) -> int:
        """When what is stored of a user was last written (nanoseconds since 1970); 0 if nothing is.

        Where messages are forgotten, that counts too: what is derived of the user has changed, and no conversation's
        time says so.
        """

    @abstractmethod
    def put_profile(self, user: str, profile: bytes, mtime_ns: int) -> None:
        """Stores what is known of a user in the place of what was, at one stroke; raises NotFound if there is no user.

        `mtime_ns` is what `profile_changed` says then.
        """

    # Conversations; an archive of None is the running one, which does not exist while it is empty

    @abstractmethod
    def stat(self, user: str, archive: str | None = None) -> Stat: ...

    @abstractmethod
    def open(self, user: str, archive: str | None = None) -> Reader: ...

    def blocks_at(self, user: str, archive: str) -> bool:
        """Whether this archive takes long to look at where others do not, as one that has to be inflated.

        Is answered quickly, also for one that is not there; here False.
        """
        return False

    @abstractmethod
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        """Adds records to the running conversation, all in one atomic append, or none.

        A record that may be a second try is left out if its fingerprint is in the running conversation or the newest
        archive (the one appended to last; of several the last by name). Archives the conversation if it has reached the
        threshold after that.
        """

    @abstractmethod
    def sync(self, user: str) -> None:
        """Makes everything appended durable."""

    @abstractmethod
    def set_times(self, user: str, archive: str | None, mtime_ns: int) -> None:
        """Sets a conversation's time of last append."""

    @abstractmethod
    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        """Stores a whole running conversation, bytes as they are; raises AlreadyExists if there is one."""

    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        """Adds bytes as they are to the end of the running conversation, for a copy that goes on: nothing is put
        between, left out or archived.

        Only if it is still as it was `seen` (number and size); else returns False, or raises NotFound, and nothing is
        changed. All or nothing. It keeps its number; its time of last append becomes `mtime_ns`. By default it is
        rewritten, as another conversation; raises Unsupported where that cannot be.
        """
        with self.open(user) as reader:
            if reader.stat()[:2] != seen[:2]:
                return False
            was = reader.read(0, seen.size)
        return self.rewrite(user, None, seen, was + data, was=was, mtime_ns=mtime_ns)

    def clear(self, user: str) -> None:
        """Forgets the running conversation; only where there is no archival."""
        self._lacks(Capability.ARCHIVAL, "clear archives")

    # Archives: only with the capability ARCHIVAL. Each change is whole or not done at all

    def archives(self, user: str) -> list[Archived]:
        """All archives of a user, in no order; none where there is no archival."""
        return []

    def stats_of(self, user: str, archives: Sequence[str]) -> list[Stat | None]:
        """`stat` of each of many archives, None for one that is not there; here one after the other."""
        found: list[Stat | None] = []
        for archive in archives:
            try:
                found.append(self.stat(user, archive))
            except NotFound:
                found.append(None)
        return found

    def archive(
        self, user: str, name: str | None = None, *, idle_since_ns: int | None = None, wait: bool = True
    ) -> str:
        """Turns the running conversation into an archive and returns its name; by default the present time.

        Raises AlreadyExists if the name is taken; Stale if it was appended to after `idle_since_ns`; and InvalidName or
        NameTooLong before NotFound.
        """
        self._lacks(Capability.ARCHIVAL, "archive")

    def restore(self, user: str, archive: str, *, swap: bool = True) -> str | None:
        """Turns an archive into the running conversation; a running one is archived first, under the present time.

        Returns the name of that one, None if there was none. Raises AlreadyExists instead if it may not `swap`.
        """
        self._lacks(Capability.ARCHIVAL, "restore")

    def rename_archive(self, user: str, archive: str, name: str) -> None:
        """Gives an archive another name; raises AlreadyExists if it is taken."""
        self._lacks(Capability.ARCHIVAL, "rename archives")

    def put_archive(self, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        """Stores a whole archive, bytes as they are; raises AlreadyExists."""
        self._lacks(Capability.ARCHIVAL, "store archives")

    def compress(self, user: str, archive: str) -> int:
        """Compresses an archive, whose bytes are read as before; returns how many bytes of storage that saved.

        0 if it was compressed already or would not get smaller.
        """
        self._lacks(Capability.COMPRESSION, "compress archives")

    # What could not become a message

    @abstractmethod
    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        """Keeps bytes that were refused, and returns the name that they are kept under (a time).

        Also behind a fence that is not open: they are no part of a conversation, and would be lost.
        With a `name` it is a copy that is being restored: kept under that name, and that time (nanoseconds since 1970;
        None: now). If the very same bytes are there, only their time is set. That is a change like every other, for the
        bytes are elsewhere, too. Raises AlreadyExists if others are there, Fenced.
        """

    @abstractmethod
    def set_asides(self, user: str) -> list[Archived]:
        """What was set aside and is still there, in no order."""

    def has_set_asides(self, user: str) -> bool:
        """Whether anything is."""
        return bool(self.set_asides(user))

    def stats_of_set_asides(self, user: str, names: Sequence[str]) -> list[Stat | None]:
        """What `set_asides` says of each of many, None for one that is not there; here by asking for all."""
        found = {one.name: one.stat for one in self.set_asides(user)}
        return [found.get(name) for name in names]

    @abstractmethod
    def open_set_aside(self, user: str, name: str) -> Reader: ...

    @abstractmethod
    def remove_set_aside(self, user: str, name: str) -> None: ...

    # The log of clean-ups, which is for people: no fence keeps anybody from writing it

    @abstractmethod
    def log_size(self) -> int:
        """Bytes in it; 0 if nothing was ever written."""

    @abstractmethod
    def read_log(self, offset: int, size: int) -> bytes:
        """At most `size` bytes of it from `offset` on; fewer only at the end."""

    @abstractmethod
    def append_log(self, line: bytes) -> None:
        """Adds a line, which ends in a newline and is unlike every other, to its end."""

    # Checking

    def check(self, user: str | None, *, repair: bool) -> Iterator[Finding]:
        """What is wrong with how a user is stored; with None, with what is not one user's.

        About indexes, counters and whatever changes leave behind that were cut short; not about what is in records.
        Changes may go on meanwhile. To `repair` means: what can be derived is made again, and what is in the way is set
        aside, or removed if it holds nothing that is not elsewhere. Without it nothing is written.
        """
        return iter(())

    def rewrite(
        self,
        user: str,
        archive: str | None,
        seen: Stat,
        data: bytes,
        *,
        was: bytes | None = None,
        mtime_ns: int | None = None,
    ) -> bool:
        """Puts other bytes in the place of a conversation's, for a repair that has set aside what they lack.

        Only if it is still as it was `seen` (number and size, and its bytes if `was` has them: where an append that
        failed is cut back, others may come to the same size); else returns False, or raises NotFound, and nothing is
        changed. It becomes another conversation, with a number of its own, and keeps its name; without any bytes, a
        running one is none any more. Its time of last append becomes `mtime_ns` in the same change; None: it keeps that
        too. Whoever has the old one open reads it as it was, or gets Stale; never a mixture. Raises Unsupported where
        that cannot be.
        """
        raise Unsupported("this backend cannot mend a conversation")

    def rewrite_profile(self, user: str, profile: bytes, *, was: bytes) -> bool:
        """Stores something else of a user beside conversations, for a repair that has set aside what was there.

        Only if that is still as it `was`, looked at and replaced at one stroke; else returns False, and nothing is
        changed. Raises Unsupported where that cannot be.
        """
        raise Unsupported("this backend cannot mend what is stored of a user")

    # The place

    @abstractmethod
    def usage(self) -> Usage: ...

    @abstractmethod
    def totals(self) -> Totals:
        """Figures over all users, at a cost that does not grow with what was said."""

    @abstractmethod
    def fence(self) -> Fence: ...

    @abstractmethod
    def set_fence(self, fence: Fence) -> None:
        """Sets the fence; returns once no change is under way any more that saw the old one."""

    def watch(self, on_notice: Callable[[Notice | None], object]) -> Callable[[], None]:
        """Has a function told, from a thread of its own, when a user or a conversation comes, goes or is renamed.

        Whoever changes it; some milliseconds later. None instead of a notice: some were missed, and anything may have
        changed. A backend that hears of nothing tells nothing. Returns what ends it, after which nothing is told.
        """
        return lambda: None

    def close(self) -> None:  # noqa: B027  (most backends hold nothing)
        """Lets go of what it holds."""

    def _lacks(self, capability: Capability, what: str) -> NoReturn:
        raise Unsupported(f"this backend has no {capability.value}: it cannot {what}")
