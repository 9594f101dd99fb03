"""Where a daemon's log goes: to a file that is rotated, or to standard error, which may be systemd's journal."""

import logging
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler

_LOG_BYTES = 4 << 20
_LOG_FILES = 3
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


def log_to(path: str | None) -> None:
    """Sends the log to a file that is rotated, or to standard error."""
    logging.basicConfig(level=logging.INFO, handlers=[handler_for(path)])


def handler_for(path: str | None) -> logging.Handler:
    """What writes the log to a file, or to standard error."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = _RotatingFile(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
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
