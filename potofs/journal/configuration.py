"""The configuration in force, in the shape of the document's file: what was set, what was not, and no secret.

dialogueJournal:
  backend: "filesystem"
  filesystem:
    root: "/var/lib/poto"
    maxConversationLength: 1000
    …
  cleanup:
    maxAgeHours: 168
    …
"""

from typing import Any

import msgspec

from potofs import config
from potofs.backends.base import Backend
from potofs.journal import values
from potofs.journal.models import CleanupOptions


def render(backend: Backend) -> bytes:
    """The whole file. A password in a URL, and what is a secret by its name, are not in it."""
    inner = values.block({"backend": backend.name, backend.name: _settings(backend), "cleanup": _all(CleanupOptions())})
    # Every value stands on one line.
    return ("dialogueJournal:\n" + "".join(f"  {line}\n" for line in inner.splitlines())).encode()


def _settings(backend: Backend) -> dict[str, Any]:
    where, found = backend.where, {}
    if where is not None and where.scheme == "file":
        # A path need not be text.
        found["root"] = where.place.encode(errors="surrogateescape").decode(errors="replace")
    elif where is not None and where.place:
        found["url"] = str(where)
    if backend.configured is not None:
        found |= _all(backend.configured)
    elif where is not None:
        found |= where.options
    return config.redacted(found)


def _all(settings: msgspec.Struct) -> dict[str, Any]:
    """Every setting, defaults included."""
    return {field.encode_name: getattr(settings, field.name) for field in msgspec.structs.fields(settings)}
