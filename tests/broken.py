"""Shelves that are broken, each in one way: the conformance suite has to notice every one of them."""

import itertools
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from potofs.backends.base import Appended, Archived, Backend, Fence, Finding, Reader, Record, Stat, Totals, Usage, seam
from potofs.config import ArchivingSettings, Where
from potofs.errors import AlreadyExists, NotFound, WouldBlock
from potofs.journal import reading
from tests.shelf import Item, ShelfBackend, User

places = itertools.count()


def opener(kind: type[ShelfBackend]) -> Callable[..., Backend]:
    """Opens one new shelf of a kind, as often as it is called."""
    place = f"broken {next(places)}"
    return lambda **settings: kind(Where("shelf", place, settings), reading.marks)


# Appending and reading


class DropsTheSeam(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        before = self.shelf.users[user].items[None].data if self.has_user(user) else b""
        done = super().append(user, records, wait=wait)
        if seam(before):
            self.item(user, None).kept = (before + b"".join(one.data for one in records), False)
        return done


class AppendsInFront(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        before = self.shelf.users[user].items[None].data if self.has_user(user) else b""
        done = super().append(user, records, wait=wait)
        self.item(user, None).kept = (b"".join(one.data for one in records) + before, False)
        return done


class CutsLargeRecords(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        return super().append(user, [one._replace(data=one.data[:65536]) for one in records], wait=wait)


class StoresABatchInPieces(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        done = []
        for one in records:
            done.append(super().append(user, [one], wait=wait))
            time.sleep(0.0001)
        return Appended(sum(one.stored for one in done), done[-1].archived_as)


class LosesAppendsOfOthers(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        before = self.shelf.users[user].items.get(None) if self.has_user(user) else None
        kept = before.kept if before else None
        time.sleep(0.0001)
        done = super().append(user, records, wait=wait)
        if before and kept and done.archived_as is None:
            before.kept = (kept[0] + b"".join(one.data for one in records[: done.stored]), False)
        return done


class NeverWorksWithoutWaiting(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        if not wait:
            raise WouldBlock("busy")
        return super().append(user, records)


class ReadsTheWholeRest(ShelfBackend):
    class Greedy(Item):
        def read(self, offset: int, size: int) -> bytes:
            return self.data[offset:]

    def item(self, user: str, archive: str | None) -> Item:
        item = super().item(user, archive)
        item.__class__ = self.Greedy
        return item


class ReadsACopy(ShelfBackend):
    def open(self, user: str, archive: str | None = None) -> Reader:
        item = self.item(user, archive)
        return Item(item.data, (), item.mtime_ns)


class ReadsByName(ShelfBackend):
    class ByName(Reader):
        def __init__(self, look: Callable[[], Item]) -> None:
            self.look = look
            look()

        def stat(self) -> Stat:
            return self.look().stat()

        def read(self, offset: int, size: int) -> bytes:
            return self.look().read(offset, size)

        def close(self) -> None: ...

    def open(self, user: str, archive: str | None = None) -> Reader:
        return self.ByName(lambda: self.item(user, archive))

    def open_set_aside(self, user: str, name: str) -> Reader:
        def look() -> Item:
            found = super(ReadsByName, self).open_set_aside(user, name)
            assert isinstance(found, Item)
            return found

        return self.ByName(look)


class FindsEmptyConversations(ShelfBackend):
    def item(self, user: str, archive: str | None) -> Item:
        try:
            return super().item(user, archive)
        except NotFound:
            return Item(b"", (), 0)


class PutsNothing(ShelfBackend):
    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        with self.changing(user) as found:
            self.put(found, None, Item(data, self.scan(data), mtime_ns))


class MakesUsersWhenItSyncs(ShelfBackend):
    def sync(self, user: str) -> None:
        self.made(user)


class ArchivesWhenItSyncs(ShelfBackend):
    def sync(self, user: str) -> None:
        for archive in self.archives(user):
            del self.shelf.users[user].items[archive.name]


class LeavesOutWhoIsNotThere(ShelfBackend):
    def changes_of(self, users: Sequence[str]) -> list[int | None]:
        return [changed for changed in super().changes_of(users) if changed is not None]


class LeavesOutArchivesThatAreNotThere(ShelfBackend):
    def stats_of(self, user: str, archives: Sequence[str]) -> list[Stat | None]:
        return [stat for stat in super().stats_of(user, archives) if stat is not None]


class LeavesOutWhatIsNotSetAside(ShelfBackend):
    def stats_of_set_asides(self, user: str, names: Sequence[str]) -> list[Stat | None]:
        return [stat for stat in super().stats_of_set_asides(user, names) if stat is not None]


class HasOneNumberForAll(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        done = super().append(user, records, wait=wait)
        for item in self.shelf.users[user].items.values():
            item.id = 1
        return done


# Second tries


class StoresSecondTries(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        return super().append(user, [one._replace(retry=False) for one in records], wait=wait)


class TakesAllForSecondTries(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        return super().append(user, [one._replace(retry=True) for one in records], wait=wait)


class KnowsWhatOthersSaid(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        kept = [item for one in self.shelf.users.values() for item in one.items.values()]
        known = {mark.fingerprint for item in kept for mark in item.marks}
        fresh = [one for one in records if not (one.retry and one.mark.fingerprint in known)]
        return super().append(user, fresh, wait=wait)


class ForgetsWhatItScanned(ShelfBackend):
    def put(self, user: User, name: str | None, item: Item) -> Item:
        item.marks = []
        return super().put(user, name, item)


class TakesTheFirstArchiveForTheNewest(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        archives = [self.item(user, archive.name) for archive in self.archives(user)]
        for item in archives:
            item.mtime_ns = -item.mtime_ns
        done = super().append(user, records, wait=wait)
        for item in archives:
            item.mtime_ns = -item.mtime_ns
        return done


# Users


class TakesAlikeIdsForOne(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        return super().append(unicodedata.normalize("NFC", user.strip("/")) or user, records, wait=wait)


class HasOnlyOneUser(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        return super().append("everybody", records, wait=wait)

    def item(self, user: str, archive: str | None) -> Item:
        return super().item("everybody", archive)


class TakesAnyName(ShelfBackend):
    def has_user(self, user: str) -> bool:
        return user in self.shelf.users

    def put(self, user: User, name: str | None, item: Item) -> Item:
        user.items[name] = item
        return item

    def rename_archive(self, user: str, archive: str, name: str) -> None:
        self.item(user, archive)
        with self.changing(user) as found:
            found.items[name] = found.items.pop(archive)


class LooksAtANameLast(ShelfBackend):
    """At what is to be called so first."""

    def archive(
        self, user: str, name: str | None = None, *, idle_since_ns: int | None = None, wait: bool = True
    ) -> str:
        self.item(user, None)
        return super().archive(user, name, idle_since_ns=idle_since_ns, wait=wait)


class MakesUsersAnew(ShelfBackend):
    def create_user(self, user: str, profile: bytes) -> None:
        super().has_user(user)
        self.shelf.users.pop(user, None)
        super().create_user(user, profile)


class HidesUsersWithoutProfile(ShelfBackend):
    def users(self) -> Iterator[str]:
        return iter([user for user in self.shelf.users if self.read_profile(user)])


class ChangesUsersAllTheTime(ShelfBackend):
    def user_changed(self, user: str) -> int:
        return time.time_ns() if super().user_changed(user) else 0


class NeverChangesUsers(ShelfBackend):
    def user_changed(self, user: str) -> int:
        return 10**18 + 1 if super().user_changed(user) else 0


# Copies and times


class Replaces(ShelfBackend):
    def put(self, user: User, name: str | None, item: Item) -> Item:
        user.items.pop(name, None)
        return super().put(user, name, item)

    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        self.made(user).items.pop(None, None)
        super().put_current(user, data, mtime_ns)


class TidiesCopies(ShelfBackend):
    def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
        super().put_current(user, data.removeprefix(b"--- "), mtime_ns)

    def put_archive(self, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        super().put_archive(user, name, data.removeprefix(b"--- "), mtime_ns)


class HasOnlySeconds(ShelfBackend):
    def set_times(self, user: str, archive: str | None, mtime_ns: int) -> None:
        super().set_times(user, archive, mtime_ns // 10**9 * 10**9)


class NeverSetsTimesByItself(ShelfBackend):
    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        done = super().append(user, records, wait=wait)
        self.made(user)
        for item in self.shelf.users[user].items.values():
            item.mtime_ns = 1
        return done


class KeepsTheFirstProfile(ShelfBackend):
    def put_profile(self, user: str, profile: bytes, mtime_ns: int) -> None:
        super().put_profile(user, self.read_profile(user) or profile, mtime_ns)


class MakesUsersWithTheirProfile(ShelfBackend):
    def put_profile(self, user: str, profile: bytes, mtime_ns: int) -> None:
        with self.lock:
            self.shelf.fence.check()
            self.made(user)
            super().put_profile(user, profile, mtime_ns)


class PutsProfilesBehindTheFence(ShelfBackend):
    def put_profile(self, user: str, profile: bytes, mtime_ns: int) -> None:
        found = self.known(user)
        found.profile, found.profile_changed = profile, mtime_ns


class SetsChangesInSeconds(ShelfBackend):
    def set_changed(self, user: str | None, when_ns: int) -> None:
        super().set_changed(user, when_ns // 10**9 * 10**9)


class MakesUsersByTheirTime(ShelfBackend):
    def set_changed(self, user: str | None, when_ns: int) -> None:
        if user is not None:
            self.made(user)
        super().set_changed(user, when_ns)


class RemembersArchivesByTheirTime(ShelfBackend):
    """Counts anew only when its users have changed, by the times that they say."""

    def __init__(self, where: Where, scan: Any) -> None:
        super().__init__(where, scan)
        self.counted: dict[tuple[int, ...], Totals] = {}

    def totals(self) -> Totals:
        return self.counted.setdefault(tuple(user.changed for user in self.shelf.users.values()), super().totals())


# Copies that go on


class ExtendsWithASeam(ShelfBackend):
    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        return super().extend(user, seen, seam(self.item(user, None).data) + data, mtime_ns)


class ExtendsWithoutCounting(ShelfBackend):
    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        marks = self.item(user, None).marks
        done = super().extend(user, seen, data, mtime_ns)
        self.item(user, None).marks = marks
        return done


class ExtendsAtThePresentTime(ShelfBackend):
    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        return super().extend(user, seen, data, time.time_ns())


class ExtendsWhateverIsThere(ShelfBackend):
    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        return super().extend(user, self.stat(user), data, mtime_ns)


class ExtendsWhatIsNotThere(ShelfBackend):
    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        with suppress(AlreadyExists):
            self.put_current(user, data, mtime_ns)
            return True
        return super().extend(user, seen, data, mtime_ns)


class ExtendsAsFarAsItLooked(ShelfBackend):
    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        item = self.item(user, None)
        if item.stat()[:2] != seen[:2]:
            return False
        before = item.data
        time.sleep(0.01)
        item.kept, item.mtime_ns = (before + data, False), mtime_ns
        return True


class ExtendsBehindTheFence(ShelfBackend):
    def extend(self, user: str, seen: Stat, data: bytes, mtime_ns: int) -> bool:
        item = self.item(user, None)
        item.kept = (item.data + data, False)
        return True


# Setting aside


class ReplacesWhatWasSetAside(ShelfBackend):
    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        if name is not None and self.has_user(user):
            self.shelf.users[user].asides.pop(name, None)
        return super().set_aside(user, data, name, mtime_ns=mtime_ns)


class SetsAsideUnderAnyName(ShelfBackend):
    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        made = super().set_aside(user, data)
        if name is None:
            return made
        asides = self.shelf.users[user].asides
        asides[name] = asides.pop(made)
        return name


class SetsCopiesAsideBehindTheFence(ShelfBackend):
    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        fence, self.shelf.fence = self.shelf.fence, Fence()
        try:
            return super().set_aside(user, data, name, mtime_ns=mtime_ns)
        finally:
            self.shelf.fence = fence


class SetsAsideUnderOneName(ShelfBackend):
    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        name = super().set_aside(user, data, name, mtime_ns=mtime_ns)
        asides = self.shelf.users[user].asides
        asides["20240115T103000.000Z"] = asides.pop(name)
        return "20240115T103000.000Z"


class SetsAsideAsMessages(ShelfBackend):
    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        with suppress(AlreadyExists):
            self.put_current(user, data, 1)
        return super().set_aside(user, data, name, mtime_ns=mtime_ns)

    def totals(self) -> Totals:
        asides = sum(len(user.asides) for user in self.shelf.users.values())
        return super().totals()._replace(archives=super().totals().archives + asides)


# Checking


class FindsFaultsEverywhere(ShelfBackend):
    def check(self, user: str | None, *, repair: bool) -> Iterator[Finding]:
        yield Finding(user, "current.yaml", "something may be wrong")


class RewritesNothing(ShelfBackend):
    def rewrite(
        self,
        user: str,
        archive: str | None,
        seen: Stat,
        data: bytes,
        *,
        was: bytes | None = None,
        mtime_ns: int | None = None,
    ) -> bool:
        return True


class RewritesWhateverIsThere(ShelfBackend):
    def rewrite(
        self,
        user: str,
        archive: str | None,
        seen: Stat,
        data: bytes,
        *,
        was: bytes | None = None,
        mtime_ns: int | None = None,
    ) -> bool:
        return super().rewrite(user, archive, self.stat(user, archive), data, was=was, mtime_ns=mtime_ns)


class RewritesAtTheTimeThatItHad(ShelfBackend):
    def rewrite(
        self,
        user: str,
        archive: str | None,
        seen: Stat,
        data: bytes,
        *,
        was: bytes | None = None,
        mtime_ns: int | None = None,
    ) -> bool:
        return super().rewrite(user, archive, seen, data, was=was)


class RewritesToNothing(ShelfBackend):
    def rewrite(
        self,
        user: str,
        archive: str | None,
        seen: Stat,
        data: bytes,
        *,
        was: bytes | None = None,
        mtime_ns: int | None = None,
    ) -> bool:
        return super().rewrite(user, archive, seen, data or b"\n", was=was, mtime_ns=mtime_ns)


class RewritesBehindTheFence(ShelfBackend):
    def rewrite(
        self,
        user: str,
        archive: str | None,
        seen: Stat,
        data: bytes,
        *,
        was: bytes | None = None,
        mtime_ns: int | None = None,
    ) -> bool:
        fence, self.shelf.fence = self.shelf.fence, Fence()
        try:
            return super().rewrite(user, archive, seen, data, was=was, mtime_ns=mtime_ns)
        finally:
            self.shelf.fence = fence


class RewritesWhateverIsStoredOfAUser(ShelfBackend):
    def rewrite_profile(self, user: str, profile: bytes, *, was: bytes) -> bool:
        return super().rewrite_profile(user, profile, was=self.read_profile(user))


# The log


class LogsInFront(ShelfBackend):
    def append_log(self, line: bytes) -> None:
        self.shelf.log = line + self.shelf.log


class LogsAsFarAsItLooked(ShelfBackend):
    def append_log(self, line: bytes) -> None:
        log = self.shelf.log
        time.sleep(0.001)
        self.shelf.log = log + line


class LogsNothingWhileItIsFrozen(ShelfBackend):
    def append_log(self, line: bytes) -> None:
        self.shelf.fence.check()
        super().append_log(line)


class RefusesWhatWasRefusedWhileItIsFrozen(ShelfBackend):
    def set_aside(self, user: str, data: bytes, name: str | None = None, *, mtime_ns: int | None = None) -> str:
        self.shelf.fence.check()
        return super().set_aside(user, data, name, mtime_ns=mtime_ns)


class LogsForAUser(ShelfBackend):
    def append_log(self, line: bytes) -> None:
        super().append_log(line)
        self.made("cleanup.log")


# Archives


class Clears(ShelfBackend):
    def clear(self, user: str) -> None:
        self.item(user, None)
        del self.shelf.users[user].items[None]


class CopiesWhatMoves(ShelfBackend):
    def move(self, user: User, old: str | None, new: str | None) -> None:
        item = user.items[old]
        super().move(user, old, new)
        user.items[new] = Item(item.data, item.marks, time.time_ns())


class LeavesWhatMoves(ShelfBackend):
    def move(self, user: User, old: str | None, new: str | None) -> None:
        self.put(user, new, user.items[old])


class LosesWhatMoves(ShelfBackend):
    def move(self, user: User, old: str | None, new: str | None) -> None:
        super().move(user, old, new)
        user.items[new] = Item(b"", (), 0)


class ArchivesNothing(ShelfBackend):
    def archive(
        self, user: str, name: str | None = None, *, idle_since_ns: int | None = None, wait: bool = True
    ) -> str:
        with suppress(NotFound):
            return super().archive(user, name, idle_since_ns=idle_since_ns, wait=wait)
        self.made(user)
        return name or "20240115T103000.000Z"


class ArchivesWhatGoesOn(ShelfBackend):
    def archive(
        self, user: str, name: str | None = None, *, idle_since_ns: int | None = None, wait: bool = True
    ) -> str:
        return super().archive(user, name, wait=wait)


class NamesByNumber(ShelfBackend):
    def present(self, taken: Any) -> str:
        return f"archive {len(taken)}"


class SharesArchives(ShelfBackend):
    def item(self, user: str, archive: str | None) -> Item:
        for other in self.shelf.users if archive else ():
            with suppress(NotFound):
                return super().item(other, archive)
        return super().item(user, archive)

    def archives(self, user: str) -> list[Archived]:
        return [archive for other in self.shelf.users for archive in super(SharesArchives, self).archives(other)]


class ArchivesTooLate(ShelfBackend):
    def __init__(self, where: Where, scan: Any) -> None:
        late = {name: str(int(value) + 1) for name, value in where.options.items()}
        super().__init__(Where(where.scheme, where.place, late), scan)


class CountsItsOwnMessagesOnly(ShelfBackend):
    """Archives by itself when so many were appended through this server."""

    def __init__(self, where: Where, scan: Any) -> None:
        super().__init__(where, scan)
        self.threshold = self.settings.archive_at
        self.settings = ArchivingSettings(archive_threshold=0, max_conversation_length=0)
        self.counts: Counter[str] = Counter()

    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        done = super().append(user, records, wait=wait)
        self.counts[user] += done.stored
        if not self.threshold or self.counts[user] < self.threshold:
            return done
        self.counts[user] = 0
        return Appended(done.stored, self.archive(user))


class ArchivesWhatIsRestored(ShelfBackend):
    def restore(self, user: str, archive: str, *, swap: bool = True) -> str | None:
        swapped = super().restore(user, archive, swap=swap)
        self.append(user, [])
        return swapped


# Restoring and renaming


class SwapsAlways(ShelfBackend):
    def restore(self, user: str, archive: str, *, swap: bool = True) -> str | None:
        return super().restore(user, archive)


class SwapsNever(ShelfBackend):
    def restore(self, user: str, archive: str, *, swap: bool = True) -> str | None:
        return super().restore(user, archive, swap=False)


class SwapsBeforeItLooks(ShelfBackend):
    def restore(self, user: str, archive: str, *, swap: bool = True) -> str | None:
        with suppress(NotFound):
            self.archive(user)
        return super().restore(user, archive, swap=swap)


class RenamesWhatIsNotThere(ShelfBackend):
    def rename_archive(self, user: str, archive: str, name: str) -> None:
        with suppress(NotFound):
            super().rename_archive(user, archive, name)


# Compressing


class CompressesForNothing(ShelfBackend):
    def compress(self, user: str, archive: str) -> int:
        item = self.item(user, archive)
        with self.changing(user):
            before = len(item.kept[0])
            item.kept = (zlib.compress(item.data), True)
            return abs(before - len(item.kept[0])) or 1


class CompressesIntoAnother(ShelfBackend):
    def compress(self, user: str, archive: str) -> int:
        item = self.item(user, archive)
        with self.changing(user) as found:
            found.items[archive] = Item(item.data, (), time.time_ns())
            saved = super().compress(user, archive)
            item.kept = (b"", False)
            return saved


class CompressesLossily(ShelfBackend):
    def compress(self, user: str, archive: str) -> int:
        item = self.item(user, archive)
        saved = super().compress(user, archive)
        if saved:
            item.kept = (zlib.compress(item.data[:-1]), True)
        return saved


class CompressesWhatIsNotThere(ShelfBackend):
    def compress(self, user: str, archive: str) -> int:
        with suppress(NotFound):
            return super().compress(user, archive)
        return 0


class SavesNothing(ShelfBackend):
    def compress(self, user: str, archive: str) -> int:
        self.item(user, archive)
        with self.changing(user):
            return 0


# The place


class ForgetsEverything(ShelfBackend):
    def close(self) -> None:
        self.shelf.users.clear()


class HasAPlaceOfItsOwn(ShelfBackend):
    def __init__(self, where: Where, scan: Any) -> None:
        super().__init__(Where(where.scheme, f"{where.place} {next(places)}", where.options), scan)


class IsPreparedAnew(ShelfBackend):
    def prepare(self, *, create: bool) -> None:
        self.shelf.users.clear()


class IsFull(ShelfBackend):
    def usage(self) -> Usage:
        return Usage(0, 0, 0, 0)


class CountsOnce(ShelfBackend):
    """Remembers what it counted."""

    def totals(self) -> Totals:
        found: Totals = self.__dict__.setdefault("counted", super().totals())
        return found


class CountsSomebodyMore(ShelfBackend):
    def totals(self) -> Totals:
        return super().totals()._replace(users=len(self.shelf.users) + 1)


class CountsWhatItWasAskedFor(ShelfBackend):
    """Counts messages as they come, whatever becomes of them."""

    asked = 0

    def append(self, user: str, records: Sequence[Record], *, wait: bool = True) -> Appended:
        self.asked += len(records)
        return super().append(user, records, wait=wait)

    def put_archive(self, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        self.asked += 1
        super().put_archive(user, name, data, mtime_ns)

    def totals(self) -> Totals:
        return super().totals()._replace(messages=self.asked)


class CountsWhatFitsInto64Bits(ShelfBackend):
    """Leaves out messages whose time it cannot keep."""

    def totals(self) -> Totals:
        items = [item for user in self.shelf.users.values() for item in user.items.values()]
        said = [mark.time_ns or 0 for item in items for mark in item.marks]
        return super().totals()._replace(messages=sum(abs(time) < 1 << 63 for time in said))


class CountsUncompressed(ShelfBackend):
    def totals(self) -> Totals:
        size = sum(len(item.data) for user in self.shelf.users.values() for item in user.items.values())
        return super().totals()._replace(bytes=size)


# The fence


class ForgetsTheFence(ShelfBackend):
    @contextmanager
    def changing(self, user: str) -> Iterator[User]:
        with self.lock:
            yield self.made(user)

    def create_user(self, user: str, profile: bytes) -> None:
        fence, self.shelf.fence = self.shelf.fence, Fence()
        try:
            super().create_user(user, profile)
        finally:
            self.shelf.fence = fence


class LooksAtTheFenceTooEarly(ShelfBackend):
    @contextmanager
    def changing(self, user: str) -> Iterator[User]:
        self.shelf.fence.check()
        time.sleep(0.001)
        with self.lock:
            yield self.made(user)


class IsFrozenForReadersToo(ShelfBackend):
    def item(self, user: str, archive: str | None) -> Item:
        self.shelf.fence.check()
        return super().item(user, archive)


class IsFrozenFromTheStart(ShelfBackend):
    def fence(self) -> Fence:
        return self.shelf.fence if self.shelf.fence.epoch else Fence("frozen")
