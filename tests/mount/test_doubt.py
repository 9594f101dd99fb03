"""A message whose answer never came through a mount is stored once, whoever closes its descriptors or tries again."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from potofs.journal import reading
from tests.mounts import Mount, shell, wait_until
from tests.redis_servers import Proxy, Server

#: What a call may take. A server that was silent has a twentieth of it to show that it answers again.
_DEADLINE_MS = 1000
FIRST = 'role: user\ncontent: first\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'
UNSTAMPED = b"role: user\ncontent: again\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "redis")
    yield server
    server.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        yield proxy


class Said:
    """What mia has said."""

    def __init__(self, mount: Mount) -> None:
        (mount.users / "mia").mkdir()
        self.path, self.dialogs = mount.current("mia"), mount.dialogs("mia")
        with self.path.open("a") as file:
            file.write(FIRST)

    def is_all(self, *contents: str) -> bool:
        try:
            data = self.path.read_bytes()
        except TimeoutError:
            return False
        return [message.content for message in reading.messages(data)] == ["first", *contents]

    def nothing_is_rejected(self) -> bool:
        return not (self.dialogs / "rejected").exists()


def until_it_answers(call: Callable[[], object]) -> None:
    """Makes a call again until it does not time out any more."""

    def is_done() -> bool:
        try:
            call()
        except TimeoutError:
            return False
        return True

    wait_until(is_done, "it is answered")


def mounted(mount_at: Callable[..., Mount], place: str) -> Said:
    mount = mount_at(f"redis://{place}?timeoutMs={_DEADLINE_MS}")
    mount.expect_warning("did not answer within")
    return Said(mount)


@pytest.fixture
def mia(proxy: Proxy, mount_at: Callable[..., Mount]) -> Said:
    return mounted(mount_at, proxy.place)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        # The shell closes it, and tells nobody what it was told.
        ("""{ /usr/bin/printf 'role: user\\ncontent: again\\n'; } >> "$F" """, ""),
        ("""/usr/bin/printf 'role: user\\ncontent: again\\n' >> "$F" """, "Connection timed out"),
    ],
    ids=["two descriptors", "one descriptor"],
)
def test_a_tail_whose_answer_was_lost_at_the_close_is_stored_once(
    mia: Said, proxy: Proxy, script: str, told: str
) -> None:
    proxy.lose(b"done", times=1, silently=True)
    done = shell(script, F=mia.path)
    assert proxy.lost == 1
    assert told in done.stderr
    wait_until(lambda: mia.is_all("again"), "what was in doubt is stored")
    assert mia.nothing_is_rejected()


def test_a_write_whose_answer_was_lost_and_that_is_repeated_is_stored_once(mia: Said, proxy: Proxy) -> None:
    descriptor = os.open(mia.path, os.O_WRONLY | os.O_APPEND)
    proxy.lose(b"done", times=1, silently=True)
    with pytest.raises(TimeoutError):
        os.write(descriptor, UNSTAMPED + b"---\n")
    until_it_answers(lambda: os.write(descriptor, UNSTAMPED + b"---\n"))
    assert mia.is_all("again")
    os.write(descriptor, UNSTAMPED + b"---\n")
    os.close(descriptor)
    assert mia.is_all("again", "again")


def test_a_file_of_python_that_writes_once_more_what_failed_stores_it_once(mia: Said, proxy: Proxy) -> None:
    file = mia.path.open("ab")
    file.write(UNSTAMPED + b"---\n")
    proxy.lose(b"done", times=1, silently=True)
    with pytest.raises(TimeoutError):
        file.flush()
    until_it_answers(file.flush)
    file.close()
    assert mia.is_all("again")


def test_a_tail_that_a_hanging_server_stores_later_is_stored_once(
    server: Server, mount_at: Callable[..., Mount]
) -> None:
    """What is tried, and tried again when nobody has it open any more, waits in its sockets until it goes on."""
    mia = mounted(mount_at, server.place)
    first, second = (os.open(mia.path, os.O_WRONLY | os.O_APPEND) for _ in range(2))
    os.write(first, UNSTAMPED)
    os.dup2(first, second)
    os.close(first)
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(OSError) as caught:
            os.close(second)
        assert caught.value.errno == errno.ETIMEDOUT
    finally:
        server.signal(signal.SIGCONT)
    wait_until(lambda: mia.is_all("again"), "what was in doubt is stored")
    assert mia.nothing_is_rejected()
