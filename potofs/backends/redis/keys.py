"""The keys of a journal in Redis, and what each holds.

A user belongs to one of 256 shards by a digest of the id. All keys of a shard carry its number as their hash tag, so
that a cluster keeps them together, and one script can change them as a whole. `poto:dialogue:` is the prefix:

    poto:dialogue:journal                  hash    format: the version of this layout; says that there is a journal
    poto:dialogue:cleanup.log              string  what clean-ups did, a line each

    poto:dialogue:{ab}:shard               hash    figures over the shard's users, the fence, the last number given
                                                   away, the number of changes; `of:427` -> whose the bytes are, what
                                                   they are (current, archive, aside) and their name, a line each
    poto:dialogue:{ab}:users               set     the ids of its users
    poto:dialogue:{ab}:answers:0 and :1    hash    what the last changes answered, by their tokens, in two halves
    poto:dialogue:{ab}:user:mia            hash    profile, and when it was written; the running conversation's number,
                                                   size and times; which archive is the newest
    poto:dialogue:{ab}:archives:mia        hash    name -> `number mtime ctime size messages`
    poto:dialogue:{ab}:asides:mia          hash    the same of what was set aside
    poto:dialogue:{ab}:bytes:427           string  a conversation's bytes, under its number
    poto:dialogue:{ab}:staged:9f86…        string  bytes that are being brought, under a random name until they have a
                                                   number; a process that is killed meanwhile leaves them
    poto:dialogue:{ab}:known:427           hash    fingerprints of its messages, and an empty one once all are there; of
                                                   running conversations and of newest archives only. May be deleted at
                                                   any time: made again from the bytes
    poto:dialogue:{ab}:damaged:…           any     what a check found under one of these names in another type

Bytes lie under the conversation's number and never move: archiving, restoring and renaming change an entry of an index,
and whoever reads a conversation goes on reading it by number. No key expires. Names are spelled as file names are, and
`:`, `{` and `}` escaped likewise. A number is counted up in its shard and ends in the shard, so that none comes twice;
and because a master that took over may not know of the last ones, none is taken that there are bytes under. Bytes get
their number from the script that names them: those that nothing refers to have lost their entry, and are not on their
way in. What a shard notes of them (`of:`) says whose they were; what an older potofs made has no note at first.
Times are nanoseconds since 1970, in decimal.

Beside them there is a channel, `poto:dialogue:changes`: `notices.py` says what is told there.

What changes a key is in the scripts beside this file, and nowhere else.
"""

import builtins
import re
from hashlib import blake2b

from potofs import names

SHARDS = 256
#: The version of this layout.
FORMAT = 1
# What each kind of a shard's keys is in Redis.
_TYPES = {
    "shard": "hash",
    "users": "set",
    "answers": "hash",
    "user": "hash",
    "archives": "hash",
    "asides": "hash",
    "bytes": "string",
    "staged": "string",
    "known": "hash",
}


def shard_of_user(user: str) -> int:
    """The shard that a user belongs to; raises InvalidName, NameTooLong."""
    return blake2b(names.encode(user).encode(), digest_size=1).digest()[0]


def number(count: int, shard: int) -> int:
    """The number of the shard's conversation `count`; below 2^63 for longer than there will be any memory."""
    return count * SHARDS + shard


def nobody(shard: int) -> int:
    """A number that no conversation of the shard has, for a key that has to be given."""
    return number(0, shard)


class Keys:
    """The keys of the journal with a prefix."""

    def __init__(self, prefix: str) -> None:
        #: The pattern of all keys of shards, for SCAN.
        self.pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "{[0-9a-f][0-9a-f]}:*"
        self._parts = re.compile(re.escape(prefix.encode()) + rb"\{([0-9a-f]{2})\}:([a-z]+)(?::(.*))?", re.DOTALL)
        self._of_shard = [f"{prefix}{{{shard:02x}}}:" for shard in range(SHARDS)]
        self.journal = f"{prefix}journal"
        self.cleanup_log = f"{prefix}cleanup.log"
        #: Where it is published when a user, or a conversation of one, has come, gone or got another name (`notices`).
        self.channel = f"{prefix}changes"

    def shard(self, shard: int) -> str:
        return self._of_shard[shard] + "shard"

    def users(self, shard: int) -> str:
        return self._of_shard[shard] + "users"

    def answers(self, shard: int, half: int) -> str:
        return f"{self._of_shard[shard]}answers:{half}"

    def user(self, user: str) -> str:
        """Raises InvalidName, NameTooLong."""
        return self._of_user("user", user)

    def archives(self, user: str) -> str:
        return self._of_user("archives", user)

    def asides(self, user: str) -> str:
        return self._of_user("asides", user)

    def bytes(self, conversation: int) -> str:
        return f"{self._of_shard[conversation % SHARDS]}bytes:{conversation}"

    def staged(self, shard: int, token: str) -> str:
        return f"{self._of_shard[shard]}staged:{token}"

    def known(self, conversation: int) -> str:
        return f"{self._of_shard[conversation % SHARDS]}known:{conversation}"

    def parts(self, key: builtins.bytes) -> tuple[int, str, str] | None:
        """What a key of a shard says: shard, kind, and what that is followed by; None if it is no such key."""
        found = self._parts.fullmatch(key)
        return (int(found[1], 16), found[2].decode(), (found[3] or b"").decode(errors="replace")) if found else None

    def type_of(self, key: str) -> str | None:
        """What a key has to be in Redis, as TYPE says it; None if it may be anything."""
        if key == self.journal:
            return "hash"
        if key == self.cleanup_log:
            return "string"
        parts = self.parts(key.encode())
        return _TYPES.get(parts[1]) if parts else None

    def damaged(self, key: str, token: str) -> str:
        """Another name for a key of a shard that is not what it has to be."""
        shard, kind, rest = self.parts(key.encode()) or (0, "", "")
        return self._of_shard[shard] + ":".join(part for part in ("damaged", kind, rest, token) if part)

    @staticmethod
    def user_of(spelled: str) -> str:
        """The user whose keys end so; raises InvalidName, NameTooLong."""
        return names.decode(spelled.replace("%3A", ":").replace("%7B", "{").replace("%7D", "}"))

    def _of_user(self, kind: str, user: str) -> str:
        spelled = names.encode(user).replace(":", "%3A").replace("{", "%7B").replace("}", "%7D")
        return f"{self._of_shard[shard_of_user(user)]}{kind}:{spelled}"
