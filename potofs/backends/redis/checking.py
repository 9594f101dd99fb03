"""What can be wrong in Redis beside the records, found and mended: here what is noted of a user, which is not what the
bytes say; for the rest it asks those who know (`misfits.py`, `leftovers.py`, `sums.py`).

What belongs together is read by one script, so that nothing is taken for a fault that is being changed just now; it is
mended by one too, and only if it is still as it was seen. Bytes are never removed unless they never came to have a
number, so that nobody was told that they are stored.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from potofs.backends.base import Finding
from potofs.backends.redis import scripts
from potofs.backends.redis.changes import Changes, Refusal
from potofs.backends.redis.connection import Link
from potofs.backends.redis.fences import Fences
from potofs.backends.redis.inventory import Held, Inventory, Note, Torn, User, place_of
from potofs.backends.redis.keys import Keys, nobody, shard_of_user
from potofs.backends.redis.leftovers import Leftovers
from potofs.backends.redis.misfits import Misfits
from potofs.backends.redis.reading import Entry, read_bytes
from potofs.backends.redis.sums import Sums

# How often something is looked at again that is being changed.
_TRIES = 5


class Checks:
    """The checks of one journal. When messages were said is compared for what users' checks have read before."""

    def __init__(self, link: Link, keys: Keys, changes: Changes, fences: Fences) -> None:
        self._link = link
        self._keys = keys
        self._changes = changes
        self._fences = fences
        self._inventory = Inventory(link, keys)
        self._misfits = Misfits(link, keys)
        self._leftovers = Leftovers(link, keys, changes, self._inventory)
        self._sums = Sums(link, keys, self._inventory)

    def user(self, user: str, repair: bool) -> Iterator[Finding]:
        """What is wrong with a user."""
        own = (self._keys.user(user), self._keys.archives(user), self._keys.asides(user))
        misfits = self._misfits.among(user, shard_of_user(user), own, repair)[0]
        found = self._inventory.user(user)
        is_lost = bool(misfits) or not found.is_whole
        # What is lost comes back before anything is said to be mended: what runs first, and what a damaged entry stands
        # for in its place.
        given = self._leftovers.of_user(user, found, ("current",)) if repair and is_lost else []
        junk = [self._junk(user, found, repair and all(one.repaired for one in given))] if found.junk else []
        in_place = {torn.kind for torn in found.torn}
        if repair and is_lost:
            at_once = {"archive", "aside"} - in_place
            given += self._leftovers.of_user(user, self._inventory.user(user), at_once)
        yield from (*misfits, *junk)
        for torn in found.torn:
            yield self._torn(user, torn, repair)
        if repair and in_place:
            given += self._leftovers.of_user(user, self._inventory.user(user), in_place)
        yield from given
        if found.is_listed != found.is_made or (found.held and not found.is_listed):
            what = f"what is noted of the user is gone from {own[0]}"
            if not found.is_listed:
                what = f"is not in the list of users, {self._keys.users(shard_of_user(user))}"
            yield Finding(user, "user", what, self._mended(user, repair, "user"))
        if repair and is_lost:
            found = self._inventory.user(user)
        judged = yield from self._of_others(user, found, repair)
        for _ in range(_TRIES):
            moved = False
            fresh = [held for held in found.held if held.entry.stat.id not in judged]
            unread = yield from self._of_other_types(user, fresh, repair)
            judged |= unread
            for held in fresh:
                if held.entry.stat.id not in judged:
                    findings = self._of_held(user, held, repair)
                    if findings is None:
                        moved = True
                    else:
                        judged.add(held.entry.stat.id)
                        yield from findings
            found = self._inventory.user(user)
            if not moved:
                break
        if found.newest != found.right_newest():
            what = "another archive is the newest than what is noted"
            yield Finding(user, "archived/", what, self._mended(user, repair, "newest"))

    def place(self, repair: bool) -> Iterator[Finding]:
        """What is wrong with what is not one user's, and with users that are not in the list."""
        yield from self._misfits.of_journal(repair)
        shards = self._inventory.scanned()
        for shard, found in shards.items():
            yield from self._misfits.of_shard(shard, found, self._inventory.listed(shard)[1], repair)
        yield from self._fences.check(repair)
        for shard, found in shards.items():
            for user in sorted(found.users - self._inventory.listed(shard)[0]):
                yield from self.user(user, repair)
            yield from self._leftovers.of_shard(shard, found, repair)
            yield from self._sums.of_shard(shard, found, repair)

    def _junk(self, user: str, found: User, repair: bool) -> Finding:
        said = ", ".join(f"{field} {_shown(value)}" for field, value in found.junk.items())
        finding = Finding(user, self._keys.user(user), f"no number, or none of this shard's: {said}")
        if not repair:
            return finding
        running = next((held.entry.stat.id for held in found.held if held.kind == "current"), None)
        conversation = nobody(shard_of_user(user)) if running is None else running
        key = self._keys.bytes(conversation)
        # What is no string is found to be none afterwards.
        if self._link.command("TYPE", key) not in (b"string", b"none"):
            key = self._keys.bytes(nobody(shard_of_user(user)))
        data = read_bytes(self._link, key)
        arguments = ("fields", "", conversation, len(data), self._changes.figures(data).messages, "", "")
        return finding._replace(repaired=self._do(user, arguments, (key, self._keys.known(conversation))))

    def _torn(self, user: str, torn: Torn, repair: bool) -> Finding:
        """An entry that is damaged. If it is noted elsewhere what it was about, that takes its place."""
        index = self._keys.asides(user) if torn.kind == "aside" else self._keys.archives(user)
        what = f"the entry {_shown(torn.name)} is damaged: {_shown(torn.text)}"
        shard = shard_of_user(user)
        # By its name or, if that is what is damaged, by the number in it.
        number = Entry.number(torn.text)
        for conversation, text in self._inventory.notes(shard).items():
            note = Note.parse(text, shard)
            if note is None or (note.user, note.kind) != (user, torn.kind):
                continue
            is_its = conversation == number or note.name.encode() == torn.name
            if is_its and self._link.command("EXISTS", self._keys.bytes(conversation)):
                what = f"{what}, in {index}"
                if repair:
                    return self._leftovers.given_back(conversation, note, what, torn=torn)
                return Finding(user, place_of(torn.kind, note.name), what)
        way = "HSET it to `number mtime ctime size messages` if you find its bytes, or HDEL it"
        return Finding(user, index, f"{what}, and it is not noted what it was about. {way}")

    def _of_others(self, user: str, found: User, repair: bool) -> Generator[Finding, None, set[int]]:
        """Entries with the number of what is noted as another user's; returns the numbers, which are not looked at."""
        shard = shard_of_user(user)
        numbers = [held.entry.stat.id for held in found.held]
        others: set[int] = set()
        for held, text in zip(found.held, self._inventory.notes_of(shard, numbers), strict=True):
            note = Note.parse(text, shard)
            if note is None or note.user == user:
                continue
            others.add(held.entry.stat.id)
            if held.kind == "current":
                what = f"its bytes, {self._keys.bytes(held.entry.stat.id)}, are noted as those of user {note.user!r}"
                yield Finding(user, held.place, f"{what}. If they are, HDEL current from {self._keys.user(user)}")
            else:
                yield self._torn(user, Torn(held.kind, held.name.encode(), held.text), repair)
        return others

    def _of_other_types(self, user: str, all_held: Sequence[Held], repair: bool) -> Generator[Finding, None, set[int]]:
        """Bytes and fingerprints that are none; returns the numbers of those that cannot be looked at."""
        keys = {make(held.entry.stat.id): held for held in all_held for make in (self._keys.bytes, self._keys.known)}
        findings, left = self._misfits.among(user, shard_of_user(user), list(keys), repair)
        yield from findings
        return {keys[key].entry.stat.id for key in left}

    def _of_held(self, user: str, held: Held, repair: bool) -> list[Finding] | None:
        """What is wrong with bytes and what is noted of them; None if they are called something else by now."""
        conversation = held.entry.stat.id
        index = self._keys.asides(user) if held.kind == "aside" else self._keys.archives(user)
        bytes_key, known_key = self._keys.bytes(conversation), self._keys.known(conversation)
        findings: list[Finding] = []
        for _ in range(_TRIES):
            answer: Sequence[Any] = self._link.script(
                scripts.look(), (self._keys.user(user), index, bytes_key, known_key), (held.kind, held.name)
            )[0]
            text, there, known = answer
            entry = Entry.parse(text) if text else None
            if entry is None or entry.stat.id != conversation:
                return None
            if entry.stat.size and not there:
                what = f"all its {entry.stat.size} bytes are gone from {bytes_key}"
                return [Finding(user, held.place, f"{what}, and there is nothing to mend it with")]
            if held.kind == "aside":
                count, first, last = 0, "", ""
                fingerprints: set[bytes] = set()
            else:
                data = read_bytes(self._link, bytes_key, there)
                if len(data) < there:
                    continue
                count, first, last, marks = self._changes.figures(data)
                fingerprints = {b"", *marks}
                self._sums.widen(shard_of_user(user), first, last)
            findings = []
            if (entry.stat.size, entry.messages) != (there, count):
                noted = _amount(entry.stat.size, entry.messages, held.kind)
                what = f"{noted} are noted, and there are {_amount(there, count, held.kind)}"
                mending = (held.kind, held.name, text, there, count, first, last)
                if repair and not self._do(user, mending, (bytes_key, known_key), index):
                    # It has gone on.
                    findings = [Finding(user, held.place, what)]
                    continue
                findings.append(Finding(user, held.place, what, repair))
            # Not all of them, without the empty one that says so: they are being noted just now, and not believed yet.
            if known and set(known) != fingerprints and (b"" in known or not fingerprints.issuperset(known)):
                if repair:
                    # Made again when they are wanted.
                    self._link.command("UNLINK", known_key)
                findings.append(
                    Finding(user, held.place, f"the fingerprints in {known_key} are not its messages'", repair)
                )
            break
        return findings

    def _mended(self, user: str, repair: bool, kind: str) -> bool:
        if repair:
            none = nobody(shard_of_user(user))
            self._do(user, (kind, "", "", "", "", "", ""), (self._keys.bytes(none), self._keys.known(none)))
        return repair

    def _do(
        self, user: str, arguments: Sequence[str | bytes | int], keys: Sequence[str], index: str | None = None
    ) -> bool:
        """Mends something; False if it has changed since it was looked at."""
        try:
            self._changes.do("mend", user, lambda _: (keys, arguments), index=index)
        except Refusal:
            return False
        return True


def _shown(value: bytes) -> str:
    return repr(value.decode(errors="backslashreplace")[:80])


def _amount(size: int, count: int, kind: str) -> str:
    return f"{size} bytes" if kind == "aside" else f"{size} bytes and {count} messages"
