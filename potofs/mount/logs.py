"""Where a daemon's log goes: to a file that is rotated, or to standard error, which may be systemd's journal.

A thread of its own writes it: a pipe that nobody reads and a disk that hangs would have every request wait.
"""

import logging
import os
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler

_LOG_BYTES = 4 << 20
_LOG_FILES = 3
# Lines that may wait to be written; and how long those that are left may take in the end (seconds).
_WAITING = 2000
_LAST = 5.0
# The priorities of syslog(3), from the highest level down.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


class _RotatingFile(RotatingFileHandler):
    """A log that only its owner reads, also each file that takes the place of a full one."""

    def _open(self) -> TextIOWrapper:
        descriptor = private(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        return TextIOWrapper(open(descriptor, "ab"), encoding=self.encoding, errors=self.errors)


def private(path: str, flags: int) -> int:
    """An opener for open(): a file that it makes is only its owner's, whatever the umask; raises OSError.

    One that is there keeps its mode, which may be what an administrator wants.
    """
    return os.open(path, flags, 0o600)


@contextmanager
def logging_to(path: str | None) -> Iterator[None]:
    """Sends the log to a file that is rotated, or to standard error; in the end all of it is written.

    Unless nobody takes it. Raises OSError.
    """
    with written_aside(handler_for(path)) as handler:
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        # Not by basicConfig, which would have the lines formatted twice.
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)


@contextmanager
def written_aside(handler: logging.Handler, waiting: int = _WAITING, last: float = _LAST) -> Iterator[logging.Handler]:
    """A handler that waits for nothing: another thread has each line written by the one that it stands for.

    So many lines may be `waiting`; what comes when there are more is left out, and how many those were is said. What is
    left in the end may take `last` seconds.
    """
    lines: queue.Queue[logging.LogRecord] = queue.Queue(waiting)
    taking, writing = _Taking(lines), _Writing(lines, handler)
    writing.start()
    try:
        yield taking
    finally:
        taking.close()
        with lines.all_tasks_done:
            is_written = lines.all_tasks_done.wait_for(lambda: not lines.unfinished_tasks, last)
        if is_written:
            writing.stop()
            handler.close()


class _Taking(QueueHandler):
    """Takes lines, and waits for nobody."""

    queue: queue.Queue[logging.LogRecord]
    # Lines that were left out since it was last said.
    _left_out = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._left_out:
                # Not for each place that is free again: it would be said as often as anything else.
                if self.queue.qsize() > self.queue.maxsize // 2:
                    raise queue.Full
                self._say_left_out()
            self.queue.put_nowait(record)
        except queue.Full:
            self._left_out += 1

    def close(self) -> None:
        """Says what was left out last."""
        self.acquire()
        try:
            with suppress(queue.Full):
                if self._left_out:
                    self._say_left_out()
        finally:
            self.release()
        super().close()

    def _say_left_out(self) -> None:
        what = f"{self._left_out} lines are missing here: they came more quickly than they were taken"
        self.queue.put_nowait(logging.LogRecord(__name__, logging.WARNING, __file__, 0, what, None, None))
        self._left_out = 0


class _Writing(QueueListener):
    """Writes what was taken."""

    def handle(self, record: logging.LogRecord) -> None:
        # Without its lock, which nobody else wants but, when the process ends, the library: it would wait for this.
        for handler in self.handlers:
            handler.emit(record)


class _StandardError(logging.Handler):
    """Standard error, past Python's buffer: whoever is stuck in that keeps the process from ending."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            while line:
                line = line[os.write(sys.stderr.fileno(), line) :]
        except Exception:
            self.handleError(record)


def handler_for(path: str | None) -> logging.Handler:
    """What writes the log to a file, or to standard error; raises OSError."""
    handler: logging.Handler
    if path is None:
        handler = _StandardError()
    else:
        # What programs call files may be no UTF-8.
        handler = _RotatingFile(
            path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8", errors="backslashreplace"
        )
    if path is None and _is_journal(sys.stderr.fileno()):
        handler.setFormatter(_ForJournal("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


class _ForJournal(logging.Formatter):
    """Lines as sd-daemon(3) has them: a priority before each, and no time, for the journal has its own."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def _is_journal(descriptor: int) -> bool:
    """Whether a descriptor leads to systemd's journal; JOURNAL_STREAM is inherited by what logs elsewhere, too."""
    with suppress(OSError):
        found = os.fstat(descriptor)
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False
