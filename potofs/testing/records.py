"""What the suite stores, and how it looks at what is stored. Real records, so that `scan` finds them."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from potofs.backends.base import Backend, Reader, Record
from potofs.errors import NotFound
from potofs.journal import admission, reading
from potofs.journal.message import ChatMessage

#: User ids that somebody will have sooner or later.
HOSTILE = (
    *("..", ".", "a/b", "/", "100%", ".hidden", "%2E", "u\x00v", "new\nline", "Jürgen 👋", "a" * 255, "日" * 85),
    *("{mia}", "a:b}{c", "*", "[a-z]?", "-rf", " ", "\\", "'\"`$(id)", "e\u0301", "é"),
)

#: 2024-01-15T00:00:00Z, when the first of `records` was said (nanoseconds since 1970).
FIRST_NS = 1_705_276_800_000_000_000


def record(content: str, *, retry: bool = True, time: str = "2024-01-15T10:30:00.000Z") -> Record:
    """A user's message as a record; `retry`: its timestamp was given."""
    return admission.from_message(ChatMessage("user", content, time))._replace(retry=retry)


def records(first: int, stop: int) -> list[Record]:
    """Messages `message <number>`, each said at a second of its own: `FIRST_NS` and so many seconds."""
    return [
        record(f"message {number}", time=f"2024-01-15T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z")
        for number in range(first, stop)
    ]


def short(value: object) -> str:
    """A parameter in the name of a test."""
    return value.__name__ if isinstance(value, type) else ascii(value)[:20]


def joined(some: Iterable[Record]) -> bytes:
    """The bytes of a conversation of nothing but these."""
    return b"".join(record.data for record in some)


def stored(backend: Backend, user: str, archive: str | None = None) -> bytes:
    """All bytes of a conversation."""
    with backend.open(user, archive) as reader:
        return reader.read_all()


def said(data: bytes) -> list[str]:
    """The contents of the messages in a conversation's bytes; no damage may be in it."""
    found = list(reading.read(data))
    assert all(isinstance(entry, ChatMessage) for entry in found), found
    return [entry.content for entry in found if isinstance(entry, ChatMessage)]


def names_of(backend: Backend, user: str) -> list[str]:
    """The archives of a user, oldest first."""
    archives = sorted(backend.archives(user), key=lambda archive: (archive.stat.mtime_ns, archive.name))
    return [archive.name for archive in archives]


def reads_any_range(reader: Reader, data: bytes, offsets: Sequence[int]) -> None:
    """Asserts that a conversation reads as `data`, from any of these places on."""
    for offset in offsets:
        for size in (0, 1, 13, 4096, len(data), 2 * len(data)):
            assert reader.read(offset, size) == data[offset : offset + size]


def picture(backend: Backend) -> dict[str, Any]:
    """Everything that can be seen of a backend, to be compared with what can be seen later."""
    seen: dict[str, Any] = {
        "totals": backend.totals(),
        "users changed": backend.users_changed(),
        "log": backend.read_log(0, backend.log_size()),
    }
    for user in backend.users():
        seen[user] = {
            "changed": backend.user_changed(user),
            "profile": (backend.read_profile(user), backend.profile_changed(user)),
            "archives": {found.name: (found, stored(backend, user, found.name)) for found in backend.archives(user)},
            "set aside": {found.name: found for found in backend.set_asides(user)},
        }
        with suppress(NotFound):
            seen[user]["current"] = (backend.stat(user), stored(backend, user))
    return seen
