"""metadata.yaml: what is known of a user.

Stored are only `createdAt` and `preferences`; everything else is derived when somebody looks. Source: "User Metadata"
of the design document.
"""

from contextlib import suppress
from typing import Any

from potofs import times
from potofs.backends.base import Backend
from potofs.errors import InvalidMessage, NotFound
from potofs.journal import reading, values, yamldoc
from potofs.journal.summary import Summaries

#: What is stored of a user, and what is reckoned.
_KEPT = ("createdAt", "preferences")
_KEYS = frozenset({"userId", *_KEPT, "lastActivity", "totalMessages", "statistics"})


class NoMetadata(InvalidMessage):
    """It can be read, and is nothing that metadata.yaml could say."""


def new_profile(user: str) -> bytes:
    """What is stored of a user who has just been made."""
    return values.block({"userId": user, "createdAt": times.now()}).encode()


def changed(backend: Backend, user: str) -> int:
    """When what the file shows changed last (nanoseconds since 1970); 0 if nobody can tell.

    Of what has times that a copy keeps, so that the file of a restored user has the time that it had.
    """
    when = [backend.profile_changed(user)]
    # The running one first: archived meanwhile, it is seen twice; the other way round it might be missed.
    with suppress(NotFound):
        when.append(backend.stat(user).mtime_ns)
    return max(when + [archive.stat.mtime_ns for archive in backend.archives(user)])


def restored_profile(user: str, copy: bytes) -> bytes:
    """What is to be stored of a user after a copy of metadata.yaml; the figures in it are not, for they are derived.

    Raises InvalidMessage if it cannot be read; NoMetadata if it is of another user, or holds what would not be kept.
    """
    items = reading.plain_values(yamldoc.load(reading.text_of(copy)).items)
    if unknown := sorted(items.keys() - _KEYS):
        raise NoMetadata(f"metadata.yaml has no {unknown[0]!r}: {', '.join(_KEPT)} are kept, the rest is reckoned")
    if items.get("userId", user) != user:
        raise NoMetadata(f"this is the metadata of user {items['userId']!r}, not of {user!r}")
    created, preferences = items.get("createdAt"), items.get("preferences")
    stored: dict[str, Any] = {"userId": user}
    if created is not None:
        if not isinstance(created, str) or times.nanoseconds(created) is None:
            raise NoMetadata(f"createdAt is {created!r}: give a time such as {times.now()!r}")
        stored["createdAt"] = created
    if preferences is not None:
        if not isinstance(preferences, dict):
            raise NoMetadata(f"preferences are {preferences!r}: give a mapping")
        stored["preferences"] = preferences
    return values.block(stored).encode()


def render(backend: Backend, summaries: Summaries, user: str) -> bytes:
    """The whole file of a user."""
    stored = _stored(backend.read_profile(user))
    summary = summaries.of_user(user)
    created = stored.get("createdAt")
    if not isinstance(created, str):
        # A folder that another program made: nobody knows better than its first message.
        created = None if summary.first_ns is None else times.iso(summary.first_ns)
    average = round(summary.response_time / summary.responses) if summary.responses else None
    items: dict[str, Any] = {
        "userId": user,
        "createdAt": created,
        "lastActivity": None if summary.last_ns is None else times.iso(summary.last_ns),
        "totalMessages": summary.messages,
    }
    if isinstance(stored.get("preferences"), dict):
        items["preferences"] = stored["preferences"]
    items["statistics"] = {
        "userMessages": summary.user_messages,
        "assistantMessages": summary.assistant_messages,
        "averageResponseTime": average,
        "totalTokens": summary.tokens,
    }
    return values.block(items).encode()


def _stored(profile: bytes) -> dict[str, Any]:
    try:
        stored = reading.plain_values(yamldoc.load(reading.text_of(profile)).items)
        values.block(stored)
    except InvalidMessage:
        return {}  # Missing, damaged, or not to be written again: what can be derived is shown all the same.
    return stored
