"""A conversation as a file for other programs."""

import logging
from collections.abc import Iterator

from potofs.backends.base import Backend
from potofs.errors import NotFound
from potofs.journal import exchange, ranges
from potofs.journal.exchange import csvform, jsonform, text
from potofs.journal.message import ChatMessage
from potofs.journal.reading import Damage

log = logging.getLogger(__name__)

_WRITE = {"json": jsonform.write, "csv": csvform.write}


def export(backend: Backend, user: str, form: str, archive: str | None = None) -> Iterator[str]:
    """The pieces of the file; a running conversation that is not there is one without messages.

    Damage in it is stepped over and logged. Raises ConfigError; and with the first piece NotFound for an archive that
    is not there. A value that cannot be written is InvalidMessage.
    """
    exchange.check(form)
    return text.joined(_WRITE[form](_messages(backend, user, archive)))


def _messages(backend: Backend, user: str, archive: str | None) -> Iterator[ChatMessage]:
    try:
        reader = backend.open(user, archive)
    except NotFound:
        if archive is None:
            return
        raise
    with reader:
        for entry in ranges.entries(reader):
            if isinstance(entry, Damage):
                log.warning("user %r: damage at byte %d: %s", user, entry.offset, entry.reason)
            else:
                yield entry
