"""How much was taken in by appenders: counted where it happens, whichever thread that is."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

from potofs.backends.base import Appended, Record


class Taken(NamedTuple):
    """What was taken in."""

    #: Stored; a second try of what was there is none.
    records: int
    #: Of those records.
    bytes: int
    #: Pieces that were no message, and are in rejected/.
    rejected: int


class Tally:
    """Counts what several appenders take in. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = Taken(0, 0, 0)

    @property
    def taken(self) -> Taken:
        """What was counted so far."""
        return self._taken

    def appended(self, records: Sequence[Record], appended: Appended) -> None:
        """These records were given to the backend, which answered."""
        size = sum(len(record.data) for record in records)
        if appended.stored < len(records):
            # Which ones were there before, only the backend knows: the others get their share.
            size = size * appended.stored // len(records)
        with self._guard:
            taken = self._taken
            self._taken = taken._replace(records=taken.records + appended.stored, bytes=taken.bytes + size)

    def rejected(self) -> None:
        """A piece was set aside."""
        with self._guard:
            self._taken = self._taken._replace(rejected=self._taken.rejected + 1)
