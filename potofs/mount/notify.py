"""Telling systemd how the daemon is, as sd_notify(3) documents it: one datagram of lines for each word.

Elsewhere nobody has asked, and nothing is sent.
"""

import logging
import os
import socket
import time

log = logging.getLogger(__name__)


class Supervisor:
    """Whoever started this process and wants to be told how it is; asked of the environment, and taken out of it.

    Taken out, because a program that we start would speak in our name.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        # An @ stands for the NUL that begins an abstract socket's name.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        interval, process = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        is_ours = process in ("", str(os.getpid()))
        #: How often it wants to hear that requests are being answered (seconds); None: never.
        self.watchdog: float | None = None
        if self._address and is_ours and interval.isdecimal() and int(interval):
            # As sd_watchdog_enabled(3) advises: half of the time after which it would think us dead.
            self.watchdog = int(interval) / 1e6 / 2

    def ready(self, status: str) -> None:
        """Requests are answered; also after a reload."""
        # The process too: it may be another than the one that systemd started, which waits for this.
        self._tell("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self) -> None:
        """Settings are being read again."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """The mount goes away now."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """Requests are still being answered."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as error:
            # Whoever does not listen must not end a mount.
            log.warning("systemd could not be told %s: %s", lines[0], error)
