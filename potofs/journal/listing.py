"""What there is, in figures: a user's archives, and the whole journal. All of it is derived when somebody asks."""

import re

from potofs import times
from potofs.backends.base import Archived, Backend
from potofs.errors import NotFound
from potofs.journal.models import ArchivedConversation, DialogueJournalStats
from potofs.journal.summary import Summaries

# What an archive without a name of its own is called by: `times.compact`, and -2, -3, … if there are several.
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d\.\d{3}Z)(?:-\d+)?", re.ASCII)


def archives(backend: Backend, summaries: Summaries, user: str) -> list[ArchivedConversation]:
    """The archives of a user, first archived first."""
    found = []
    for archive in backend.archives(user):
        try:
            summary = summaries.of_conversation(user, archive.name)
        except NotFound:
            continue  # Restored or renamed since.
        found.append(
            ArchivedConversation(
                id=archive.name,
                user_id=user,
                archived_at=times.iso(archived_ns(archive)),
                message_count=summary.messages,
                first_message_time=_iso(summary.first_ns),
                last_message_time=_iso(summary.last_ns),
                size=archive.stat.size,
            )
        )
    return sorted(found, key=lambda archive: (archive.archived_at, archive.id))


def archived_ns(archive: Archived) -> int:
    """When an archive was made (nanoseconds since 1970): the time in its name if that is one, else its last append."""
    if named := _TIME.fullmatch(archive.name):
        year, month, day, hour, minute, second = named.groups()
        moment = times.nanoseconds(f"{year}-{month}-{day}T{hour}:{minute}:{second}")
        if moment is not None:
            return moment
    return archive.stat.mtime_ns


def stats(backend: Backend, last_cleanup: str | None) -> DialogueJournalStats:
    """The figures over all users."""
    totals = backend.totals()
    return DialogueJournalStats(
        total_users=totals.users,
        total_messages=totals.messages,
        total_archived_conversations=totals.archives,
        average_messages_per_user=totals.messages / totals.users if totals.users else 0,
        storage_usage=totals.bytes,
        oldest_message=_iso(totals.first_ns),
        newest_message=_iso(totals.last_ns),
        backend=backend.name,
        last_cleanup=last_cleanup,
    )


def _iso(moment_ns: int | None) -> str | None:
    return None if moment_ns is None else times.iso(moment_ns)
