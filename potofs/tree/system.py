"""What is shown of the journal as a whole: the files of system/ and config/.

They are made when somebody looks, and are the same for everybody for a moment (`made`).
"""

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
from potofs.tree.made import Made
from potofs.tree.nodes import Kind, Node

# How long metrics stand (seconds): making them costs nothing, and who looks twice in a second is told of that second.
_METRICS_STAND = 0.2


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
            Kind.METRICS: Made(self._metrics, stands=_METRICS_STAND),
            # What is in force is so since the mount began.
            Kind.CONFIGURATION: Made(lambda: configuration.render(self._backend), lambda: self._began),
        }
        self._figures = Made(self._stats_if_there)

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
        # Those of the journal are asked of the backend, which may have to go through all of it: once for many looks.
        stats = self._figures.look().data
        return self.metrics(Figures(self.tally.taken, stats))

    def _stats_if_there(self) -> DialogueJournalStats | None:
        # Whoever watches wants to know most when the backend does not answer.
        with suppress(PotofsError, OSError):
            return self._journal.get_stats()
        return None

    def _log_written(self, size: int) -> int:
        """When the log was last written to, as its last line says; else when it was first seen so long."""
        if size != self._log_seen[0]:
            last = cleaning.last_result(self._backend)
            self._log_seen = (size, time.time_ns() if last is None else cleaning.ended_ns(last))
        return self._log_seen[1]

    @staticmethod
    def _shown(node: Node, size: int, mtime_ns: int) -> Attributes:
        return Attributes(virtual_inode(node), node.kind.mode, size, mtime_ns, mtime_ns)


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
