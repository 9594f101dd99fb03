"""The process that serves a mount: from the first request to a clean end on a signal."""

import logging
import signal
import sys
from collections.abc import Callable
from logging.handlers import RotatingFileHandler

import pyfuse3
import trio

from potofs.fuse.operations import Operations
from potofs.journal.journal import DialogueJournal
from potofs.mount import mountpoints
from potofs.mount.mountpoints import MountError
from potofs.tree.tree import Tree

log = logging.getLogger(__name__)

_LOG_BYTES = 4 << 20
_LOG_FILES = 3


def serve(journal: DialogueJournal, mountpoint: str, source: str, on_ready: Callable[[], None]) -> None:
    """Mounts a journal and answers for it until it is unmounted, or a signal says that it is enough.

    `source` is what mount(8) shows, in ASCII and without commas. `on_ready` is called once requests are answered.
    Raises MountError.
    """
    operations = Operations(Tree(journal))
    options = {
        *pyfuse3.default_options,
        f"fsname={source}",
        f"subtype={mountpoints.FILESYSTEM_TYPE.removeprefix('fuse.')}",
        # A daemon that is killed leaves no dead mount behind.
        "auto_unmount",
    }
    try:
        pyfuse3.init(operations, mountpoint, options)
    except RuntimeError as error:
        raise MountError(f"{mountpoint} could not be mounted: {error}") from None
    try:
        operations.freshness.open()
        trio.run(_answer, operations, on_ready)
    finally:
        operations.freshness.close()
        operations.close()
        pyfuse3.close(unmount=True)
        log.info("unmounted %s", mountpoint)


async def _answer(operations: Operations, on_ready: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal, operations)
        nursery.start_soon(trio.to_thread.run_sync, on_ready)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


async def _end_on_signal(operations: Operations) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                log.info("SIGHUP: nothing to reload, every setting was given on the command line")
                continue
            log.info("%s: unmounting", signal.Signals(number).name)
            # Before requests stop being answered, which the kernel may have it wait for.
            await trio.to_thread.run_sync(operations.freshness.close)
            pyfuse3.terminate()
            return


def log_to(path: str | None) -> None:
    """Sends the log to a file that is rotated, or to standard error."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
