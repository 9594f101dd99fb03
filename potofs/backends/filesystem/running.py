"""The running conversation's file: opened to append, written to, brought back from a disk that failed.

The caller holds the user's lock.
"""

import errno
import os
from contextlib import suppress

from potofs.backends.base import RECORD_END, Record, seam
from potofs.backends.filesystem import files
from potofs.backends.filesystem.conversations import must_exist
from potofs.backends.filesystem.index import Ahead, Contents, Index
from potofs.backends.filesystem.layout import Layout
from potofs.backends.filesystem.settled import growing
from potofs.backends.filesystem.sync import GroupSync


class Running:
    """Running conversations of one root; `cut_back`: nobody else writes there, so a failed append is undone."""

    def __init__(self, layout: Layout, index: Index, syncs: GroupSync, *, cut_back: bool) -> None:
        self._layout, self._index, self._syncs, self._cut_back = layout, index, syncs, cut_back

    def open(self, user: str, *, create: bool = True) -> int:
        """The running conversation, opened to append; made if it is not there, or else FileNotFoundError."""
        path = self._layout.conversation(user, None)
        descriptor = files.open_plain(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0))
        try:
            if self._syncs.is_doubtful(descriptor):
                self.write_again(user, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def ahead(self, user: str, size: int, data: bytes) -> Ahead | None:
        """What it will hold once bytes are added to the first `size` that it has; without the lock.

        None if nobody can tell, or its disk has failed: what was read of it may not be there. Raises OSError.
        """
        with must_exist(self._layout, user, None):
            descriptor = files.open_plain(self._layout.conversation(user, None), os.O_RDONLY)
        try:
            if self._syncs.is_doubtful(descriptor):
                return None
            return self._index.once_added(user, descriptor, size, data)
        finally:
            os.close(descriptor)

    def contents(self, user: str) -> Contents | None:
        """What the running conversation holds."""
        try:
            descriptor = files.open_plain(self._layout.conversation(user, None), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return self._index.current(user, descriptor)
        finally:
            os.close(descriptor)

    def was_given(self, user: str, contents: Contents, record: Record, *, wait: bool) -> bool:
        """Whether the conversation or the newest archive holds a record, and not just the beginning of it.

        Raises WouldBlock instead of a long read if it may not wait.
        """
        fingerprint = record.mark.fingerprint
        return (contents.has(fingerprint) and not contents.is_cut_off(record)) or self._index.was_archived(
            user, fingerprint, wait=wait
        )

    def write(self, user: str, descriptor: int, contents: Contents, fresh: list[Record]) -> Contents:
        """Appends records, and returns what the conversation holds then."""
        data = b"".join([record.data for record in fresh])
        size = os.fstat(descriptor).st_size
        if contents.is_cut_off(fresh[0]):
            # A writer was killed in its metadata. Whole but for those, it would stay beside its second try for ever.
            data = data[len(contents.tail) :]
        else:
            data = seam(os.pread(descriptor, len(RECORD_END), max(0, size - len(RECORD_END)))) + data
        with files.naming(self._layout.conversation(user, None)), growing(descriptor, size):
            end = files.append_whole(descriptor, data, cut_back=self._cut_back)
        if contents.covered + len(data) == end:
            contents.add(fresh, data)
            return contents
        # Torn bytes before it have an end now, and what that makes of them only the bytes can say; or another
        # program appended meanwhile.
        return self._index.current(user, descriptor)

    def extend(self, user: str, descriptor: int, data: bytes, mtime_ns: int, ahead: Ahead | None) -> Contents:
        """Appends a copy's bytes as they are and sets the file's time, and returns what the conversation holds then.

        That need not be read if it was found out `ahead`, and nothing has changed since.

        Raises OSError: where failed appends are undone it is as it was then, its time too.
        """
        before = os.fstat(descriptor)
        if ahead is not None and not ahead.fits(descriptor):
            ahead = None
        with files.naming(self._layout.conversation(user, None)), growing(descriptor, before.st_size):
            end = before.st_size
            try:
                if data:
                    end = files.append_whole(descriptor, data, cut_back=self._cut_back)
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            except BaseException:
                self._undo(descriptor, before, end)
                raise
            if end != before.st_size + len(data):
                raise OSError(
                    errno.EIO,
                    "a program that takes no lock appended at the same time: its bytes stand before what was to be "
                    "added, and nothing is lost; compare it with the copy",
                )
        if ahead is not None:
            self._index.adopt(user, ahead.contents)
        return self._index.current(user, descriptor)

    def _undo(self, descriptor: int, before: os.stat_result, end: int) -> None:
        """Makes a file that ends at `end` what it was before; not if another program has appended meanwhile."""
        if self._cut_back and os.fstat(descriptor).st_size == end > before.st_size:
            os.ftruncate(descriptor, before.st_size)
        if os.fstat(descriptor).st_size == before.st_size:
            # Whoever may not set it to one time may not set it to another.
            with suppress(OSError):
                os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))

    def write_again(self, user: str, descriptor: int) -> None:
        """Brings a file back from a failed sync.

        A second sync alone would succeed and mean nothing, and a message given once more would be taken for stored.
        """
        # Reopened by number, for it may have another name by now.
        files.write_again(f"/proc/self/fd/{descriptor}")
        # What the disk refused may be gone: only what is there now was given before.
        self._index.forget(user)
        self._syncs.trust(descriptor)
