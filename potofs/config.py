"""Where a journal lives and how it behaves, as plain data.

    file:///var/lib/poto
    file:///var/lib/poto?archiveThreshold=500&fsync=close
    redis://:password@host:6379/0?prefix=poto:dialogue:
    redis+sentinel://host:26379,host:26379/mymaster/0
    redis+cluster://host:7000,host:7001
    redis+unix:///run/redis/redis.sock

Names and defaults of the settings are those of the document's configuration file.
"""

import os
from typing import Final, Literal, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

from potofs.errors import ConfigError

#: Where the journal is if nobody says otherwise: the document's development default.
DEFAULT_ROOT: Final = "./data/dialogues"
#: Redis: one server by TCP, TLS or socket, what Sentinel says is the master, or a cluster.
REDIS_SCHEMES: Final = frozenset(
    {"redis", "rediss", "redis+unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
)
#: The largest record that is taken (bytes); it fits into one write of the kernel.
MAX_MESSAGE_BYTES: Final = 1 << 20


class Limits(msgspec.Struct, frozen=True):
    """What a clean-up goes by beside its options, as a backend was told. 0: never."""

    #: A conversation to which nothing was appended for so long (seconds) is archived.
    idle_seconds: int = 0
    #: Archives older than this (days), and conversations beyond so many of one user, are reported as due.
    retention_days: int = 0
    conversations_per_user: int = 0


class Settings(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What every backend can be told. No number is below 0."""

    #: A conversation may not grow longer than this (messages); 0: no limit.
    max_conversation_length: int = 1000
    #: More conversations of one user than this are reported as due for a clean-up; 0: no limit.
    max_conversations_per_user: int = 50

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{field.encode_name} has to be 0 or more")

    @property
    def limits(self) -> Limits:
        """What a clean-up goes by."""
        return Limits(conversations_per_user=self.max_conversations_per_user)


class ArchivingSettings(Settings, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a backend with archival can be told."""

    #: A conversation is archived by itself once it has this many messages; 0: never.
    archive_threshold: int = 100
    #: Archives older than this (days) are reported as due for a clean-up; 0: never.
    retention_days: int = 365

    @property
    def archive_at(self) -> int:
        """The number of messages at which a conversation is archived by itself; 0: never."""
        return min(filter(None, (self.archive_threshold, self.max_conversation_length)), default=0)

    @property
    def limits(self) -> Limits:
        return Limits(retention_days=self.retention_days, conversations_per_user=self.max_conversations_per_user)


class FilesystemSettings(ArchivingSettings, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What the filesystem backend can be told."""

    #: How long to wait for another writer of the same user (milliseconds).
    lock_timeout_ms: int = 5000
    #: When appended bytes are forced to disk: before an append returns, when its handle is closed, or never.
    fsync: Literal["always", "close", "never"] = "always"
    #: Whether programs that take no lock write here too: then no byte is cut back after a failed append, and only
    #: archives left alone for an hour are compressed.
    foreign_writers: bool = False


class RedisSettings(ArchivingSettings, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What the Redis backend can be told."""

    #: What every key begins with; `prefix` in a URL is short for it. Journals with different ones may share a server.
    key_prefix: str = "poto:dialogue:"
    #: The database, where the URL names none.
    db: int = 0
    #: How long to wait for a connection, and for an answer (milliseconds).
    timeout_ms: int = 5000
    #: Replicas that have to have a change before it is done.
    wait_replicas: int = 0
    #: A clean-up archives a conversation that was idle so long (seconds); 0: never. Nothing ever expires.
    ttl_seconds: int = 86400

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.timeout_ms:
            raise ValueError("timeoutMs has to be 1 or more")
        if "{" in self.key_prefix or "}" in self.key_prefix:
            raise ValueError("keyPrefix cannot have braces: a cluster would place keys by what is in them")

    @property
    def limits(self) -> Limits:
        return msgspec.structs.replace(super().limits, idle_seconds=self.ttl_seconds)


class MemorySettings(Settings, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What the memory backend can be told. A conversation that is too long forgets its oldest messages."""

    max_conversation_length: int = 100
    max_conversations_per_user: int = 10


SettingsType = TypeVar("SettingsType", bound=Settings)


class Where(msgspec.Struct, frozen=True):
    """A backend and its place."""

    #: The backend's name, as in a URL: file, redis.
    scheme: str
    #: Its place: for files an absolute path.
    place: str
    #: Settings by the configuration file's names, as they were written.
    options: dict[str, str] = {}

    def settings(self, kind: type[SettingsType]) -> SettingsType:
        """Its options as settings; raises ConfigError for an unknown name or a value that cannot be."""
        try:
            return msgspec.convert(self.options, kind, strict=False)
        except msgspec.ValidationError as error:
            names = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
            raise ConfigError(f"{self}: {error}; the settings are {names}") from None

    @property
    def url(self) -> str:
        """The whole URL, which `parse` reads back; a password stands in it."""
        url = self._with(self.place)
        return f"{url}?{urlencode(self.options)}" if self.options else url

    def __str__(self) -> str:
        """The URL without its options and without a password, in ASCII; for a log or a list of mounts."""
        user, at, rest = self.place.rpartition("@")
        if self.scheme in REDIS_SCHEMES and ":" in user:
            return self._with(f"{user.partition(':')[0]}:***{at}{rest}")
        return self._with(self.place)

    def _with(self, place: str) -> str:
        # As the system spells names: a path need not be text. No comma, which would end an option of mount(8).
        return f"{self.scheme}://{quote(place, safe='/:@*', errors='surrogateescape')}"


def root(directory: str) -> Where:
    """The file backend in a directory; `--root DIR` is short for this."""
    return Where("file", os.path.abspath(directory))


def parse(url: str) -> Where:
    """A backend URL, taken apart; raises ConfigError if it is none."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a backend URL: {error}") from None
    if not parts.scheme:
        raise ConfigError(f"{url!r} is not a backend URL: write file:///var/lib/poto, or give --root DIR")
    if "#" in url:
        raise ConfigError(f"{url!r}: a # in a backend URL is written %23")
    try:
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ConfigError(f"{url!r}: what follows ? has to be name=value&name=value") from None
    place = unquote(parts.netloc + parts.path, errors="surrogateescape")
    if parts.scheme == "file":
        if parts.netloc or not place.startswith("/"):
            raise ConfigError(f"{url!r}: a file URL has three slashes and a whole path, file:///var/lib/poto")
        if "\0" in place:
            raise ConfigError(f"{url!r}: no path has a NUL in it")
        place = os.path.abspath(place)
    elif parts.scheme in REDIS_SCHEMES and "prefix" in options:
        if "keyPrefix" in options:
            raise ConfigError(f"{url!r}: prefix is short for keyPrefix, give one of them")
        options["keyPrefix"] = options.pop("prefix")
    return Where(parts.scheme, place, options)
