"""An appender with a journal of lists behind it."""

from collections.abc import Sequence

from potofs.backends.base import Record
from potofs.config import MAX_MESSAGE_BYTES
from potofs.errors import WouldBlock
from potofs.journal import reading
from potofs.journal.appending import Appender


class Writer:
    """One handle, and what became of the bytes that went through it."""

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        #: The records of each commit, and whether it could wait.
        self.commits: list[list[bytes]] = []
        self.waited: list[bool] = []
        self.set_aside: list[bytes] = []
        #: Of that, what may be of a message that is stored.
        self.in_doubt: list[bytes] = []
        #: What storing and setting aside raise, as long as there is something.
        self.refuses: Exception | None = None
        self.refuses_to_set_aside: Exception | None = None
        #: Whether another writer holds the lock.
        self.contended = False
        self.appender = Appender(self._commit, self._set_aside, max_bytes)
        self.write = self.appender.write
        self.flush = self.appender.flush
        self.close = self.appender.close

    @property
    def stored(self) -> bytes:
        """The conversation."""
        return b"".join(record for commit in self.commits for record in commit)

    @property
    def contents(self) -> list[str]:
        """What was said in it."""
        return [message.content for message in reading.messages(self.stored)]

    def _commit(self, records: Sequence[Record], *, wait: bool) -> object:
        if self.refuses is not None:
            raise self.refuses
        if self.contended and not wait:
            raise WouldBlock("another writer holds the lock")
        self.commits.append([record.data for record in records])
        self.waited.append(wait)
        return None

    def _set_aside(self, data: bytes, *, in_doubt: bool) -> str:
        if self.refuses_to_set_aside is not None:
            raise self.refuses_to_set_aside
        self.set_aside.append(data)
        if in_doubt:
            self.in_doubt.append(data)
        return "somewhere.yaml"
