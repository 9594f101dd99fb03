"""What the journal takes and answers beside messages: users, archives, figures, clean-ups; frozen, with types.

As JSON they have the document's names (`userId`); a field that is not known, or not there, is left out. Source: "Data
Models" and "Configuration System" of the design document. It does not say what CleanupOptions and CleanupResult are.
"""

import re
from typing import Any, Self

import msgspec

from potofs import names
from potofs.errors import ConfigError
from potofs.journal import arguments

_PATH = re.compile(r"^(.*) - at `\$\.(.*)`$", re.DOTALL)


class Model(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Base of all models."""

    def to_json(self) -> str:
        """The document's form, on one line."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The model of such a text, fields that it does not know left out; raises ConfigError with the field.

        Raises TypeError for what is no text.
        """
        if not isinstance(text, str | bytes):
            raise arguments.wrong_type("text", text, "text, or bytes of UTF-8")
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeError) as error:
            # A field by its name alone, not by a path of a language that its writer need not know.
            why = _PATH.sub(r"\2: \1", str(error))
            raise ConfigError(f"not the JSON of {cls.__name__}: {why}") from None

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the document's form."""
        return msgspec.json.schema(cls)


class PotoUser(Model, frozen=True):
    """A user of the application. Only the id counts here; what else the application knows of a user stays with it."""

    #: Any non-empty text whose name as a file has 255 bytes at most; raises InvalidName, NameTooLong.
    id: str
    #: What people call the user; not stored.
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise ConfigError(f"a user's id has to be text, not {type(self.id).__name__}")
        names.encode(self.id)


#: A user, or just the id.
User = PotoUser | str


def id_of(user: User) -> str:
    """The id of a user; raises TypeError for what is neither."""
    if isinstance(user, str):
        return user
    if isinstance(user, PotoUser):
        return user.id
    raise arguments.wrong_type("user", user, "a PotoUser or its id, which is text")


class ArchivedConversation(Model, frozen=True, kw_only=True):
    """An archive, as its bytes and its name tell."""

    #: The archive's name, unique among those of the user.
    id: str
    user_id: str
    #: When it was archived (ISO 8601): the time in its name if that is one, else that of the last append.
    archived_at: str
    #: Messages that can be read.
    message_count: int
    #: The earliest and the latest time of a message (ISO 8601); missing if there is none.
    first_message_time: str | None = None
    last_message_time: str | None = None
    #: Bytes, uncompressed.
    size: int
    #: What it is labelled with. Nothing in the journal gives labels yet, so it is always empty and left out.
    tags: tuple[str, ...] = ()


class DialogueJournalStats(Model, frozen=True, kw_only=True):
    """Figures over all users."""

    total_users: int
    #: In all conversations, archives included.
    total_messages: int
    total_archived_conversations: int
    #: Messages for each user, those who said nothing included; 0 without users.
    average_messages_per_user: float
    #: Bytes, as they are stored.
    storage_usage: int
    #: The earliest and the latest time of a message (ISO 8601); missing if there is none.
    oldest_message: str | None = None
    newest_message: str | None = None
    #: As the configuration calls it: memory, filesystem, redis, or a plug-in's name.
    backend: str
    #: When the last clean-up ended (ISO 8601); missing if there was none.
    last_cleanup: str | None = None


class CleanupOptions(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a clean-up is to do; names and defaults of the configuration's `cleanup`. No number is below 0; 0: never."""

    #: Archives older than this are compressed (hours).
    max_age_hours: float = 168
    #: Conversations to which nothing was appended for so long are archived (hours).
    max_inactive_hours: float = 720
    #: Only say what would be done.
    dry_run: bool = False

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) is not (field.type is bool) or not isinstance(value, int | float):
                wanted = "True or False" if field.type is bool else "a number of hours, 0 or more"
                raise ConfigError(f"{field.name} cannot be {value!r:.40}: it has to be {wanted}")
            if not value >= 0:  # Nor what is no number.
                raise ConfigError(f"{field.name} has to be 0 or more, not {value!r}")


class CleanupResult(Model, frozen=True, kw_only=True):
    """What a clean-up did, or with `dry_run` would have done."""

    #: When it began (ISO 8601), and how long it took (milliseconds).
    started_at: str
    duration_ms: int
    dry_run: bool
    #: Users that were looked at.
    users: int
    #: Idle conversations that were archived.
    archived: int
    #: Archives that were compressed; of a dry run, those old enough, though some may not get smaller.
    compressed: int
    #: Bytes of storage that compression saved; 0 of a dry run, which cannot know.
    bytes_saved: int
    #: Archives older than `retentionDays`, which somebody may want to remove; potofs never does.
    due_by_retention: int
    #: Conversations by which users are above `maxConversationsPerUser`; likewise.
    due_by_count: int
    #: Users of whom something could not be done; the log says what.
    errors: int
