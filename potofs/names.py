"""How user ids and archive names are spelled as file names: one spelling each, the same on disk and in the mount.

A user id is any non-empty string. In a name, `/`, NUL, `%`, the control characters (C0, DEL and C1) and a leading dot
are written as `%XX`, one for each byte of their UTF-8, in capitals. Everything else stays as it is. So a name can
leave no folder and hide nowhere (`..` is `%2E.`), and reads back to exactly one id:

    alice@example.org  <->  alice@example.org
    a/b                <->  a%2Fb
    ..                 <->  %2E.
    100%               <->  100%25
"""

import re
from collections.abc import Callable
from functools import lru_cache

from potofs.errors import InvalidName, NameTooLong

#: Bytes in one name of a directory, as in limits.h.
NAME_MAX = 255
#: What every conversation's file name ends in.
SUFFIX = ".yaml"
#: Room that an archive's name leaves for the ending of its compressed form.
_COMPRESSED_SUFFIX = ".gz"

_ESCAPED = re.compile("[/%\x00-\x1f\x7f-\x9f]|^\\.")
_ESCAPES = re.compile("(?:%[0-9A-Fa-f]{2})+")


# A change of a user spells the name many times. (Some 300 bytes each.)
@lru_cache(maxsize=1 << 10)
def encode(text: str, *, limit: int = NAME_MAX) -> str:
    """The file name of a user id or an archive name.

    Raises InvalidName for an empty string or one that no UTF-8 can hold, NameTooLong past `limit` bytes.
    """
    if not text:
        raise InvalidName("an empty name: give at least one character")
    name = _ESCAPED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)
    check(name, limit=limit)
    return name


def check(name: str, *, limit: int = NAME_MAX) -> None:
    """Raises InvalidName for a file name that no UTF-8 can hold, NameTooLong past `limit` bytes."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"{name!a} has a lone surrogate, which UTF-8 cannot hold") from None
    if size > limit:
        raise NameTooLong(f"{name[:20]!r}…: {size} bytes as a file name, at most {limit} are possible")


def decode(name: str, *, limit: int = NAME_MAX) -> str:
    """The user id or archive name that a file name stands for.

    Raises InvalidName for a spelling that `encode` would not have written, NameTooLong past `limit` bytes.
    """
    try:
        text = _ESCAPES.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode(), name)
    except UnicodeDecodeError:
        raise InvalidName(f"{name!a} is not a name: its %XX are no UTF-8") from None
    expected = encode(text, limit=limit)
    if expected != name:
        raise InvalidName(f"{name!a} is not a name: {text!a} is spelled {expected!a}")
    return text


def archive_file(archive: str) -> str:
    """The file name of an archive, `refund` -> `refund.yaml`; raises as `encode` and for `current`."""
    if archive == "current":
        raise InvalidName("an archive cannot be called 'current': that is the running conversation")
    return encode(archive, limit=NAME_MAX - len(SUFFIX) - len(_COMPRESSED_SUFFIX)) + SUFFIX


def archive_name(file_name: str) -> str:
    """The archive that a file name stands for, `refund.yaml` -> `refund`; raises as `decode` and for `current`."""
    if not file_name.endswith(SUFFIX):
        raise InvalidName(f"{file_name!a} is not an archive's name: it has to end in {SUFFIX}")
    archive = decode(file_name.removesuffix(SUFFIX), limit=NAME_MAX - len(SUFFIX) - len(_COMPRESSED_SUFFIX))
    if archive == "current":
        raise InvalidName("an archive cannot be called 'current': that is the running conversation")
    return archive


def first_free(name: str, is_taken: Callable[[str], bool]) -> str:
    """The name, or the name with the first of -2, -3, … that is not taken."""
    number, candidate = 1, name
    while is_taken(candidate):
        number += 1
        candidate = f"{name}-{number}"
    return candidate
