"""metadata.yaml: what is known of a user.

Stored are only `createdAt` and `preferences`; everything else is derived when somebody looks. Source: "User Metadata"
of the design document.
"""

from contextlib import suppress
from types import NoneType
from typing import Any

from potofs import times
from potofs.backends.base import Backend
from potofs.errors import InvalidMessage, NotFound
from potofs.journal import ranges, reading, values, yamldoc
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


def restored_profile(user: str, copy: bytes, profile: bytes = b"") -> bytes:
    """What is to be stored of a user after a copy of metadata.yaml; the figures in it are not, for they are derived.

    `profile` is what is stored: what another program keeps there stays. Raises InvalidMessage for a copy that cannot be
    read; NoMetadata if it is of another user, or holds what would not be kept.
    """
    items = _parsed(copy)
    if unknown := sorted(items.keys() - _KEYS):
        raise NoMetadata(f"metadata.yaml has no {unknown[0]!r}: {', '.join(_KEPT)} are kept, the rest is reckoned")
    if items.get("userId", user) != user:
        raise NoMetadata(f"this is the metadata of user {items['userId']!r}, not of {user!r}")
    if not _is_right(items.get("createdAt")):
        raise NoMetadata(f"createdAt is {items['createdAt']!r}: give a time such as {times.now()!r}")
    if not isinstance(items.get("preferences", {}), dict | NoneType):
        raise NoMetadata(f"preferences are {items['preferences']!r}: give a mapping")
    kept = {key: items[key] for key in _KEPT if items.get(key) is not None}
    others = {key: value for key, value in _stored(profile).items() if key not in _KEYS}
    return values.block({"userId": user} | kept | others).encode()


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


def damage(profile: bytes) -> str:
    """What is wrong with what is stored of a user, in one line; empty if nothing is, or nothing is stored."""
    if not profile:
        return ""
    try:
        stored = _parsed(profile)
    except InvalidMessage as error:
        return f"{error}: nothing that is stored there is shown"
    if not _is_right(stored.get("createdAt")):
        return f"createdAt is no time: {stored['createdAt']!r:.40}"
    return ""


def mended(backend: Backend, user: str, profile: bytes) -> bytes:
    """What there is to be stored of a user instead of what is damaged; raises OSError if a conversation cannot be read.

    Instead of a createdAt that is none, when the first message was said; what else can be read of it stays.
    """
    stored = _stored(profile)
    said = (mark.time_ns for mark in ranges.marks_of_user(backend, user) if mark.time_ns is not None)
    items: dict[str, Any] = {"userId": user}
    if stored.get("createdAt") is not None and _is_right(stored["createdAt"]):
        items["createdAt"] = stored["createdAt"]
    elif (first_ns := min(said, default=None)) is not None:
        items["createdAt"] = times.iso(first_ns)
    return values.block(
        items | {key: value for key, value in stored.items() if key not in {"userId", "createdAt"}}
    ).encode()


def _is_right(created: object) -> bool:
    """Whether it is a time, or missing."""
    return created is None or (isinstance(created, str) and times.nanoseconds(created) is not None)


def _stored(profile: bytes) -> dict[str, Any]:
    try:
        return _parsed(profile)
    except InvalidMessage:
        return {}  # Missing, damaged, or not to be written again: what can be derived is shown all the same.


def _parsed(profile: bytes) -> dict[str, Any]:
    """What is stored; raises InvalidMessage if it is no mapping, or cannot be written again."""
    stored = reading.plain_values(yamldoc.load(reading.text_of(profile)).items)
    values.block(stored)
    return stored
