"""What is noted of a whole shard: sums over its users, and whose the bytes in it are. All of it is made again from the
users' entries."""

import time
from collections.abc import Iterable, Iterator

from potofs.backends.base import Finding
from potofs.backends.redis import scripts
from potofs.backends.redis.connection import Link
from potofs.backends.redis.fences import fence_of
from potofs.backends.redis.inventory import Found, Inventory, Note, User, notes_in
from potofs.backends.redis.keys import SHARDS, Keys
from potofs.backends.redis.reading import is_number
from potofs.errors import Damaged

# How often something is looked at again that is being changed.
_TRIES = 5
# The sums over a shard's users.
_SUMS = ("users", "conversations", "archives", "messages", "bytes")


class Sums:
    """The figures of one journal's shards. When messages were said is compared for what was read before."""

    def __init__(self, link: Link, keys: Keys, inventory: Inventory) -> None:
        self._link = link
        self._keys = keys
        self._inventory = inventory
        # The first and the last time at which something was said in a shard, of what was read.
        self._said: dict[int, tuple[int, int]] = {}

    def widen(self, shard: int, first: str, last: str) -> None:
        """Takes note of when messages of a shard were said (nanoseconds in decimal, or empty)."""
        if first:
            so_far = self._said.get(shard, (int(first), int(last)))
            self._said[shard] = min(so_far[0], int(first)), max(so_far[1], int(last))

    def of_shard(self, shard: int, found: Found, repair: bool) -> Iterator[Finding]:
        """What is wrong with the figures of a shard."""
        key = self._keys.shard(shard)
        finding: Finding | None = None
        for _ in range(_TRIES):
            try:
                fields: dict[bytes, bytes] = self._link.command("HGETALL", key)
            except Damaged:
                return
            changes = fields.get(b"changes", b"")
            listed = self._inventory.listed(shard)[0]
            users = self._inventory.users(shard, listed | found.users)
            if (self._link.command("HGET", key, "changes") or b"") != changes:
                continue
            wrong = self._wrong_figures(shard, fields, len(listed), users.values())
            numbers = {held.entry.stat.id for user in users.values() for held in user.held} | found.bytes
            last_number = max((conversation // SHARDS for conversation in numbers), default=0)
            was = fields.get(b"last_number", b"")
            if (not was.isdigit() and (was or last_number)) or int(was or 0) < last_number:
                wrong["last_number"] = last_number
            noted = notes_in(fields)
            right = _right_notes(shard, users, noted)
            astray = sum(noted.get(conversation, note) != note for conversation, note in right.items())
            said = [f"{field} {_shown(fields, field)} for {_text(value)}" for field, value in wrong.items()]
            said += [f"whose {astray} conversations are is noted wrong"] if astray else []
            # Without a finding: there is nothing wrong with a journal of an older potofs, which noted none.
            missing: dict[str, int | bytes] = {f"of:{at}": note for at, note in right.items() if noted.get(at) != note}
            if not said and not (repair and missing):
                return
            finding = Finding(None, key, f"the sums are wrong: {', '.join(said)}") if said else None
            if not repair or self._recounted(shard, changes, last_number, wrong | missing):
                if finding:
                    yield finding._replace(repaired=repair)
                return
        if finding:
            yield finding

    def _wrong_figures(
        self, shard: int, fields: dict[bytes, bytes], listed: int, users: Iterable[User]
    ) -> dict[str, int | bytes]:
        """The fields that are wrong, and what they have to be."""
        held = [held for user in users for held in user.held]
        entries = [one.entry for one in held if one.kind != "aside"]
        running = sum(one.kind == "current" for one in held)
        messages, size = sum(entry.messages for entry in entries), sum(entry.stat.size for entry in entries)
        sums = (listed, running, len(entries) - running, messages, size)
        wrong: dict[str, int | bytes] = {
            field: value
            for field, value in zip(_SUMS, sums, strict=True)
            if not is_number(was := fields.get(field.encode()) or b"0") or int(was) != value
        }
        now = time.time_ns()
        first, last = (_number(fields.get(field)) for field in (b"first", b"last"))
        said = self._said.get(shard)
        if said and (first is None or first > said[0]):
            wrong["first"] = said[0]
        if said and (last is None or last < said[1]):
            wrong["last"] = said[1]
        # More changes than anybody has seen, so that whoever repeats one is told that it cannot be told.
        changes = now // 1_000_000
        others: dict[str, int | bytes] = {
            "first": b"",
            "last": b"",
            "users_changed": now,
            "awaited": 0,
            "changes": changes,
        }
        for field, value in others.items():
            was = fields.get(field.encode(), b"")
            if field not in wrong and was and not is_number(was):
                wrong[field] = value
        if listed and not fields.get(b"changes"):
            wrong["changes"] = changes
        return wrong

    def _recounted(self, shard: int, changes: bytes, last_number: int, wrong: dict[str, int | bytes]) -> bool:
        key = self._keys.shard(shard)
        pairs = [part for field, value in wrong.items() if field != "last_number" for part in (field, value)]
        match self._link.script(scripts.recount(), (key,), (changes, last_number, *pairs))[0]:
            case [b"fenced", fence]:
                fence_of(key, fence).check()
            case [b"done"]:
                # No replica is waited for: what is derived can be made again.
                return True
        return False


def _right_notes(shard: int, users: dict[str, User], noted: dict[int, bytes]) -> dict[int, bytes]:
    """What has to be noted; nothing of what two users have an entry of, or another than it is noted for."""
    owners: dict[int, set[str]] = {}
    right: dict[int, bytes] = {}
    for name, user in users.items():
        for held in user.held:
            owners.setdefault(held.entry.stat.id, set()).add(name)
            right[held.entry.stat.id] = Note.of(name, held)
    for conversation, names in owners.items():
        note = Note.parse(noted.get(conversation, b""), shard)
        if len(names) > 1 or (note and note.user not in names):
            del right[conversation]
    return right


def _text(value: int | bytes) -> str:
    return str(value) if isinstance(value, int) else "none"


def _number(value: bytes | None) -> int | None:
    return int(value) if value and is_number(value) else None


def _shown(fields: dict[bytes, bytes], field: str) -> str:
    value = fields.get(field.encode(), b"")
    return str(int(value or 0)) if is_number(value or b"0") else repr(value.decode(errors="backslashreplace")[:40])
