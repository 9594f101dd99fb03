"""What was let go while the backend took nothing: it is kept in memory, and given again until it is taken.

Nobody waits for it any more. It ends with the daemon, as whatever waits does.
"""

from collections import deque
from collections.abc import Sequence

import trio

from potofs.backends.insisting import insisting
from potofs.fuse.files import OpenFile
from potofs.fuse.workers import Workers

#: The most files that are kept so.
MOST = 1000
# How long between two tries (seconds).
_PAUSE = 1.0


class Leftovers:
    """Files that nobody has open any more, and that have something to be stored or set aside still."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        # What was tried longest ago comes first.
        self._files: deque[OpenFile] = deque()

    async def add(self, file: OpenFile) -> None:
        """Takes one; the one that was tried longest ago is given up if there are too many."""
        self._files.append(file)
        if len(self._files) > MOST:
            await self._workers.run_behind(self._files.popleft().abandon)

    def files(self) -> Sequence[OpenFile]:
        """All of them, at the end."""
        return list(self._files)

    async def settle(self) -> None:
        """Gives them again, for as long as it runs."""
        while True:
            await trio.sleep(_PAUSE)
            is_settled = True
            # If one cannot be, the others will hardly do better, and one of them is the first next time.
            while self._files and is_settled:
                file, is_settled = self._files.popleft(), False
                try:
                    is_settled = await self._workers.run_behind(insisting()(file.settle))
                finally:
                    if not is_settled:
                        self._files.append(file)
