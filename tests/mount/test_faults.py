"""What is answered while what a mount needs is gone, and that nothing of what was acknowledged is lost or doubled then.

One table says which errno each call has during each fault. When the fault is over, the mount works again (or is mounted
again, over what is left of it), what was not acknowledged is given again, and a check finds nothing wrong.
"""

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from potofs import ChatMessage
from potofs.journal import reading
from tests import redis_servers
from tests.mounts import PATIENCE, Mount, potofs, processes_of, run, wait_until

# Longer than what is left of a page of memory, so that it needs room on a disk.
_LONG = "long " * 4000
_TIMEOUT_MS = 400


def record(number: int | str) -> bytes:
    """A record that may be given again without doubling it."""
    return f'role: user\ncontent: "{number} {_LONG}"\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'.encode()


class Place:
    """A mounted journal in which mia has said something, and some of her files, opened before anything went wrong."""

    def __init__(self, where: str, mount: Mount, server: redis_servers.Server | None, disk: Path | None) -> None:
        self.where, self.mount = where, mount
        self._server, self._disk = server, disk
        (mount.users / "mia").mkdir()
        self.current, self.archived = mount.current("mia"), mount.archived("mia")
        self.append(record("archived"))
        os.rename(self.current, self.archived / "first.yaml")
        self.append(record("first"))
        self.appended = os.open(self.current, os.O_WRONLY | os.O_APPEND)
        self.read = os.open(self.current, os.O_RDONLY)
        self.folder = os.open(self.archived, os.O_RDONLY | os.O_DIRECTORY)

    @property
    def server(self) -> redis_servers.Server:
        assert self._server is not None
        return self._server

    @property
    def disk(self) -> Path:
        assert self._disk is not None
        return self._disk

    def append(self, data: bytes) -> None:
        """Opens, writes and closes; raises what any of them does."""
        descriptor = os.open(self.current, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            assert os.write(descriptor, data) == len(data)
        except BaseException:
            # The error of the close is not what is asked for.
            with suppress(OSError):
                os.close(descriptor)
            raise
        os.close(descriptor)

    def let_go(self) -> None:
        """Closes what was opened before."""
        for descriptor in (self.appended, self.read, self.folder):
            with suppress(OSError):
                os.close(descriptor)

    def contents(self) -> list[str]:
        """What mia has said in all her conversations, but for what makes it long; each has to be a whole message."""
        found: list[str] = []
        for path in [*sorted(self.archived.iterdir()), *[self.current][: self.current.exists()]]:
            entries = reading.read(path.read_bytes())
            found += [
                each.content.split()[0] if isinstance(each, ChatMessage) else f"{path}: {each}" for each in entries
            ]
        return found

    def check(self) -> None:
        """Fails with what a check of the journal finds."""
        done = potofs("fsck", f"--backend={self.where}")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


# The calls

Call = Callable[[Place], object]

CALLS: dict[str, Call] = {
    "append": lambda at: at.append(record("append")),
    "append to what is open": lambda at: os.write(at.appended, record("open")),
    "append by closing": lambda at: at.append(record("closing").removesuffix(b"---\n")),
    "read": lambda at: at.current.read_bytes(),
    "read what is open": lambda at: os.pread(at.read, 100, 0),
    "stat": lambda at: os.stat(at.current),
    "ls": lambda at: os.listdir(at.archived),
    "ls what is open": lambda at: os.listdir(at.folder),
    "archive": lambda at: os.rename(at.current, at.archived / "second.yaml"),
}
#: What each of them would have said.
APPENDED = {"append": "append", "append to what is open": "open", "append by closing": "closing"}


def every(number: int) -> dict[str, int | None]:
    return dict.fromkeys(CALLS, number)


# The faults


@contextmanager
def stopped(at: Place) -> Iterator[None]:
    at.server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        at.server.signal(signal.SIGCONT)


@contextmanager
def killed(at: Place) -> Iterator[None]:
    at.server.kill()
    try:
        yield
    finally:
        at.server.start()


@contextmanager
def restarted(at: Place) -> Iterator[None]:
    at.server.kill()
    at.server.start()
    yield


@contextmanager
def out_of_memory(at: Place) -> Iterator[None]:
    with at.server.client() as client:
        client.config_set("maxmemory", "1")
        yield
        client.config_set("maxmemory", "0")


@contextmanager
def full(at: Place) -> Iterator[None]:
    ballast = at.disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    yield
    ballast.unlink()


@contextmanager
def without_daemon(at: Place) -> Iterator[None]:
    """With its helper killed before it, nobody takes the dead mount away."""
    daemon = at.mount.daemon
    for process in set(processes_of(at.mount.path)) - {daemon}:
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: processes_of(at.mount.path) == [daemon], "the helper is gone")
    at.mount.kill()
    # Its connection is cut when all of it is gone; what is asked until then is broken off.
    wait_until(lambda: errno_of(CALLS["stat"], at) == errno.ENOTCONN, "the mount is dead")
    yield
    at.mount.start()


@contextmanager
def renamed(at: Place) -> Iterator[None]:
    root = Path(at.where.removeprefix("file://"))
    root.rename(root.with_name("elsewhere"))
    yield
    root.with_name("elsewhere").rename(root)


class Fault(NamedTuple):
    """What goes wrong, where, and the errno of each call meanwhile; calls that are not in it succeed."""

    begun: Callable[[Place], AbstractContextManager[None]]
    where: str
    errnos: dict[str, int | None]


# What is open is read from the file that it is, wherever that is now.
NOTHING_THERE = every(errno.ENODEV) | {"read what is open": None}
NO_ROOM: dict[str, int | None] = dict.fromkeys(("append", "append to what is open", "append by closing"), errno.ENOSPC)

FAULTS = {
    "Redis is stopped": Fault(stopped, "redis", every(errno.ETIMEDOUT)),
    "Redis is killed": Fault(killed, "redis", every(errno.EHOSTDOWN)),
    "Redis is restarted": Fault(restarted, "redis", {}),
    # A script that could need memory is not begun.
    "Redis is out of memory": Fault(out_of_memory, "redis", NO_ROOM | {"archive": errno.ENOSPC}),
    # Another name needs no room.
    "the disk is full": Fault(full, "disk", NO_ROOM),
    "the journal's folder is renamed": Fault(renamed, "files", NOTHING_THERE),
    "the daemon is killed, files": Fault(without_daemon, "files", every(errno.ENOTCONN)),
    "the daemon is killed, Redis": Fault(without_daemon, "redis", every(errno.ENOTCONN)),
}


@contextmanager
def place(where: str, folder: Path, mount_at: Callable[..., Mount]) -> Iterator[Place]:
    """A place with a server or a disk of its own."""
    server = disk = None
    try:
        if where == "redis":
            server = redis_servers.Server(folder / "redis")
            url = f"redis://{server.place}?timeoutMs={_TIMEOUT_MS}"
        elif where == "disk":
            (folder / "disk").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", folder / "disk"], check=True)
            disk = folder / "disk"
            url = f"file://{disk}/journal?fsync=never"
        else:
            url = f"file://{folder}/journal"
        mount = mount_at(url)
        # What it says of each fault.
        mount.expect_warning("user 'mia'|redis://|No space left|could not be|folder is gone")
        at = Place(url, mount, server, disk)
        try:
            yield at
        finally:
            at.let_go()
        mount.finish()
    finally:
        if server is not None:
            server.kill()
        if disk is not None:
            run("umount", disk)


def errno_of(call: Call, at: Place) -> int | None:
    try:
        call(at)
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize("name", [name for name in FAULTS if os.geteuid() == 0 or FAULTS[name].where != "disk"])
def test_each_call_has_its_errno_during_a_fault_and_nothing_is_lost_by_it(
    name: str, tmp_path: Path, mount_at: Callable[..., Mount]
) -> None:
    fault = FAULTS[name]
    with place(fault.where, tmp_path, mount_at) as at:
        with fault.begun(at):
            answered = {call: errno_of(CALLS[call], at) for call in CALLS}
        expected = {call: fault.errnos.get(call) for call in CALLS}
        assert list(map(named, answered.items())) == list(map(named, expected.items()))
        # What was not acknowledged is given again, and may have been stored all the same.
        for content in APPENDED.values():
            at.append(record(content))
        assert Counter(at.contents()) == Counter(["archived", "first", *APPENDED.values()])
        at.append(record("afterwards"))
        assert "afterwards" in at.contents()
        os.rename(at.current, at.archived / "third.yaml")
        at.check()


def named(answered: tuple[str, int | None]) -> str:
    call, number = answered
    return f"{call}: {'well' if number is None else errno.errorcode[number]}"


@pytest.mark.parametrize("where", ["files", "redis"])
def test_a_daemon_that_is_killed_takes_what_was_not_finished_with_it_and_nothing_else(
    where: str, tmp_path: Path, mount_at: Callable[..., Mount]
) -> None:
    with place(where, tmp_path, mount_at) as at:
        os.write(at.appended, record("whole"))
        os.write(at.appended, b"role: user\ncontent: hal")
        with without_daemon(at):
            with pytest.raises(OSError) as gone:
                os.write(at.appended, b"f\n---\n")
            assert gone.value.errno == errno.ENOTCONN
        # What was opened then stays dead.
        for call in ("append to what is open", "read what is open", "ls what is open"):
            assert errno_of(CALLS[call], at) == errno.ENOTCONN
        with pytest.raises(OSError) as gone:
            os.close(at.appended)
        assert gone.value.errno == errno.ENOTCONN
        assert at.contents() == ["archived", "first", "whole"]
        at.append(record("afterwards"))
        assert at.contents() == ["archived", "first", "whole", "afterwards"]
        at.check()


def test_a_call_that_is_under_way_when_the_daemon_is_killed_is_broken_off_and_may_be_tried_again(
    tmp_path: Path, mount_at: Callable[..., Mount]
) -> None:
    with place("files", tmp_path, mount_at) as at:
        with (tmp_path / "journal/users/mia/.lock").open("r+b") as lock, ThreadPoolExecutor(1) as threads:
            fcntl.flock(lock, fcntl.LOCK_EX)
            under_way = threads.submit(errno_of, CALLS["append to what is open"], at)
            wait_until(lambda: is_held(at), "its write has arrived")
            at.mount.kill()
            assert under_way.result(PATIENCE) == errno.ECONNABORTED
        at.mount.start()
        for _ in range(2):
            at.append(record("open"))
        assert at.contents() == ["archived", "first", "open"]
        at.check()


# Clients that are killed

# One write of as many records as it takes to 1 MiB, again and again; each has a number.
WRITER = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(int(sys.argv[2])):
    text = f'role: user\\ncontent: "{number} {"long " * 13_000}"\\n---\\n'.encode()
    data = text * ((1 << 20) // len(text))
    print(number, len(data) // len(text), flush=True)
    assert os.write(descriptor, data) == len(data)
"""


def writing(at: Place, times: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WRITER, at.current, str(times)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("where", ["files", "redis"])
def test_a_write_whose_writer_is_killed_in_the_middle_is_stored_whole_or_not_at_all(
    where: str, tmp_path: Path, mount_at: Callable[..., Mount]
) -> None:
    chance = random.Random(where)
    with place(where, tmp_path, mount_at) as at:
        expected = Counter(at.contents())
        for _ in range(5):
            with writing(at, 1000) as process:
                assert process.stdout is not None
                began = process.stdout.readline()
                time.sleep(chance.random() / 20)
                process.kill()
                writes = [tuple(map(int, line.split())) for line in [began, *process.stdout]]
            # All that were acknowledged, and the last perhaps.
            for number, count in writes[:-1]:
                expected[str(number)] += count
            number, count = writes[-1]
            found = Counter(at.contents())
            more = found[str(number)] - expected[str(number)]
            assert more in (0, count), "the last write is there, or it is not"
            expected[str(number)] += more
            assert found == expected
        at.append(record("afterwards"))
        assert Counter(at.contents()) == expected + Counter(["afterwards"])
        assert not (at.mount.dialogs("mia") / "rejected").exists()
        at.check()


def test_a_writer_that_is_killed_while_its_write_waits_for_a_lock_has_written(
    tmp_path: Path, mount_at: Callable[..., Mount]
) -> None:
    """The kernel lets nobody go whose request has been taken on: what is under way is done, and then it dies."""
    with place("files", tmp_path, mount_at) as at:
        with (tmp_path / "journal/users/mia/.lock").open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with writing(at, 1) as process:
                assert process.stdout is not None
                _, count = map(int, process.stdout.readline().split())
                # Until the request has arrived, the kernel takes it back.
                wait_until(lambda: is_held(at), "its write has arrived")
                process.kill()
                fcntl.flock(lock, fcntl.LOCK_UN)
                assert process.wait(PATIENCE) == -signal.SIGKILL
        wait_until(lambda: at.contents() == ["archived", "first", *["0"] * count], "what was under way is stored")
        at.check()


def is_held(at: Place) -> bool:
    """Whether the daemon has mia's lock opened, to wait for it or to use it."""
    opened = []
    for path in Path(f"/proc/{at.mount.daemon}/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(os.readlink(path))
    return any(name.endswith("/mia/.lock") for name in opened)
