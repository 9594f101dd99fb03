"""How a journal is: the four health checks of the design document, each a status and figures.

    storage       the backend answers, has room, and takes changes
    integrity     what was looked at holds what messages are made of
    performance   how long the backend takes to answer
    cleanup       clean-ups run

A check is healthy, degraded or unhealthy, and says why it is not healthy; the journal is as its worst check is. Nothing
here goes over everything, and nothing asks again once the backend has not answered: so a check takes no longer than the
backend's deadline. `fsck` is what looks at everything.
"""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from potofs import times
from potofs.backends.base import RECORD_END, Backend, Fence, Usage
from potofs.errors import NotFound, PotofsError, Stale, reason
from potofs.journal import cleaning, reading
from potofs.journal.reading import Damage

HEALTHY: Final = "healthy"
DEGRADED: Final = "degraded"
UNHEALTHY: Final = "unhealthy"
_WORSE = (HEALTHY, DEGRADED, UNHEALTHY)

# An answer that takes longer (seconds).
_SLOW = 0.25
_VERY_SLOW = 2.0
# Room that is left, of all there is.
_LITTLE_ROOM = 0.05
# Clean-ups are a day apart by the document's defaults: one may be late, two are missing (nanoseconds).
_LATE = 48 * 3600 * 10**9
# Conversations of which the end is looked at in one check, how much of each (bytes), and how long that may take
# (seconds).
_LOOKED_AT = 5
_END = 1 << 16
_LONG_ENOUGH = 0.5
# Conversations that are remembered as damaged.
_REMEMBERED = 1000

Report = dict[str, Any]


class Health:
    """The checks of one journal. They look at a few conversations each time and at others the next: one at a time."""

    def __init__(self, backend: Backend, clock: Callable[[], int] = time.time_ns) -> None:
        self._backend, self._clock = backend, clock
        self._began = clock()
        self._users: Iterator[str] = iter(())
        self._looked_at = 0
        self._damaged: dict[str, str] = {}

    def report(self) -> Report:
        """All checks, and their worst as `status`; never raises for what the backend does."""
        begun = time.monotonic()
        try:
            fence, usage = self._backend.fence(), self._backend.usage()
            answered = time.monotonic() - begun
            checks = {
                "storage": _storage(fence, usage),
                "integrity": self._integrity(),
                "performance": _performance(answered),
                "cleanup": self._cleanup(),
            }
        except (PotofsError, OSError) as error:
            checks = self._without_an_answer(reason(error), time.monotonic() - begun)
        return {
            "status": max((check["status"] for check in checks.values()), key=_WORSE.index),
            "checkedAt": times.iso(self._clock()),
            "backend": self._backend.name,
            # Without its options, and without a password.
            "url": None if self._backend.where is None else str(self._backend.where),
            **checks,
        }

    def _without_an_answer(self, why: str, waited: float) -> dict[str, Report]:
        unknown = {"status": UNHEALTHY, "reason": "not checked: the backend does not answer"}
        return {
            "storage": {"status": UNHEALTHY, "reason": why},
            "integrity": unknown,
            "performance": {"status": UNHEALTHY, "reason": "no answer", "waitedMs": _ms(waited)},
            "cleanup": unknown,
        }

    def _integrity(self) -> Report:
        begun = time.monotonic()
        for user in self._next_users():
            self._look_at(user)
            if time.monotonic() - begun > _LONG_ENOUGH:
                break
        found = {"conversationsLookedAt": self._looked_at, "damaged": len(self._damaged)}
        if not self._damaged:
            return {"status": HEALTHY, **found}
        user, what = next(iter(self._damaged.items()))
        why = f"user {user!r}, current.yaml: {what}; potofs fsck says more"
        return {"status": DEGRADED, "reason": why.encode(errors="replace").decode(), **found}

    def _next_users(self) -> Iterator[str]:
        try:
            found = list(islice(self._users, _LOOKED_AT))
            if len(found) < _LOOKED_AT:
                self._users = self._backend.users()
                found += [user for user in islice(self._users, _LOOKED_AT - len(found)) if user not in found]
        except BaseException:
            # What it was about to say cannot be asked for again.
            self._users = iter(())
            raise
        return iter(found)

    def _look_at(self, user: str) -> None:
        self._damaged.pop(user, None)
        try:
            with self._backend.open(user) as reader:
                size = reader.stat().size
                data = reader.read(max(0, size - _END), min(size, _END))
        except (NotFound, Stale):
            return  # None now.
        self._looked_at += 1
        if size > _END:
            # What the beginning is the end of is not here; a record longer than that says nothing either way.
            data = data[data.find(RECORD_END) + len(RECORD_END) :] if RECORD_END in data else b""
        for entry in reading.read(data):
            if isinstance(entry, Damage) and len(self._damaged) < _REMEMBERED:
                self._damaged[user] = entry.reason

    def _cleanup(self) -> Report:
        last, now = cleaning.last_result(self._backend), self._clock()
        if last is None:
            found: Report = {"lastCleanup": None}
            if now - self._began > _LATE:
                return {"status": DEGRADED, "reason": f"none for {_hours(now - self._began)} hours", **found}
            return {"status": HEALTHY, **found}
        ended = cleaning.ended_ns(last)
        found = {
            "lastCleanup": times.iso(ended),
            "archived": last.archived,
            "compressed": last.compressed,
            "dueByRetention": last.due_by_retention,
            "dueByCount": last.due_by_count,
            "errors": last.errors,
        }
        if now - ended > _LATE:
            return {"status": DEGRADED, "reason": f"none for {_hours(now - ended)} hours", **found}
        if last.errors:
            return {"status": DEGRADED, "reason": "not everything could be done: its log says what", **found}
        return {"status": HEALTHY, **found}


def _storage(fence: Fence, usage: Usage) -> Report:
    free = usage.blocks_available / usage.blocks if usage.blocks else 1.0
    found = {
        "fence": fence.state,
        "bytesFree": usage.blocks_available * usage.block_size,
        "freePercent": round(100 * free, 1),
    }
    if usage.blocks and not usage.blocks_available:
        return {"status": UNHEALTHY, "reason": "no room is left", **found}
    if fence.state != "open":
        return {"status": DEGRADED, "reason": f"the journal is {fence.state}: it takes no changes", **found}
    if free < _LITTLE_ROOM:
        return {"status": DEGRADED, "reason": "little room is left", **found}
    return {"status": HEALTHY, **found}


def _performance(answered: float) -> Report:
    found = {"responseMs": _ms(answered)}
    if answered > _SLOW:
        status = UNHEALTHY if answered > _VERY_SLOW else DEGRADED
        return {"status": status, "reason": f"the backend takes longer than {_SLOW * 1000:g} ms to answer", **found}
    return {"status": HEALTHY, **found}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _hours(nanoseconds: int) -> int:
    return nanoseconds // (3600 * 10**9)
