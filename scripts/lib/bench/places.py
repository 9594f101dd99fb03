"""What is measured, and what it is measured on: records, mounts, servers."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import redis

from potofs import ChatMessage

TEXT = "x" * 200
TIMESTAMP = "2024-01-15T10:30:00.000Z"
#: Settings with which no conversation is archived by itself.
ENDLESS = "archiveThreshold=0&maxConversationLength=0"

_NUMBERS = count(1)


def message() -> ChatMessage:
    """A message that is equal to no other: a second one is a retry, and stores nothing."""
    return ChatMessage("user", f"Number {next(_NUMBERS)} {TEXT}", TIMESTAMP)


def record() -> bytes:
    """The record of one."""
    return f'role: user\ncontent: Number {next(_NUMBERS)} {TEXT}\ntimestamp: "{TIMESTAMP}"\n---\n'.encode()


@contextmanager
def bindfs(source: Path, mountpoint: Path) -> Iterator[Path]:
    """A pass-through mount in C."""
    mountpoint.mkdir()
    subprocess.run(["bindfs", source, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["fusermount", "-u", mountpoint], check=True)


@contextmanager
def potofs(url: str, mountpoint: Path) -> Iterator[Path]:
    """A mounted journal."""
    command = [sys.executable, "-m", "potofs"]
    subprocess.run([*command, "mount", mountpoint, "--backend", url, "--log", f"{mountpoint}.log"], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run([*command, "umount", mountpoint], check=True)


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """A server of its own on a free port of 127.0.0.1, with the log of changes that production has; gives the port."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    settings = ["--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes", "--save", ""]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["redis-server", "--port", str(port), *settings], stdout=log, stderr=log)
    try:
        with redis.Redis(port=port) as client:
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if server.poll() is not None:
                        raise
                    time.sleep(0.01)
        yield port
    finally:
        server.terminate()
        server.wait()
