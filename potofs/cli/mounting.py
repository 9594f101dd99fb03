"""What `mount` and `umount` do; apart from the other commands, for only these need pyfuse3 and trio."""

import logging
import os

from potofs.cli.options import ENVIRONMENT_VARIABLE
from potofs.config import Where
from potofs.errors import DeadlineExceeded, PotofsError, reason
from potofs.journal.journal import open_journal
from potofs.mount import logs, mountpoints, owners, running, starting
from potofs.mount.mountpoints import MountError
from potofs.mount.options import MountOptions, check_allowed

# How long a mount may take to answer once its daemon is ready, and a daemon to end (seconds).
_ANSWER = 10.0
_END = 30.0


def start(mountpoint: str, where: Where, options: MountOptions, source: str | None = None) -> None:
    """Leaves a daemon behind that serves the mount; raises PotofsError, OSError.

    `source` is what mount(8) shows, in ASCII and without commas, if not the backend's URL.
    """
    path = _checked(mountpoint, where, options)
    log = options.log or running.log_file(path)
    # Whole paths, for a daemon's own folder is the root.
    arguments = ["mount", path, f"--log={log}"]
    arguments += [f"-o{options.text}"] if options.text else []
    arguments += [f"--owners={options.owners}"] if options.owners is not None else []
    arguments += ["--nonempty"] if options.nonempty else []
    arguments += [f"--source={source}"] if source is not None else []
    starting.start(arguments, log, {ENVIRONMENT_VARIABLE: where.url})
    if not mountpoints.wait_until_mounted(path, _ANSWER):
        raise MountError(f"{path} was mounted, but does not answer: see {log}")


def serve(
    mountpoint: str, where: Where, options: MountOptions, source: str | None = None, ready_fd: int | None = None
) -> None:
    """Serves the mount until it ends; raises PotofsError, OSError."""
    from potofs.mount import daemon

    ready, failed = starting.tell(ready_fd)
    try:
        path = _checked(mountpoint, where, options)
        with logs.logging_to(options.log):
            os.makedirs(path, exist_ok=True)
            permissions = owners.permissions(options)
            with running.announced(path, str(where)), open_journal(where, create=not options.read_only) as journal:

                def on_ready() -> None:
                    logging.getLogger(__name__).info("%s is mounted at %s", where, path)
                    ready()

                daemon.serve(daemon.Served(journal, path, source or str(where), options, permissions), on_ready)
    except (PotofsError, OSError) as error:
        failed(reason(error))
        raise


def stop(mountpoint: str, lazy: bool) -> None:
    """Unmounts, and returns when the daemon has ended; raises PotofsError."""
    path = mountpoints.absolute(mountpoint)
    with running.watched(path) as daemon:
        mountpoints.unmount(path, lazy=lazy)
        if not lazy and not daemon.has_ended(_END):
            raise DeadlineExceeded(
                f"{path} is unmounted, but its daemon, process {daemon.pid}, has not ended after {_END:g} s: it waits "
                f"for its backend, or was stopped; kill -9 {daemon.pid} ends it, with whatever it has not stored"
            )


def _checked(mountpoint: str, where: Where, options: MountOptions) -> str:
    """The mountpoint's whole path, once all is known to be well that can be known without mounting."""
    mountpoints.check_system()
    check_allowed(options)
    owners.permissions(options)
    root = where.place if where.scheme == "file" else None
    path = mountpoints.checked(mountpoint, root=root, nonempty=options.nonempty)
    # Made and reached before anything is mounted: a mount that cannot answer is worse than none.
    open_journal(where, create=not options.read_only).close()
    return path
