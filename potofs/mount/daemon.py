"""The process that serves a mount: from the first request to a clean end on a signal."""

import functools
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import pyfuse3
import trio

from potofs.errors import PotofsError, reason
from potofs.fuse.operations import Operations
from potofs.fuse.permissions import Permissions
from potofs.journal.journal import DialogueJournal
from potofs.mount import mountpoints, owners
from potofs.mount.mountpoints import MountError
from potofs.mount.notify import Supervisor
from potofs.mount.options import MountOptions
from potofs.tree.tree import Tree

log = logging.getLogger(__name__)

# Requests that may be under way: beyond these, whoever comes waits for any of them, of whichever user, and nobody has
# begun to count how long.
_REQUESTS = 4096
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Served(NamedTuple):
    """What a daemon serves, and where."""

    journal: DialogueJournal
    mountpoint: str
    #: What mount(8) shows, in ASCII and without commas.
    source: str
    options: MountOptions
    permissions: Permissions


def serve(served: Served, on_ready: Callable[[], None]) -> None:
    """Mounts a journal and answers for it until it is unmounted, or a signal says that it is enough.

    `on_ready` is called once requests are answered. Raises MountError.
    """
    served.journal.backend.hurry()
    with suppress(OSError, ValueError):
        # What clients have open is open here.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    operations = Operations(Tree(served.journal), served.permissions)
    supervisor = Supervisor()
    options = {
        *pyfuse3.default_options,
        f"fsname={served.source}",
        f"subtype={mountpoints.FILESYSTEM_TYPE.removeprefix('fuse.')}",
        # A daemon that is killed leaves no dead mount behind.
        "auto_unmount",
        *served.options.kernel,
        *(["allow_other"] if served.options.allow_other else []),
    }
    with _overheard() as said:
        try:
            pyfuse3.init(operations, served.mountpoint, options)
        except RuntimeError as error:
            raise MountError(f"{served.mountpoint} could not be mounted: {said() or error}") from None
    try:
        operations.freshness.open()
        trio.run(_answer, served, operations, supervisor, on_ready)
    finally:
        supervisor.stopping(f"ending the mount at {served.mountpoint}")
        operations.freshness.close()
        try:
            # First, for nobody is answered any more, and what is set aside may wait for a server.
            pyfuse3.close(unmount=True)
            log.info("unmounted %s", served.mountpoint)
        finally:
            operations.close()


@contextmanager
def _overheard() -> Iterator[Callable[[], str]]:
    """Gives a function: the last line that was written to standard error meanwhile.

    There libfuse says why it could not do what it was asked for, and nowhere else.
    """
    with open(os.memfd_create("heard"), "w+b", buffering=0) as heard:
        before = os.dup(2)
        os.dup2(heard.fileno(), 2)

        def said() -> str:
            heard.seek(0)
            lines = heard.read().decode(errors="replace").strip().splitlines()
            return lines[-1].removeprefix("fusermount3: ") if lines else ""

        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
            heard.seek(0)
            sys.stderr.write(heard.read().decode(errors="replace"))


async def _answer(served: Served, operations: Operations, supervisor: Supervisor, on_ready: Callable[[], None]) -> None:
    status = f"{served.source} is mounted at {served.mountpoint}"

    def tell() -> None:
        on_ready()
        supervisor.ready(status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_obey_signals, served, operations, supervisor, status)
        nursery.start_soon(operations.leaving.run)
        nursery.start_soon(trio.to_thread.run_sync, tell)
        if supervisor.watchdog is not None:
            nursery.start_soon(_show_life, supervisor, supervisor.watchdog)
        await pyfuse3.main(max_tasks=_REQUESTS)
        nursery.cancel_scope.cancel()


async def _obey_signals(served: Served, operations: Operations, supervisor: Supervisor, status: str) -> None:
    for ending in _SIGNALS:
        # What is in force again when nobody listens any more: a second signal may not end it before all is set aside.
        signal.signal(ending, lambda *_: None)
    one_at_a_time = trio.Lock()

    async def reload() -> None:
        async with one_at_a_time:
            supervisor.reloading()
            await _reload(served, operations)
            supervisor.ready(status)

    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as reloads:
            async for number in signals:
                if number == signal.SIGHUP:
                    # It may wait for a network, and what comes next may be the order to end.
                    reloads.start_soon(reload)
                    continue
                log.info("%s: unmounting", signal.Signals(number).name)
                supervisor.stopping(f"unmounting {served.mountpoint}")
                # Before requests stop being answered, which the kernel may have it wait for.
                await trio.to_thread.run_sync(operations.freshness.close)
                pyfuse3.terminate()
                reloads.cancel_scope.cancel()
                return


async def _reload(served: Served, operations: Operations) -> None:
    """Reads the owner map again; one with a mistake changes nothing."""
    if served.options.owners is None:
        log.info("SIGHUP: nothing to reload, every setting was given on the command line")
        return
    try:
        # In a thread: names of system users may be asked of a network.
        read = functools.partial(owners.permissions, served.options)
        operations.permissions = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
    except (PotofsError, OSError) as error:
        log.error("SIGHUP: the owner map stays as it was: %s", reason(error))
    else:
        log.info("SIGHUP: the owner map %s is in force", served.options.owners)


async def _show_life(supervisor: Supervisor, interval: float) -> None:
    """From the thread that answers requests: if it is stuck, so is this."""
    while True:
        supervisor.alive()
        await trio.sleep(interval)
