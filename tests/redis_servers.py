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
from typing import Any, Self, TypeVar

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
        self._settings = self.settings() | options
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

    def settings(self) -> dict[str, str]:
        """What it is told besides its options."""
        return {
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            # A replica does not wait for others that might want the same.
            "repl-diskless-sync-delay": "0",
        }

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
        self._silently = False
        self._delaying = _Fate(b"", 0)
        #: How often something was lost, and for how long each answer is kept (seconds).
        self.lost = 0
        self.slow = 0.0
        self._delayed: list[bytes] = []
        self._start(self._accept)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}/0"

    def lose(
        self, part: bytes, *, times: int, then: Callable[[], object] = lambda: None, silently: bool = False
    ) -> None:
        """The next answers with these bytes in them are lost, and each connection with its answer; `then` is called.

        `silently`: the connection stays, and whoever waits for the answer goes on waiting.
        """
        self._losing = _Fate(part, times, then)
        self._silently = silently

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
        # What whoever ends the proxy has closed has no number any more: a ValueError.
        with client, upstream, suppress(OSError, ValueError):
            while True:
                for one in select.select([client, upstream], [], [])[0]:
                    data = one.recv(1 << 20)
                    if not data:
                        return
                    fate = self._delaying if one is client else self._losing
                    if fate.meets(data):
                        self.lost += 1
                        if one is upstream and self._silently:
                            continue
                        if one is client:
                            self._delayed.append(data)
                        return
                    if one is upstream:
                        time.sleep(self.slow)
                    (upstream if one is client else client).sendall(data)


class Cluster:
    """Masters that share all slots, each with as many replicas; `covered`: it answers only while all masters do."""

    def __init__(self, folder: Path, masters: int = 3, replicas: int = 0, *, covered: bool = True) -> None:
        self.nodes: list[Server] = []
        try:
            for number in range(masters * (1 + replicas)):
                bus = free_port()
                options = {"cluster-enabled": "yes", "cluster-port": str(bus), "cluster-node-timeout": "700"}
                options["cluster-require-full-coverage"] = "yes" if covered else "no"
                self.nodes.append(Server(folder / str(number), None, **options))
                with self.nodes[0].client() as first:
                    first.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[-1].port, bus)
            for number, node in enumerate(self.nodes[:masters]):
                with node.client() as client:
                    slots = (16384 * number // masters, 16384 * (number + 1) // masters - 1)
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
            self._wait_until(f"cluster_known_nodes:{len(self.nodes)}")
            for number, node in enumerate(self.nodes[masters:]):
                with self.nodes[number % masters].client() as master, node.client() as client:
                    client.execute_command("CLUSTER", "REPLICATE", master.execute_command("CLUSTER", "MYID"))
            self._wait_until("cluster_state:ok")
            for node in self.nodes[masters:]:
                wait_until(node, lambda client: client.info("replication")["master_link_status"] == "up")
        except BaseException:
            self.kill()
            raise

    def _wait_until(self, line: str) -> None:
        """Returns once every node says this of the cluster."""
        for node in self.nodes:
            wait_until(node, lambda client: line in client.execute_command("CLUSTER", "INFO").decode().splitlines())

    @property
    def place(self) -> str:
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


class Watched:
    """A master, a replica, and a sentinel that puts one in the other's place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = [Server(folder / "first")]
        try:
            self.servers.append(Server(folder / "second", None, replicaof=f"127.0.0.1 {self.servers[0].port}"))
            wait_until(self.servers[1], lambda client: client.info("replication")["master_link_status"] == "up")
            self.sentinel = _Sentinel(folder / "sentinel", self.servers[0].port)
            self.servers.append(self.sentinel)
            wait_until(self.sentinel, lambda client: client.sentinel_slaves("mymaster"))
        except BaseException:
            self.kill()
            raise

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.sentinel.port}/mymaster/0"

    def kill(self) -> None:
        for server in reversed(self.servers):
            server.kill()


class _Sentinel(Server):
    def __init__(self, folder: Path, watched: int) -> None:
        folder.mkdir(parents=True)
        (folder / "sentinel.conf").write_text(
            f"sentinel monitor mymaster 127.0.0.1 {watched} 1\n"
            "sentinel down-after-milliseconds mymaster 300\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        super().__init__(folder)

    def program(self) -> list[str]:
        return ["redis-server", str(self.folder / "sentinel.conf"), "--sentinel"]

    def settings(self) -> dict[str, str]:
        return {"bind": "127.0.0.1", "dir": str(self.folder)}


def wait_until(server: Server, holds: Callable[[Any], object]) -> None:
    """Returns once something holds of a server, asked with a client of it; fails if that takes too long."""
    deadline = time.monotonic() + PATIENCE
    with server.client() as client:
        while not holds(client):
            assert time.monotonic() < deadline, (server.folder / "log").read_text()
            time.sleep(0.01)


def has_bytes(node: Server) -> bool:
    """Whether the bytes of a conversation are on this server."""
    with node.client() as client:
        return bool(list(client.scan_iter("*bytes:*")))


def has_journal(node: Server) -> bool:
    """Whether the key is on this server that says that there is a journal."""
    with node.client() as client:
        return bool(list(client.scan_iter("*:journal")))


def users_on(node: Server) -> set[str]:
    """The users whose conversations are on this server; of plain names."""
    with node.client() as client:
        return {key.decode().rpartition(":")[2] for key in client.scan_iter("*:user:*")}


def cut_off(master: Server, replica: Server) -> None:
    """From now on the replica, which is stopped, gets nothing from the master, and cannot come back to it."""
    replica.signal(signal.SIGSTOP)
    with master.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")


def replace(master: Server, replica: Server) -> None:
    """Kills the master, and returns once the replica has its place; goes on with a replica that was stopped."""
    master.kill()
    replica.signal(signal.SIGCONT)

    def rules(client: Any) -> bool:
        with suppress(redis.ConnectionError):
            return bool(client.info("replication")["role"] == "master")
        return False

    wait_until(replica, rules)


def come_back(dead: Server, master: Server, *, tell: bool) -> None:
    """Starts one that was killed, and returns once it is the master's replica; `tell`: nobody else tells it to be."""
    dead.start()

    def follows(client: Any) -> bool:
        # A sentinel that tells it as well cuts every connection to it.
        with suppress(redis.ConnectionError):
            if tell:
                client.execute_command("REPLICAOF", "127.0.0.1", master.port)
            return bool(client.info("replication").get("master_link_status") == "up")
        return False

    wait_until(dead, follows)


Servers = TypeVar("Servers", Server, Cluster, Watched)


def _kept_to_the_end(make: Callable[[Path], Servers]) -> Servers:
    folder = Path(tempfile.mkdtemp(prefix="potofs-redis-"))
    atexit.register(shutil.rmtree, folder)
    servers = make(folder)
    # Before the folder goes: what is registered last is called first.
    atexit.register(servers.kill)
    return servers


@cache
def shared() -> Server:
    """One server for all tests that need none of their own; each keeps to a prefix of its own."""
    return _kept_to_the_end(Server)


@cache
def shared_cluster() -> Cluster:
    """The same: three masters."""
    return _kept_to_the_end(Cluster)


@cache
def shared_watched() -> Watched:
    """The same: what a sentinel watches."""
    return _kept_to_the_end(Watched)
