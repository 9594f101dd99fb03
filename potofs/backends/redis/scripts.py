"""The scripts that change a journal, as they are in the `.lua` files beside this one.

A script does one change whole: nothing else comes between its commands. Redis does not roll back, so each looks at
everything first and writes last. All keys come in KEYS. `begin.lua` stands before each change and says what is common;
behind that `sound.lua`, before those that what is damaged ends, or `unsound.lua`, before those that mend it; and
`fence.lua`, before those that a fence keeps from being done.
"""

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script, and what a server knows it by."""

    text: str
    digest: str


def change(name: str, *, fenced: bool = True) -> Script:
    """The script of one change, `append` for example; `fenced`: whether a fence keeps it from being done."""
    # What is damaged is mended by scripts that go on in spite of it.
    sound = "unsound" if name in ("mend", "give_back") else "sound"
    return _script("know", "begin", sound, *(("fence",) if fenced else ()), name)


def learn() -> Script:
    """The script that notes some of the messages that a conversation's bytes hold."""
    return _script("know", "learn")


def log() -> Script:
    """The script that adds a line to the log of clean-ups."""
    return _script("log")


def set_users_changed() -> Script:
    """The script that sets when a user of a shard was last added."""
    return _script("set_users_changed")


def entries() -> Script:
    """The script that reads what is stored of users of a shard."""
    return _script("entries")


def look() -> Script:
    """The script that reads what there is of a conversation."""
    return _script("look")


def recount() -> Script:
    """The script that takes sums over a shard's users."""
    return _script("recount")


def put_by() -> Script:
    """The script that gives a key that is not of its type another name."""
    return _script("put_by")


def refence() -> Script:
    """The script that sets a shard's damaged fence."""
    return _script("refence")


@cache
def _script(*names: str) -> Script:
    folder = files("potofs.backends.redis")
    text = "\n".join(folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names)
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
