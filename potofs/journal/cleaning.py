"""Cleaning up: idle conversations are archived, old archives compressed, what is past a limit counted.

Nothing is ever deleted. Each step is one operation of the backend that is whole or not done at all, so that a clean-up
may be stopped anywhere, and two of them may run at once: what the other was quicker to do is stepped over.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from potofs import times
from potofs.backends.base import Archived, Backend, Capability
from potofs.errors import AlreadyExists, ConfigError, Fenced, NotFound, PotofsError, Stale, reason
from potofs.journal import listing
from potofs.journal.models import CleanupOptions, CleanupResult

log = logging.getLogger(__name__)

_HOUR = 3600 * 10**9
_DAY = 24 * _HOUR
# Where the last line of the log is looked for (bytes from its end).
_LAST_LINES = 4096


class _Counts:
    """What was done so far."""

    def __init__(self) -> None:
        self.users = self.archived = self.compressed = self.bytes_saved = 0
        self.due_by_retention = self.due_by_count = self.errors = 0


def clean(
    backend: Backend,
    options: CleanupOptions,
    clock: Callable[[], int] = time.time_ns,
) -> CleanupResult:
    """Cleans up, one user after the other, and writes that into the log; the mistakes of one do not stop the others.

    Raises Fenced as soon as no change is taken any more. `clock` tells the time (nanoseconds since 1970).
    """
    counts, began = _Counts(), clock()
    if not options.dry_run:
        backend.fence().check()
    for user in backend.users():
        counts.users += 1
        try:
            _clean_user(backend, user, options, clock(), counts)
        except Fenced:
            raise
        except (PotofsError, OSError) as error:
            counts.errors += 1
            log.warning("clean-up of user %r: %s", user, reason(error))
    result = CleanupResult(
        started_at=times.iso(began),
        duration_ms=max(0, clock() - began) // 10**6,
        dry_run=options.dry_run,
        **vars(counts),
    )
    if not options.dry_run:
        try:
            backend.append_log(log_line(result))
        except (PotofsError, OSError) as error:
            log.warning(
                "what the clean-up did could not be written into cleanup.log: %s; it was: %s",
                reason(error),
                result.to_json(),
            )
    return result


def _clean_user(backend: Backend, user: str, options: CleanupOptions, now: int, counts: _Counts) -> None:
    limits = backend.limits
    running = _archive_idle(backend, user, options, now, counts)
    archives = backend.archives(user)
    if Capability.COMPRESSION in backend.capabilities:
        for archive in archives:
            if _is_past(listing.archived_ns(archive), options.max_age_hours * _HOUR, now):
                _compress(backend, user, archive, options, counts)
    counts.due_by_retention += sum(
        _is_past(listing.archived_ns(archive), limits.retention_days * _DAY, now) for archive in archives
    )
    if limits.conversations_per_user:
        counts.due_by_count += max(0, len(archives) + running - limits.conversations_per_user)


def _archive_idle(backend: Backend, user: str, options: CleanupOptions, now: int, counts: _Counts) -> bool:
    """Archives a conversation that is idle; whether there is a running one that `archives` will not list."""
    longest = min(filter(None, (options.max_inactive_hours * _HOUR, backend.limits.idle_seconds * 10**9)), default=0)
    # Gone, or its name taken, between two calls: another server was quicker.
    with suppress(NotFound, AlreadyExists):
        idle_since = backend.stat(user).mtime_ns
        if Capability.ARCHIVAL not in backend.capabilities:
            return True
        if not _is_past(idle_since, longest, now):
            return True
        if options.dry_run:
            counts.archived += 1
            return True
        try:
            backend.archive(user, idle_since_ns=idle_since)
        except Stale:
            return True  # Not idle any more.
        counts.archived += 1
    return False


def _compress(backend: Backend, user: str, archive: Archived, options: CleanupOptions, counts: _Counts) -> None:
    if archive.stored_size < archive.stat.size:
        return  # It is already.
    if options.dry_run:
        counts.compressed += 1
        return
    with suppress(NotFound, AlreadyExists):
        saved = backend.compress(user, archive.name)
        counts.compressed += saved > 0
        counts.bytes_saved += saved


def _is_past(moment_ns: int, age_ns: float, now: int) -> bool:
    """Whether something is older than an age; an age of 0 is never reached."""
    return 0 < age_ns < now - moment_ns


def log_line(result: CleanupResult) -> bytes:
    """The line of cleanup.log about a clean-up: its JSON."""
    return result.to_json().encode() + b"\n"


def last_in_log(backend: Backend) -> str | None:
    """When the last clean-up of this journal ended, by whichever program (ISO 8601); None if there was none."""
    last = last_result(backend)
    return None if last is None else times.iso(ended_ns(last))


def ended_ns(result: CleanupResult) -> int:
    """When a clean-up ended (nanoseconds since 1970)."""
    return (times.nanoseconds(result.started_at) or 0) + result.duration_ms * 10**6


def last_result(backend: Backend) -> CleanupResult | None:
    """What the last clean-up of this journal did, by whichever program; None if there was none."""
    tail = backend.read_log(max(0, backend.log_size() - _LAST_LINES), _LAST_LINES)
    for line in reversed(tail.splitlines()):
        # Its beginning may be cut off, and somebody may have written a line of another kind.
        with suppress(ConfigError):
            result = CleanupResult.from_json(line)
            if times.nanoseconds(result.started_at) is not None:
                return result
    return None
