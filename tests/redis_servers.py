"""Redis servers of the tests' own: on a free port of 127.0.0.1, in a folder of their own, gone in the end."""

import atexit
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import redis

#: How long a server may take to start or stop (seconds).
PATIENCE = 20


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A redis-server with its data in a folder; `options` as on its command line, without the dashes."""

    def __init__(self, folder: Path, port: int | None = None, **options: str) -> None:
        self.folder = folder
        self.port = port or free_port()
        settings = {"appendonly": "yes", "save": "", "bind": "127.0.0.1", "dir": str(folder), "daemonize": "no"}
        self._settings = {**settings, **options}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Starts it, with the data that it has, and returns once it answers."""
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        arguments = [part for argument in arguments for part in argument.split("=", 1)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.program(), "--port", str(self.port), *arguments], stdout=log, stderr=log
            )
        self.wait_until_ready()

    def program(self) -> list[str]:
        """What is run, before its options."""
        return ["redis-server"]

    def wait_until_ready(self) -> None:
        """Returns once it answers; fails, with what it logged, if it ends or takes too long."""
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.01)

    def client(self, **options: Any) -> redis.Redis:
        """A client of it that tries nothing twice."""
        return redis.Redis(port=self.port, retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0), **options)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, SIGSTOP for example."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it as a crash does; what it had in memory is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None


@cache
def shared() -> Server:
    """One server for all tests that need none of their own; each keeps to a prefix of its own."""
    folder = Path(tempfile.mkdtemp(prefix="potofs-redis-"))
    server = Server(folder)

    def end() -> None:
        server.kill()
        shutil.rmtree(folder)

    atexit.register(end)
    return server
