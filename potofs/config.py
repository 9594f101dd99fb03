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
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, Literal, TypeVar, get_args, get_origin
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

# msgspec takes 1e3 and 5.0 for whole numbers, too, and people who write them wonder why 1.5 is none.
_WHOLE_NUMBER = re.compile("-?[0-9]+")

_PASSWORD = re.compile("(://[^/?#@:]*:).*@", re.DOTALL)
_OPTION = re.compile("([?&;])([^=?&;#]+)=([^&;#]+)")
# What a setting is called that nobody may see.
_SECRET = re.compile(
    "pass(word|wd|phrase)?$|pwd|secret|token|credential|auth(?!or)|dsn|signature|(api|access|private)_?key|key$",
    re.IGNORECASE,
)


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
                raise ValueError(f"{field.encode_name}: expected 0 or more, got {value}")

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
            raise ValueError("timeoutMs: expected 1 or more, got 0")
        if "{" in self.key_prefix or "}" in self.key_prefix:
            raise ValueError(
                f"keyPrefix: expected text without braces, by which a cluster places keys, got {self.key_prefix!r:.40}"
            )

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

    def __post_init__(self) -> None:
        if self.scheme == "file" and self.place.startswith("/") and not self.place.strip("/"):
            raise ConfigError(f"{self}: no journal is put into the root of the system: name a folder of its own")

    def settings(self, kind: type[SettingsType]) -> SettingsType:
        """Its options as settings; raises ConfigError for an unknown name or a value that cannot be."""
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        why: object = _mistake(self.options, fields)
        if why is None:
            try:
                return msgspec.convert(self.options, kind, strict=False)
            except msgspec.ValidationError as error:
                why = error
        raise ConfigError(f"{self}: {why}; the settings are {', '.join(fields)}")

    @property
    def url(self) -> str:
        """The whole URL, which `parse` reads back; a password stands in it."""
        url = self._with(self.place)
        return f"{url}?{urlencode(self.options)}" if self.options else url

    def __str__(self) -> str:
        """The URL without its options and without a password, in ASCII; for a log or a list of mounts."""
        user, at, rest = self.place.rpartition("@")
        # Of another package's backend nobody here knows what its place means: what looks like a password is one.
        if self.scheme != "file" and ":" in user:
            return self._with(f"{user.partition(':')[0]}:***{at}{rest}")
        return self._with(self.place)

    def _with(self, place: str) -> str:
        # Redis without a host is the local one; elsewhere, what has no place is a name alone, as in memory:
        slashes = "//" if place or self.scheme in REDIS_SCHEMES else ""
        # As the system spells names: a path need not be text. No comma, which would end an option of mount(8).
        return f"{self.scheme}:{slashes}{quote(place, safe='/:@*', errors='surrogateescape')}"


def _mistake(options: dict[str, str], fields: dict[str, Any]) -> str | None:
    """The first option that is wrong by itself, by its own name; None if none is."""
    for name, value in options.items():
        if name not in fields:
            near = get_close_matches(name, fields, n=1)
            return f"{name}: there is no such setting{f', did you mean {near[0]}?' if near else ''}"
        try:
            if fields[name] is int and isinstance(value, str) and not _WHOLE_NUMBER.fullmatch(value):
                raise msgspec.ValidationError
            msgspec.convert(value, fields[name], strict=False)
        except msgspec.ValidationError as error:
            return f"{name}: {_expected(fields[name], error)}, got {value!r:.40}"
    return None


def _expected(kind: Any, error: msgspec.ValidationError) -> str:
    """What a setting of a type takes, as a person says it; msgspec's own words for a type that none of ours has."""
    if kind is int:
        return "expected a whole number"
    if kind is bool:
        return "expected true or false"
    if get_origin(kind) is Literal:
        return f"expected {' or '.join(map(str, get_args(kind)))}"
    return str(error)


def redacted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they may be shown, at any depth: no secret by its name, and none that is in a URL."""
    return {name: "***" if _SECRET.search(str(name)) and value else _shown(value) for name, value in options.items()}


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return redacted(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(one) for one in value]
    return value


def without_secrets(url: str) -> str:
    """A URL, or what was meant as one, as it may be shown: without its password and options that are secrets."""

    def shown(option: re.Match[str]) -> str:
        start, name, _ = option.groups()
        return f"{start}{name}=***" if _SECRET.search(unquote(name)) else option[0]

    return _OPTION.sub(shown, _PASSWORD.sub(r"\1***@", url))


def root(directory: str) -> Where:
    """The file backend in a directory; `--root DIR` is short for this. Raises ConfigError for `/` or a URL."""
    if re.match("[A-Za-z][A-Za-z0-9+.-]*://", directory):
        raise ConfigError(f"{without_secrets(directory)} is a URL and no folder: give it with --backend")
    return Where("file", os.path.abspath(directory))


def parse(url: str) -> Where:
    """A backend URL, taken apart; raises ConfigError if it is none."""
    # A password belongs into no log and on no screen.
    shown = repr(without_secrets(url))
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"{shown} is not a backend URL: {error}") from None
    if not parts.scheme:
        raise ConfigError(f"{shown} is not a backend URL: write file:///var/lib/poto, or give --root DIR")
    if "#" in url:
        raise ConfigError(f"{shown}: a # in a backend URL is written %23")
    try:
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ConfigError(f"{shown}: what follows ? has to be name=value&name=value") from None
    options: dict[str, str] = {}
    for name, value in given:
        if name in options:
            raise ConfigError(f"{shown}: {name} is given twice, give it once")
        options[name] = value
    place = unquote(parts.netloc + parts.path, errors="surrogateescape")
    if parts.scheme == "file":
        if parts.netloc or not place.startswith("/"):
            raise ConfigError(f"{shown}: a file URL has three slashes and a whole path, file:///var/lib/poto")
        if "\0" in place:
            raise ConfigError(f"{shown}: no path has a NUL in it")
        place = os.path.abspath(place)
    elif parts.scheme in REDIS_SCHEMES and "prefix" in options:
        if "keyPrefix" in options:
            raise ConfigError(f"{shown}: prefix is short for keyPrefix, give one of them")
        options["keyPrefix"] = options.pop("prefix")
    return Where(parts.scheme, place, options)
