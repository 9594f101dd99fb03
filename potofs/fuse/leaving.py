"""What nobody has open any more, and that has something to be stored or set aside still.

The kernel was answered, and nobody waits. While the backend takes nothing, it is kept in memory, and given again until
it is taken. It ends with the daemon, as whatever waits does.
"""

import functools
import logging
from collections import deque
from collections.abc import Sequence

import trio

from potofs.errors import PotofsError, reason
from potofs.fuse.files import OpenFile
from potofs.fuse.workers import Workers

log = logging.getLogger(__name__)

# How much is kept so while nothing can be stored (bytes of memory), and what a file takes beside its contents.
_MOST = 64 << 20
_FILE = 4 << 10
# How long between two tries, at first and at most (seconds).
_PAUSE = 1.0
_LONGEST_PAUSE = 8.0


class Leaving:
    """Such files of one mount. Each user's are settled one after another, so that no user waits for another."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        # By user, each with what it takes (bytes of memory).
        self._of_users: dict[str, deque[tuple[OpenFile, int]]] = {}
        self._size = 0
        self._nursery: trio.Nursery | None = None

    def add(self, file: OpenFile) -> None:
        """Takes a file that was let go; it is settled behind those of the same user that came before."""
        user, size = file.node.user, _FILE + file.held
        self._size += size
        if user in self._of_users:
            self._of_users[user].append((file, size))
            return
        self._of_users[user] = deque([(file, size)])
        if self._nursery is not None:
            self._nursery.start_soon(self._settle, user)

    def files(self) -> Sequence[OpenFile]:
        """What is left of them, at the end."""
        return [file for files in self._of_users.values() for file, _ in files]

    async def run(self) -> None:
        """Settles them, for as long as it runs."""
        async with trio.open_nursery() as self._nursery:
            for user in self._of_users:
                self._nursery.start_soon(self._settle, user)
            await trio.sleep_forever()

    async def _settle(self, user: str) -> None:
        files, pause = self._of_users[user], _PAUSE
        while files:
            file, size = files[0]
            is_last = self._size > _MOST
            error = await self._workers.run_behind(functools.partial(settled, file, is_last=is_last))
            if error is None or is_last:
                files.popleft()
                self._size -= size
                pause = _PAUSE
                continue
            if pause == _PAUSE:
                log.warning("%s: what was not finished cannot be kept in rejected/ yet: %s", file.node, reason(error))
            # The next one will hardly do better.
            files.rotate(-1)
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        del self._of_users[user]


def settled(file: OpenFile, *, is_last: bool) -> PotofsError | OSError | None:
    """Settles a file, and returns what kept it from that; whatever it has is lost if this `is_last`. In any thread."""
    try:
        file.settle()
    except (PotofsError, OSError) as error:
        if is_last:
            # Whoever wrote it is gone, and was never told that it is stored.
            log.error("%s: what was not finished could not be kept in rejected/: %s", file.node, reason(error))
        return error
    return None
