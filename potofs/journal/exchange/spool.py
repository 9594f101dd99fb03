"""The records of an import while they wait: in a temporary database, so that their number does not matter.

It is SQLite's private kind, which has no name, stays in memory while it is small and is gone when it is closed.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from potofs.backends.base import Fingerprint, Mark, Record

# Of the same message there may be several, said without a time of their own and in the same millisecond: so copies are
# counted, and each that is stored already stands for one.
_TABLES = """
    PRAGMA journal_mode = OFF;
    CREATE TABLE message (number INTEGER PRIMARY KEY, fingerprint BLOB, is_stored INTEGER DEFAULT 0);
    CREATE INDEX copies ON message (fingerprint, number);
    CREATE TABLE record (number INTEGER PRIMARY KEY, time TEXT, data BLOB);
"""
_IS_STORED = """
    UPDATE message SET is_stored = 1
    WHERE number = (SELECT min(number) FROM message WHERE fingerprint = ? AND NOT is_stored)
"""
_MISSING = """
    SELECT data, fingerprint, time, NOT EXISTS (
        SELECT 1 FROM message AS earlier
        WHERE earlier.fingerprint = message.fingerprint AND earlier.number < message.number
    )
    FROM message JOIN record USING (number) WHERE NOT is_stored ORDER BY number
"""


class Spool:
    """Records in their order, and which of them are stored already. Raises OSError if there is no room for them."""

    def __init__(self) -> None:
        with _system_errors():
            self._database = sqlite3.connect("", isolation_level=None)
            self._database.executescript(_TABLES)
            self._database.execute("BEGIN")
        #: Records that are not stored yet.
        self.missing = 0

    def add(self, record: Record) -> None:
        """Adds a record at the end."""
        with _system_errors():
            self._database.execute("INSERT INTO message (fingerprint) VALUES (?)", (record.mark.fingerprint,))
            # As text: a year like 9999 has more nanoseconds than SQLite's integers.
            self._database.execute(
                "INSERT INTO record (time, data) VALUES (?, ?)", (str(record.mark.time_ns), record.data)
            )
        self.missing += 1

    def note_stored(self, fingerprint: Fingerprint) -> None:
        """Says that one message like this is stored already."""
        with _system_errors():
            self.missing -= self._database.execute(_IS_STORED, (fingerprint,)).rowcount

    def missing_ones(self) -> Iterator[Record]:
        """What is not stored yet; of several copies, all but the first are no second try of one another."""
        with _system_errors():
            for data, fingerprint, time, is_first in self._database.execute(_MISSING):
                yield Record(data, Mark(fingerprint, int(time)), retry=bool(is_first))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()


@contextmanager
def _system_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        code = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(code, f"the temporary file of an import: {error}") from None
