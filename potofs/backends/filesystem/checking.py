"""What can be wrong in a root beside the records, found and mended: leftovers of processes that were killed, derived
files that are not what the bytes say, and counts.

Looked at without a lock, so that a check holds up nobody; what is found is looked at once more under the user's lock
before it is mended. A file is never removed unless what it holds is elsewhere or can be derived: else it is moved into
`rejected/` as it is.
"""

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import NamedTuple

from potofs import names
from potofs.backends.base import Finding, Reader, Scan, conversation_file
from potofs.backends.filesystem import files, gzipped
from potofs.backends.filesystem.accounts import Accounts
from potofs.backends.filesystem.archives import Archives, are_same
from potofs.backends.filesystem.conversations import Conversations
from potofs.backends.filesystem.index import Index
from potofs.backends.filesystem.layout import COMPRESSED, NUMBER, Layout
from potofs.backends.filesystem.leases import is_in_use
from potofs.backends.filesystem.repacking import Aside, Repacking
from potofs.backends.filesystem.salvage import salvage
from potofs.backends.filesystem.sidecar import Sidecar
from potofs.backends.filesystem.totals import figures_of
from potofs.errors import DeadlineExceeded, InvalidName, NameTooLong, NotFound, reason

# What `files.scratch` calls its files.
_SCRATCH = re.compile(r"\.\d+\.[0-9a-f]{8}\.new")
# How often a user is looked at again who is being written to.
_TRIES = 5


class _Fault(NamedTuple):
    """Something found, and how it is mended (under the user's lock); None if it cannot be.

    That returns a text if it was not done: why.
    """

    place: str
    what: str
    mend: Callable[[], object] | None
    #: Looks for it again; None: as it was looked for.
    look: "Callable[[], Iterable[_Fault]] | None" = None


class Checks:
    """The checks of one root; `changing` holds a user's lock to change something and counts it afterwards.

    `counts_all`: nobody writes there who counts nothing.
    """

    def __init__(
        self,
        layout: Layout,
        conversations: Conversations,
        archives: Archives,
        accounts: Accounts,
        index: Index,
        scan: Scan,
        changing: Callable[[str], AbstractContextManager[object]],
        *,
        counts_all: bool,
    ) -> None:
        self._layout, self._conversations, self._archives = layout, conversations, archives
        self._accounts, self._index, self._scan = accounts, index, scan
        self._changing, self._counts_all = changing, counts_all
        self._repacking = Repacking(layout, archives)

    def user(self, user: str, repair: bool) -> Iterator[Finding]:
        """What is wrong with a user; raises OSError, Fenced."""
        # The later ones look at what the earlier ones have left: once an archive can be read again, what a killed
        # process had made of it is there twice.
        for faults in (self._forms, self._scratch, self._numbers, self._sidecar, self._counts):
            for fault in list(faults(user)):
                if not repair or fault.mend is None:
                    yield Finding(user, fault.place, fault.what)
                    continue
                left = self._mend(user, fault, fault.look or partial(faults, user))
                if isinstance(left, Aside):
                    yield Finding(user, fault.place, f"{fault.what}; the whole file is rejected/{left.name}.yaml", True)
                    continue
                more = f"; {left}" if left else ""
                yield Finding(user, fault.place, fault.what + more, left is None)

    def place(self, repair: bool) -> Iterator[Finding]:
        """What is wrong with what is not one user's; raises OSError, Fenced."""
        for path in _scratch_files(self._layout.system):
            # Renamed in between: the fence was just being set.
            with suppress(FileNotFoundError):
                if not is_in_use(path):
                    # The fence as somebody was about to set it, and did not come to say so.
                    if repair:
                        os.unlink(path)
                    yield Finding(None, f"system/{os.path.basename(path)}", "left by a process that was killed", repair)
        # A read-only root keeps no sums, and a new one has none yet.
        if not os.path.exists(self._layout.totals) or not os.access(self._layout.totals, os.W_OK):
            return
        sums = self._accounts.sums
        # Sums of before the machine's last start are made anew when somebody asks for them.
        with suppress(DeadlineExceeded):
            if sums.is_right() and (wrong := sums.recount(self._conversations.users, write=False)):
                if repair:
                    self._accounts.recount()
                yield Finding(None, "system/totals", f"the sums of {wrong} of 256 shards are wrong", repair)

    def _mend(self, user: str, fault: _Fault, look: Callable[[], Iterable[_Fault]]) -> str | Aside | None:
        """None if a fault is gone, or where the file is as it was; else why it is not, empty if nobody knows."""
        why_not, aside = "", None
        with self._changing(user):
            again = [found for found in look() if found[:2] == fault[:2]]
            for found in again:
                done = found.mend() if found.mend is not None else None
                if isinstance(done, str):
                    why_not = done
                elif isinstance(done, Aside):
                    aside = done
        if again and any(found[:2] == fault[:2] for found in look()):
            return why_not
        return aside

    # Leftovers

    def _scratch(self, user: str) -> Iterator[_Fault]:
        layout = self._layout
        for folder in (layout.user(user), layout.dialogs(user), layout.archived(user), layout.rejected(user)):
            for path in _scratch_files(folder):
                with suppress(FileNotFoundError):
                    if not is_in_use(path):
                        yield self._leftover(user, path, "left by a process that was killed")

    def _numbers(self, user: str) -> Iterator[_Fault]:
        folder = self._layout.archived(user)
        kept = [name for name in _names(folder) if name.startswith(".") and name.endswith(NUMBER)]
        known = self._archives.numbers(user) if kept else set()
        for name in kept:
            path = f"{folder}/{name}"
            if path not in known and os.path.isfile(path) and not is_in_use(path):
                yield self._leftover(user, path, "keeps the number of no archive")

    def _forms(self, user: str) -> Iterator[_Fault]:
        for name in _names(self._layout.archived(user)):
            if not name.endswith(COMPRESSED):
                continue
            with suppress(InvalidName, NameTooLong):
                archive = names.archive_name(name.removesuffix(COMPRESSED))
                # Only in this one again: to look means to read it all.
                look = partial(self._compressed, user, archive)
                for fault in look():
                    yield fault._replace(look=look)

    def _compressed(self, user: str, archive: str) -> Iterator[_Fault]:
        with suppress(FileNotFoundError):
            if self._conversations.is_compressed(user, archive):
                yield from self._only_form(user, archive)
            else:
                yield self._other_form(user, archive)

    def _other_form(self, user: str, archive: str) -> _Fault:
        """The compressed form beside the plain one; raises FileNotFoundError."""
        place = conversation_file(archive) + COMPRESSED
        path = self._layout.compressed(user, archive)
        keep_one = lambda: self._archives.keep_one_form(user, archive)  # noqa: E731
        move_aside = lambda: self._archives.move_aside(user, path)  # noqa: E731
        try:
            if self._archives.is_same_in_both(user, archive):
                return _Fault(place, "the archive is there in both forms, plain and compressed", keep_one)
            return _Fault(place, "holds something else than the archive's plain form, which counts", keep_one)
        except gzipped.NotGzip:
            return _Fault(place, "is no gzip file, and so no archive", move_aside)
        except FileNotFoundError:
            raise
        except OSError as error:
            wrong = "is damaged" if error.errno == errno.EIO else f"cannot be read ({error.strerror})"
            what = f"{wrong}, and the archive's plain form counts"
            return _Fault(place, what, move_aside)

    def _only_form(self, user: str, archive: str) -> Iterator[_Fault]:
        place = conversation_file(archive) + COMPRESSED
        path = self._layout.compressed(user, archive)
        with suppress(OSError):
            if self._archives.is_restored(user, archive):
                what = "was restored, and is the running conversation already"
                yield _Fault(place, what, lambda: self._archives.finish_restoring(user, archive))
                return
        try:
            with gzipped.GzipReader(path, lambda _: None) as reader:
                try:
                    reader.verify()
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    what = (
                        f"is damaged: only its first {reader.readable} bytes can be read, and no checksum confirms them"
                    )
                    keep = lambda: self._repacking.keep_readable(user, archive)  # noqa: E731
                    yield self._salvage(user, archive) or _Fault(place, what, keep)
                    return
                if reader.token is None and reader.stat().size:
                    what = "has no index: every read inflates it from the start"
                    yield _Fault(place, what, lambda: self._repacking.index(user, archive))
        except gzipped.NotGzip:
            yield self._salvage(user, archive) or _Fault(
                place, "is no gzip file, and so no archive", lambda: self._archives.move_aside(user, path)
            )
        except FileNotFoundError:
            raise
        except OSError as error:
            yield _Fault(place, f"cannot be read: {reason(error)}", None)

    def _salvage(self, user: str, archive: str) -> _Fault | None:
        """A damaged archive that was made here; None if it was not."""
        descriptor = files.open_plain(self._layout.compressed(user, archive), os.O_RDONLY)
        try:
            found = salvage(descriptor)
        finally:
            os.close(descriptor)
        if found is None:
            return None
        place = conversation_file(archive) + COMPRESSED
        return _Fault(place, f"is damaged: {found}", lambda: self._repacking.salvage(user, archive))

    def _leftover(self, user: str, path: str, what: str) -> _Fault:
        place = os.path.relpath(path, self._layout.user(user)).removeprefix("dialogs/")
        if self._is_elsewhere(user, path):
            return _Fault(place, what, lambda: os.unlink(path))
        return _Fault(place, f"{what}; holds what is nowhere else", lambda: self._archives.move_aside(user, path))

    def _is_elsewhere(self, user: str, path: str) -> bool:
        """Whether another file of the user has all bytes of one."""
        found = os.stat(path)
        if not found.st_size or (found.st_nlink > 1 and self._has_name(user, found)):
            return True
        with files.FileReader(path) as reader:
            if any(self._has_same(reader, archive, user) for archive in self._conversations_of(user)):
                return True
            if any(self._has_begun(reader, archive, user) for archive in self._conversations_of(user)):
                return True
            asides = (self._layout.set_aside(user, aside.name) for aside in self._conversations.set_asides(user))
            for other in (self._layout.profile(user), *asides):
                with suppress(FileNotFoundError), files.FileReader(other) as there:
                    if are_same(there, reader):
                        return True
        with suppress(gzipped.NotGzip, OSError), gzipped.GzipReader(path, lambda _: None) as unpacked:
            return any(self._has_same(unpacked, archive, user) for archive in self._conversations_of(user))
        return False

    def _has_name(self, user: str, found: os.stat_result) -> bool:
        """Whether a file has a name that is no hidden one, too. Elsewhere it may be a backup's, by hard links."""
        layout = self._layout
        for folder in (layout.user(user), layout.dialogs(user), layout.archived(user), layout.rejected(user)):
            for name in _names(folder):
                with suppress(FileNotFoundError):
                    if not name.startswith(".") and os.path.samestat(os.lstat(f"{folder}/{name}"), found):
                        return True
        return False

    def _has_same(self, reader: Reader, archive: str | None, user: str) -> bool:
        with suppress(NotFound, OSError), self._conversations.open(user, archive) as there:
            return are_same(there, reader)
        return False

    def _has_begun(self, reader: files.FileReader, archive: str | None, user: str) -> bool:
        """Whether somebody was killed who was compressing a conversation into a file."""
        with suppress(NotFound, OSError), self._conversations.open(user, archive) as there:
            return gzipped.was_begun(reader.fileno(), there)
        return False

    def _conversations_of(self, user: str) -> list[str | None]:
        return [None, *(archive.name for archive in self._conversations.archives(user))]

    # What is derived

    def _sidecar(self, user: str) -> Iterator[_Fault]:
        path, place = self._layout.sidecar(user), os.path.basename(self._layout.sidecar(user))
        if (size := files.size(path)) < 0:
            return

        def drop() -> None:
            os.unlink(path)
            self._index.forget(user)

        for _ in range(_TRIES):
            known = {self._number_of(user, archive): archive for archive in self._conversations_of(user)}
            found = next((number for number in known if number and (Sidecar(path).load(number))), None)
            if found is None and Sidecar(path).is_of_another():
                # Out of date, as in a copy of the folder: it is not believed, and made again when it is needed.
                return
            why = "knows of no conversation that is there" if found is None else self._misled(user, known[found], path)
            if why is None:
                return
            if files.size(path) == size:
                yield _Fault(place, why, drop)
                return
            size = files.size(path)

    def _misled(self, user: str, archive: str | None, path: str) -> str | None:
        """What a sidecar says that its conversation does not."""
        with suppress(NotFound), self._conversations.open(user, archive) as reader:
            sidecar = Sidecar(path)
            loaded = sidecar.load(reader.stat().id)
            if loaded is None:
                return None
            kept, given = loaded
            try:
                data = reader.read(0, kept.covered)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                # Of a damaged one nobody can tell.
                return None
            marks = list(self._scan(data))
            if len(data) < kept.covered or not data.endswith(kept.seen):
                return "knows of bytes that are not there"
            if {mark.fingerprint for mark in marks} != given or figures_of(marks) != kept[2:5]:
                return "does not say what the conversation holds"
            if not sidecar.is_whole:
                return "has a part that is damaged or cut off"
        return None

    def _number_of(self, user: str, archive: str | None) -> int:
        with suppress(NotFound, OSError):
            return self._conversations.stat(user, archive).id
        return 0

    def _counts(self, user: str) -> Iterator[_Fault]:
        def recount() -> None:
            # `changing` does what is left.
            self._accounts.count_anew(user)

        for _ in range(_TRIES):
            before = self._accounts.counted(user), self._accounts.state(user)
            index = self._accounts.misled_by_index(user)
            now = self._accounts.walked_user(user)
            found, state = self._accounts.counted(user), self._accounts.state(user)
            if before != (found, state):
                continue
            if index:
                yield _Fault(os.path.basename(self._layout.archive_index(user)), index, recount)
            if found is None:
                if self._counts_all and state != (0, 0, files.state(self._layout.archived(user))):
                    yield _Fault(".lock", "the user was never counted", recount)
            elif found[4:6] != now:
                # What only looks changed, as where somebody is compressing, is counted right all the same.
                if found[1:4] == state:
                    yield _Fault(".lock", "what was counted of the user is wrong", recount)
                elif self._counts_all:
                    yield _Fault(".lock", "the user was not counted since something was changed", recount)
            return


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _scratch_files(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in _names(folder) if _SCRATCH.fullmatch(name)]
