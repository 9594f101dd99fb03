"""What stands in the first column of fstab: where the journal is, in one word that everybody may read."""

import logging
import os
import re
from stat import S_IRGRP, S_IROTH

from potofs import config
from potofs.backends import registry
from potofs.config import Where
from potofs.errors import ConfigError, PotofsError

log = logging.getLogger(__name__)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# More than any URL has (bytes).
_MOST = 1 << 16
_OF_OTHERS = S_IRGRP | S_IROTH


def where_of(source: str) -> Where:
    """The backend that a source means: a URL, a journal's folder, or a file in which the URL stands.

    The last is for a URL with a password, as fstab and lists of processes are read by everybody. Its first line that is
    not empty and no comment (#) counts; if others can read a password in it, that is warned of. Raises ConfigError,
    OSError.
    """
    if _URL.match(source):
        return config.parse(source)
    if not source:
        raise ConfigError("the source is empty: name a folder, a backend URL, or a file that holds one")
    if os.path.isdir(source):
        return config.root(source)
    if not os.path.isfile(source):
        # Not made: here a slip of the pen would be a new and empty journal.
        raise ConfigError(
            f"{source}: there is no such folder: make it (mkdir -p), or name a backend URL or a file that holds one"
        )
    with open(source, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        lines = (line.strip() for line in file.read(_MOST).decode(errors="replace").splitlines())
    url = next((line for line in lines if line and not line.startswith("#")), "")
    try:
        where = config.parse(url)
        if any(map(str.isspace, url)) or not registry.is_offered(where.scheme):
            raise ConfigError("no URL is like this")
    except PotofsError:
        # Without what stands there: it may be a secret that is only spelled wrong.
        raise ConfigError(f"{source}: its first line is no backend URL: write one like redis://host:6379/0") from None
    if mode & _OF_OTHERS and config.without_secrets(url) != url:
        log.warning("%s: others can read the password in it: chmod 600 %s", source, source)
    return where


def shown(source: str, where: Where) -> str:
    """What mount(8) shows: as it was given, by which `mount -a` knows it again, or the URL without its secrets."""
    is_plain = source.isascii() and source.isprintable() and not set(source) & set(",\\ ")
    # Which options of another package's backend are secrets, their names need not tell.
    may_tell = _URL.match(source) and ("@" in source or (where.options and where.scheme not in registry.SCHEMES))
    return source if is_plain and not may_tell else str(where)
