"""What nobody has open any more, and that has something to be stored or set aside still.

The kernel was answered, and nobody waits. While the backend takes nothing, it is kept in memory, and given again until
it is taken. It ends with the daemon, as whatever waits does.
"""

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import trio

from potofs.backends.waiting import having_waited, insisting
from potofs.errors import DeadlineExceeded, PotofsError, Unreachable, reason
from potofs.fuse.files import OpenFile
from potofs.fuse.workers import Workers

log = logging.getLogger(__name__)

# How much is kept so while nothing can be stored (bytes of memory), for as many users as there are in equal shares, and
# what a file takes beside its contents.
_MOST = 64 << 20
_FILE = 4 << 10
# How long between two tries, at first and at most (seconds).
_PAUSE = 1.0
_LONGEST_PAUSE = 8.0
# The same when the mount ends.
_PAUSE_AT_LAST = 0.1
# For what is left then: of so many users each has a thread, and all wait for the same deadline. (And a
# connection to Redis: there are 256.)
_THREADS_AT_LAST = 200


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
            error = await self._error_of(insisting()(file.settle))
            if error is None:
                files.popleft()
                self._size -= size
                pause = _PAUSE
                continue
            if pause == _PAUSE:
                _tell(logging.WARNING, "%s: what was not finished cannot be kept in rejected/ yet: %s", file, error)
            while self._size > _MOST and sum(size for _, size in files) > _MOST / len(self._of_users):
                last, size = files[0]
                error = await self._error_of(functools.partial(last.settle, is_last=True))
                if error is not None:
                    _give_up(last, error)
                files.popleft()
                self._size -= size
            # The next one will hardly do better.
            files.rotate(-1)
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        del self._of_users[user]

    async def _error_of(self, settle: Callable[[], None]) -> Exception | None:
        try:
            await self._workers.run_behind(settle)
        except Exception as error:
            # Whatever it is: nobody is there to be told, and it would end the mount for everyone.
            return error
        return None


def settle_at_last(files: Iterable[OpenFile], patience: float) -> None:
    """Settles files when there is no event loop any more, and nobody tries again; `patience` is a deadline (seconds).

    Each user's one after another here, too: they would be in one another's way, and what waits for too long is lost.
    """
    of_users: dict[str, list[OpenFile]] = {}
    for file in files:
        of_users.setdefault(file.node.user, []).append(file)
    # The backend is given so long to come back, and after that each is tried once more, which takes a moment.
    ends = time.monotonic() + 2 * patience

    def settle(files: Sequence[OpenFile]) -> None:
        for file in files:
            try:
                while not _is_settled(file, ends - time.monotonic(), patience):
                    time.sleep(_PAUSE_AT_LAST)
            except Exception as error:
                _give_up(file, error)

    with ThreadPoolExecutor(_THREADS_AT_LAST) as threads:
        list(threads.map(settle, of_users.values()))


def _is_settled(file: OpenFile, left: float, patience: float) -> bool:
    """Tries to settle a file that may be tried again for so long (seconds), if the backend is away.

    Raises what it is given up for.
    """
    if left <= 0:
        file.settle(is_last=True)
        return True
    try:
        # As a request that is over by then.
        with insisting(), having_waited(max(0.0, patience - left)):
            file.settle()
    except (DeadlineExceeded, Unreachable):
        return False
    return True


def _give_up(file: OpenFile, error: Exception) -> None:
    # Whoever wrote it is gone, and was never told that it is stored.
    _tell(logging.ERROR, "%s: what was not finished could not be kept in rejected/: %s", file, error)


def _tell(level: int, text: str, file: OpenFile, error: Exception) -> None:
    if isinstance(error, PotofsError | OSError):
        log.log(level, text, file.node, reason(error))
    else:
        log.log(level, text, file.node, error, exc_info=error)
