"""What can go wrong, as types: each says what was refused, where, why, and the way out.

Every layer raises these and `OSError` (of the operating system, passed on as it is). The command line prints them in
one line; `fuse.errnos` turns them into errno values; nothing else needs to know more than the class.
"""

import os


class PotofsError(Exception):
    """Base of every error that potofs raises on purpose; its text is one line meant for a person."""


class ConfigError(PotofsError):
    """A setting, an option or a backend URL cannot be used."""


class InvalidMessage(PotofsError):
    """Bytes or values that are not a message: wrong YAML, a missing key, an unknown role."""

    def __init__(
        self, reason: str, *, offset: int | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        at_byte = "" if offset is None else f"at byte {offset}: "
        place = "" if line is None else f"line {line}: " if column is None else f"line {line}, column {column}: "
        super().__init__(f"{place}{at_byte}{reason}")
        self.reason = reason
        self.offset = offset
        #: Of the document, counted from 1; None if the error is of the document as a whole.
        self.line = line
        #: In that line, counted from 1 (characters); None if nobody can tell.
        self.column = column


class MessageTooLarge(InvalidMessage):
    """One record is larger than the configured size."""


class NotFound(PotofsError):
    """No such user, conversation or archive."""


class AlreadyExists(PotofsError):
    """The name is taken; nothing is ever replaced."""


class NotPermitted(PotofsError):
    """The journal is append-only, and this would change or remove what was said."""


class InvalidName(NotPermitted):
    """A name that no user or archive can have."""


class NameTooLong(PotofsError):
    """A name of more bytes than a file system takes."""


class Stale(PotofsError):
    """What was looked up has moved since (archived, mostly); looking the name up again finds what is there now."""


class Unsupported(PotofsError):
    """The backend does not have this capability."""


class Fenced(PotofsError):
    """No change is taken at present: the journal is frozen, or has moved elsewhere. Nothing was done."""


class WouldBlock(PotofsError):
    """Going on would mean waiting for another writer, a disk, or a long read, and the caller asked not to.

    Nothing was done.
    """


class DeadlineExceeded(PotofsError):
    """The backend did not answer in time. Trying again cannot store a message twice that has a timestamp."""


class NotReplicated(DeadlineExceeded):
    """It is stored, but fewer replicas have it in time than were asked for (`waitReplicas`)."""


class Unreachable(PotofsError):
    """The backend's server is down, or takes no commands at present.

    Trying again cannot store a message twice that has a timestamp.
    """


class Damaged(PotofsError):
    """What is stored beside the messages is not as potofs writes it; `potofs fsck` says more, and mends what it can."""


def reason(error: PotofsError | OSError) -> str:
    """What went wrong, in one line for a person."""
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        text = f"{os.fsdecode(error.filename)}: {what}" if isinstance(error.filename, str | bytes) else what
    else:
        text = str(error)
    return " ".join(text.split())
