"""What a mount remembers while a copy of a journal is being restored through it, and nobody else needs to know.

Tools make every folder that was in the copy, also one that is only there while it holds something; and tar takes away
what is in its way before it writes.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from potofs.backends.base import Appended, Record
from potofs.journal.tally import Tally

# Users who are remembered as made here, at most; and how long a file may be away that is to be written anew (seconds).
_USERS = 10_000
_AWAY = 2.0
# How long a user may be on the way who is being restored (seconds).
_LONG = 3600.0


class Restoring:
    """One mount's memory. Each look is a single one, so any thread may."""

    def __init__(self) -> None:
        # Users whose rejected/ was made, and is empty yet.
        self._rejected: set[str] = set()
        # Users who were made here, the last ones, and when (seconds, monotonic).
        self._made: OrderedDict[str, float] = OrderedDict()
        # Those of them for whom a running conversation is being copied, or was.
        self._copied: set[str] = set()
        # Until when whose metadata.yaml is away (seconds, monotonic).
        self._away: dict[str, float] = {}

    def made_user(self, user: str) -> None:
        """A user was made by mkdir."""
        self._made[user] = time.monotonic()
        if len(self._made) > _USERS:
            self._copied.discard(self._made.popitem(last=False)[0])

    def is_just_made(self, user: str) -> bool:
        """Whether a user was made here, neither long ago nor many users ago."""
        return time.monotonic() - self._made.get(user, -_LONG) < _LONG

    def said(self, user: str) -> None:
        """Something was said of a user: they are in use, and no copy is being made of them any more."""
        self._made.pop(user, None)
        self._copied.discard(user)

    def copied(self, user: str) -> None:
        """A copy of a running conversation is about to be stored here."""
        if user in self._made:
            self._copied.add(user)

    def found(self, user: str) -> None:
        """There is a running conversation: if it was not copied here, something was said of the user elsewhere."""
        if user in self._made and user not in self._copied:
            self.said(user)

    def take_profile_away(self, user: str) -> None:
        """Takes metadata.yaml away for whoever will write it next."""
        self._away[user] = time.monotonic() + _AWAY

    def is_profile_away(self, user: str) -> bool:
        """Whether metadata.yaml was taken away, and not written again."""
        until = self._away.get(user)
        if until is not None and time.monotonic() > until:
            self._away.pop(user, None)
            until = None
        return until is not None

    def profile_written(self, user: str) -> None:
        """Somebody has written metadata.yaml."""
        self._away.pop(user, None)

    def make_rejected(self, user: str) -> None:
        """rejected/ is there from now on, also while it is empty."""
        self._rejected.add(user)

    def has_rejected(self, user: str) -> bool:
        """Whether it was made."""
        return user in self._rejected

    def remove_rejected(self, user: str) -> None:
        """It is only there while it holds something again."""
        self._rejected.discard(user)


class Heard(Tally):
    """Counts for another, and tells when something was said."""

    def __init__(self, tally: Tally, on_said: Callable[[], None]) -> None:
        super().__init__()
        self._tally, self._on_said = tally, on_said

    def appended(self, records: Sequence[Record], appended: Appended) -> None:
        self._tally.appended(records, appended)
        if appended.stored:
            self._on_said()

    def rejected(self) -> None:
        self._tally.rejected()
