"""What is shown of the journal as a whole: the files of system/ and config/.

They are made when somebody looks. What is made is the same for everybody for a moment, so that the size that one
request is told is that of what the next one reads, and so that many who look cost no more than one.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from potofs.backends.base import Backend, Reader, Snapshot, Stat
from potofs.errors import NotFound, PotofsError
from potofs.journal import cleaning, configuration, values
from potofs.journal.health import Health
from potofs.journal.journal import DialogueJournal
from potofs.journal.models import DialogueJournalStats
from potofs.journal.tally import Taken, Tally
from potofs.tree.attributes import Attributes, virtual_inode
from potofs.tree.nodes import Kind, Node

# How long what was made stands after it was made or opened (seconds), for whoever asked for the size or is about to;
# and from when on it is made anew for whoever opens it, however many do.
_STANDS = 1.0
_OLD = 2.0


class Figures(NamedTuple):
    """What the tree knows for system/metrics.prom."""

    taken: Taken
    #: None if the backend does not answer.
    stats: DialogueJournalStats | None


class SystemFiles:
    """The files of one journal. Thread-safe."""

    def __init__(self, journal: DialogueJournal) -> None:
        self._journal, self._backend = journal, journal.backend
        self._began = time.time_ns()
        self._log_seen = (0, self._began)
        #: Counts what is appended.
        self.tally = Tally()
        #: Makes system/metrics.prom; None, and then there is no such file, where nothing serves the tree.
        self.metrics: Callable[[Figures], bytes] | None = None
        health = Health(self._backend)
        self._made = {
            Kind.STATS: Made(self._stats),
            Kind.HEALTH: Made(lambda: values.block(health.report()).encode()),
            Kind.METRICS: Made(self._metrics),
            # What is in force is so since the mount began.
            Kind.CONFIGURATION: Made(lambda: configuration.render(self._backend), lambda: self._began),
        }

    def attributes(self, node: Node) -> Attributes:
        """What is shown of a directory (the root too, whose names stay) or a file; raises what making it does."""
        if node.kind.is_directory:
            return self._shown(node, 0, self._began)
        if node.kind is Kind.CLEANUP_LOG:
            size = self._backend.log_size()
            return self._shown(node, size, self._log_written(size))
        self._must_be_served(node)
        made = self._made[node.kind].look()
        return self._shown(node, len(made.data), made.mtime_ns)

    def listed(self, node: Node) -> Attributes:
        """The same for a listing, which waits for nothing: as it was when somebody last looked."""
        made = self._made[node.kind].last if node.kind in self._made else None
        return self._shown(node, len(made.data) if made else 0, made.mtime_ns if made else self._began)

    def open(self, node: Node) -> Reader:
        """A file's contents: the log goes on growing, the others are as they are when opened."""
        if node.kind is Kind.CLEANUP_LOG:
            return _LogReader(self._backend, lambda: self.attributes(node))
        self._must_be_served(node)
        made = self._made[node.kind].look(opens=True)
        return Snapshot(made.data, _stat(self._shown(node, len(made.data), made.mtime_ns)))

    def _must_be_served(self, node: Node) -> None:
        if node.kind is Kind.METRICS and self.metrics is None:
            raise NotFound("nothing serves this tree, so there are no metrics")

    def _stats(self) -> bytes:
        return values.block(msgspec.to_builtins(self._journal.get_stats())).encode()

    def _metrics(self) -> bytes:
        assert self.metrics is not None
        stats = None
        # Whoever watches wants to know most when the backend does not answer.
        with suppress(PotofsError, OSError):
            stats = self._journal.get_stats()
        return self.metrics(Figures(self.tally.taken, stats))

    def _log_written(self, size: int) -> int:
        """When the log was last written to, as its last line says; else when it was first seen so long."""
        if size != self._log_seen[0]:
            last = cleaning.last_result(self._backend)
            self._log_seen = (size, time.time_ns() if last is None else cleaning.ended_ns(last))
        return self._log_seen[1]

    @staticmethod
    def _shown(node: Node, size: int, mtime_ns: int) -> Attributes:
        return Attributes(virtual_inode(node), node.kind.mode, size, mtime_ns, mtime_ns)


class _Contents(NamedTuple):
    data: bytes
    #: When it was first made as it is (nanoseconds since 1970).
    mtime_ns: int


class Made:
    """A text that is made when somebody looks, and is the same for everybody for a moment. Thread-safe."""

    def __init__(
        self,
        make: Callable[[], bytes],
        changed: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._changed, self._clock = make, changed, clock
        # Whoever comes while it is made waits, and gets the same.
        self._guard = threading.Lock()
        self._made_at = self._stands_until = 0.0
        #: As it was made last; None if it never was.
        self.last: _Contents | None = None

    def look(self, *, opens: bool = False) -> _Contents:
        """The text, made anew unless it stands; raises what making it does.

        Whoever `opens` it is going to ask for the size once more: for that it stands for a moment longer.
        """
        with self._guard:
            now = self._clock()
            last = self.last
            stands = now < self._stands_until and not (opens and now >= self._made_at + _OLD)
            if last is None or not stands:
                data = self._make()
                if last is None or last.data != data:
                    last = self.last = _Contents(data, self._changed())
                now = self._made_at = self._clock()
                self._stands_until = now + _STANDS
            elif opens:
                self._stands_until = now + _STANDS
            return last


class _LogReader(Reader):
    """The log of clean-ups, as long as it is when somebody reads."""

    def __init__(self, backend: Backend, attributes: Callable[[], Attributes]) -> None:
        self._backend, self._attributes = backend, attributes

    def stat(self) -> Stat:
        return _stat(self._attributes())

    def read(self, offset: int, size: int) -> bytes:
        return self._backend.read_log(offset, size)

    def close(self) -> None: ...


def _stat(attributes: Attributes) -> Stat:
    return Stat(attributes.inode, attributes.size, attributes.mtime_ns, attributes.ctime_ns)
