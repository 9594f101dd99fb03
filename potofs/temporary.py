"""Where bytes wait for a while: in memory while they are few, else in a file without a name.

Such a file is gone with its process, however that ends. It lies where $TMPDIR says, or else in /var/tmp or /tmp: a
daemon runs for longer than the folder may be there that whoever started it was told of.
"""

import errno
import os
import tempfile
from io import SEEK_SET, BytesIO, FileIO
from typing import Self

# On a disk first: /tmp is memory on many machines.
_FOLDERS = ("/var/tmp", "/tmp")  # noqa: S108  (a file there has no name)
# What says that no file can be made in one folder, and may be in another.
_OF_ONE_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS})


class Spooled:
    """Bytes as in a file. Not `tempfile.SpooledTemporaryFile`, which has to know its folder when it is made, loses what
    it has if it cannot go on in a file, and is told only by the next call that a write has failed.
    """

    def __init__(self, in_memory: int) -> None:
        """`in_memory`: how many bytes may be without a file."""
        self._in_memory = in_memory
        self._file: BytesIO | FileIO = BytesIO()

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def write(self, data: bytes | bytearray) -> int:
        """Writes all of it; raises OSError, and may have written a part of it then."""
        if self._file.tell() + len(data) > self._in_memory:
            self.rollover()
        return _write_all(self._file, data)

    def fileno(self) -> int:
        """The descriptor of its file, which it has once it has been rolled over; raises OSError before."""
        return self._file.fileno()

    def truncate(self, size: int) -> int:
        """Cuts it off; in a file, it may also become longer."""
        return self._file.truncate(size)

    def rollover(self) -> None:
        """Goes on in a file, if it has not yet; raises OSError, and is as it was then."""
        if isinstance(self._file, FileIO):
            return
        file = unnamed()
        try:
            _write_all(file, self._file.getvalue())
            file.seek(self._file.tell())
        except BaseException:
            file.close()
            raise
        self._file = file

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unnamed() -> FileIO:
    """A new file without a name, to be read and written.

    Raises OSError, EIO if there is no folder for it; never ENOENT, which would be taken for what is looked at.
    """
    folders = [folder for folder in (os.environ.get("TMPDIR"), *_FOLDERS) if folder]
    for folder in folders:
        try:
            # Without a buffer, so that whoever writes is told what has become of that.
            return tempfile.TemporaryFile(buffering=0, dir=folder)
        except OSError as error:
            if error.errno not in _OF_ONE_FOLDER:
                raise
            why = error.strerror
    raise OSError(
        errno.EIO,
        f"no temporary file can be made in {', '.join(folders)} ({why}): set TMPDIR to a folder that takes one",
    )


def _write_all(file: BytesIO | FileIO, data: bytes | bytearray) -> int:
    # Short only where the disk is nearly full; going on says why, or finds room after all.
    done = file.write(data)
    while done < len(data):
        done += file.write(data[done:])
    return done
