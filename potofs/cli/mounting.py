"""What `mount` and `umount` do; apart from the other commands, for only these need pyfuse3 and trio."""

import logging
import time

from potofs.cli.options import ENVIRONMENT_VARIABLE
from potofs.config import Where
from potofs.errors import DeadlineExceeded, PotofsError, reason
from potofs.journal.journal import open_journal
from potofs.mount import logs, memory, mountpoints, owners, running, starting
from potofs.mount.mountpoints import MountError
from potofs.mount.options import MountOptions, check_allowed

# How long a mount may take to answer once its daemon is ready, and a daemon to end (seconds).
_ANSWER = 10.0
_END = 30.0
# How often it is looked whether the daemon was stopped (seconds).
_LOOK = 0.5


def start(mountpoint: str, where: Where, options: MountOptions, source: str | None = None) -> None:
    """Leaves a daemon behind that serves the mount; raises PotofsError, OSError.

    `source` is what mount(8) shows, in ASCII and without commas, if not the backend's URL.
    """
    path = _checked(mountpoint, where, options)
    # Before there is a log of it.
    mountpoints.make(path)
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

    # Before there is any thread, as the one that writes the log is.
    memory.settle()
    ready, failed = starting.tell(ready_fd)
    try:
        path = _checked(mountpoint, where, options)
        with logs.logging_to(options.log):
            mountpoints.make(path)
            permissions = owners.permissions(options)
            with running.announced(path, str(where)), open_journal(where, create=not options.read_only) as journal:

                def on_ready() -> None:
                    logging.getLogger(__name__).info("%s is mounted at %s", where, path)
                    ready()

                daemon.serve(daemon.Served(journal, path, source or str(where), options, permissions), on_ready)
    except (PotofsError, OSError) as error:
        failed(reason(error))
        raise


def stop(mountpoint: str, lazy: bool) -> str:
    """Unmounts, and returns when the daemon has ended, or at once if `lazy`; raises PotofsError.

    What it returns is what remains to be said: empty, unless a daemon stays behind that will not end by itself.
    """
    path = mountpoints.absolute(mountpoint)
    with running.watched(path) as daemon:
        mountpoints.unmount(path, lazy=lazy)
        if daemon is None:
            running.forget_the_dead(path)
            return ""
        left = f"{path} is unmounted, but its daemon, process {daemon.pid}, "
        stopped = f"{left}is stopped: kill -CONT {daemon.pid} has it end, kill -9 {daemon.pid} ends it at once"
        if lazy:
            # It may have open files to serve, for as long as those are open.
            return stopped if daemon.is_stopped() else ""
        deadline = time.monotonic() + _END
        while not daemon.has_ended(_LOOK):
            if daemon.is_stopped():
                raise MountError(stopped)
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"{left}has not ended after {_END:g} s: it waits for its backend; kill -9 {daemon.pid} ends it, "
                    "with whatever it has not stored"
                )
        return ""


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
