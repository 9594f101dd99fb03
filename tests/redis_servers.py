"""Redis servers of the tests' own: on a free port of 127.0.0.1, in a folder of their own, gone in the end."""

import atexit
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

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
    """A redis-server with its data in a folder; `options` as in redis.conf."""

    def __init__(self, folder: Path, port: int | None = None, /, **options: str) -> None:
        self.folder = folder
        self.port = port or free_port()
        settings = {
            "appendonly": "yes",
            "save": "",
            "bind": "127.0.0.1",
            "dir": str(folder),
            "repl-diskless-sync-delay": "0",
        }
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
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise

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
            except redis.AuthenticationError:
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


class _Fate:
    """What befalls the next pieces that have some bytes in them."""

    def __init__(self, part: bytes, times: int, then: Callable[[], object] = lambda: None) -> None:
        self._part = part
        self._times = times
        self._then = then

    def meets(self, data: bytes) -> bool:
        if not self._times or self._part not in data:
            return False
        self._times -= 1
        self._then()
        return True


class Proxy:
    """A way to a server on which things get lost; one thread for each connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._losing = _Fate(b"", 0)
        self._delaying = _Fate(b"", 0)
        #: How often something was lost.
        self.lost = 0
        self._delayed: list[bytes] = []
        self._start(self._accept)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}/0"

    def lose(self, part: bytes, *, times: int, then: Callable[[], object] = lambda: None) -> None:
        """The next answers with these bytes in them are lost, and each connection with its answer; `then` is called."""
        self._losing = _Fate(part, times, then)

    def delay(self, part: bytes, *, times: int) -> None:
        """The next commands with these bytes in them arrive when they are delivered; their connections are lost."""
        self._delaying = _Fate(part, times)

    def deliver(self) -> list[bytes]:
        """Brings the server the commands that were delayed, and returns its answers."""
        answers = []
        for command in self._delayed:
            with socket.create_connection(("127.0.0.1", self._server.port)) as upstream:
                upstream.settimeout(PATIENCE)
                upstream.sendall(command)
                answers.append(upstream.recv(1 << 16))
        self._delayed = []
        return answers

    def close(self) -> None:
        for one in [self._listening, *self._sockets]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                upstream = socket.create_connection(("127.0.0.1", self._server.port))
                self._sockets += (client, upstream)
                self._start(self._pass_on, client, upstream)

    def _pass_on(self, client: socket.socket, upstream: socket.socket) -> None:
        with client, upstream, suppress(OSError):
            while True:
                for one in select.select([client, upstream], [], [])[0]:
                    data = one.recv(1 << 20)
                    if not data:
                        return
                    fate = self._delaying if one is client else self._losing
                    if fate.meets(data):
                        self.lost += 1
                        if one is client:
                            self._delayed.append(data)
                        return
                    (upstream if one is client else client).sendall(data)
