"""A Redis that hangs: every call on the mount is answered within its deadline, and all is well once it goes on."""

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from potofs import open_journal
from tests import redis_servers
from tests.mounts import Mount, all_at_once, answer_of, is_mounted, opened_to_append, processes_of, run, wait_until

#: What a call may take (seconds), and what the machine may add to that.
DEADLINE = 1.0
SOME = 1.5
RECORD = 'role: user\ncontent: number {0}\ntimestamp: "2024-01-15T10:30:{0:02d}.000Z"\n---\n'


Servers = redis_servers.Server | redis_servers.Cluster


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Servers]:
    of = getattr(request, "param", redis_servers.Server)
    server = of(tmp_path / "redis")
    yield server
    server.kill()


alone_and_several = pytest.mark.parametrize("server", [redis_servers.Server, redis_servers.Cluster], indirect=True)


@pytest.fixture
def mount(server: Servers, mount_at: Callable[..., Mount]) -> Mount:
    scheme = "redis+cluster" if isinstance(server, redis_servers.Cluster) else "redis"
    mount = mount_at(f"{scheme}://{server.place}?timeoutMs={DEADLINE * 1000:.0f}")
    mount.expect_warning(".")
    for user in ("mia", "noah"):
        (mount.users / user).mkdir()
        with mount.current(user).open("a") as file:
            file.write(RECORD.format(0))
        mount.current(user).rename(mount.archived(user) / "old.yaml")
        with mount.current(user).open("a") as file:
            file.write(RECORD.format(1))
    return mount


class Hanging:
    """A server, or all of a cluster, that hangs as long as it lasts."""

    def __init__(self, server: Servers) -> None:
        self._servers = server.nodes if isinstance(server, redis_servers.Cluster) else [server]

    def __enter__(self) -> None:
        for server in self._servers:
            server.signal(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.signal(signal.SIGCONT)


class Opened:
    """Files that were opened before it hung."""

    def __init__(self, mount: Mount) -> None:
        self.appending = os.open(mount.current("mia"), os.O_WRONLY | os.O_APPEND)
        self.unfinished = os.open(mount.current("mia"), os.O_WRONLY | os.O_APPEND)
        os.write(self.unfinished, RECORD.format(2).removesuffix("---\n").encode())
        self.reading = os.open(mount.current("mia"), os.O_RDONLY)
        self.folder = os.open(mount.users, os.O_RDONLY)

    def finish(self) -> None:
        """Closes the only descriptor of what is not finished."""
        descriptor, self.unfinished = self.unfinished, -1
        os.close(descriptor)

    def close(self) -> None:
        for descriptor in vars(self).values():
            with suppress(OSError):
                os.close(descriptor)


#: Each call, given the mount and what was opened before.
CALLS: dict[str, Callable[[Mount, Opened], object]] = {
    "stat of a conversation": lambda mount, _: mount.current("mia").stat(),
    "stat of a user": lambda mount, _: (mount.users / "zoe").stat(),
    "ls of all users": lambda mount, _: os.listdir(mount.users),
    "ls of archives": lambda mount, _: os.listdir(mount.archived("mia")),
    "open to read": lambda mount, _: mount.current("mia").read_bytes(),
    "open to append": lambda mount, _: os.open(mount.current("mia"), os.O_WRONLY | os.O_APPEND),
    "a whole record": lambda _, opened: os.write(opened.appending, RECORD.format(3).encode()),
    "the rest of a record": lambda _, opened: os.write(opened.unfinished, b"---\n"),
    "close with a message waiting": lambda _, opened: opened.finish(),
    "fsync": lambda _, opened: os.fsync(opened.appending),
    "fstat": lambda _, opened: os.fstat(opened.reading),
    "read": lambda _, opened: os.pread(opened.reading, 10, 0),
    "readdir of what was opened": lambda _, opened: os.listdir(opened.folder),
    "mv into archived": lambda mount, _: mount.current("mia").rename(mount.archived("mia") / "new.yaml"),
    "mkdir": lambda mount, _: (mount.users / "zoe").mkdir(),
    "touch": lambda mount, _: os.utime(mount.current("mia")),
    "rm": lambda mount, _: mount.current("mia").unlink(),
    "metadata.yaml": lambda mount, _: (mount.users / "mia/metadata.yaml").read_bytes(),
    "df": lambda mount, _: os.statvfs(mount.path),
}


@alone_and_several
@pytest.mark.parametrize("fault", ["hangs", "is down"])
def test_the_mount_itself_is_listed_whatever_its_backend_does(server: Servers, mount: Mount, fault: str) -> None:
    """So that whoever wonders what is wrong finds system/health.yaml."""
    before = os.stat(mount.users)
    with ExitStack() as over:
        if fault == "hangs":
            over.enter_context(Hanging(server))
        else:
            server.kill()
        begun = time.monotonic()
        assert sorted(os.listdir(mount.path)) == ["config", "system", "users"]
        assert time.monotonic() - begun < DEADLINE
        done = run("ls", "-l", mount.path)
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 4)
        assert os.stat(mount.users).st_mtime_ns == before.st_mtime_ns
        assert "status: unhealthy" in (mount.path / "system/health.yaml").read_text().replace('"', "")
        with pytest.raises(OSError) as refused:
            os.listdir(mount.users)
        assert refused.value.errno in (errno.ETIMEDOUT, errno.EHOSTDOWN)


@alone_and_several
def test_every_call_is_answered_within_the_deadline_and_all_is_well_afterwards(mount: Mount, server: Servers) -> None:
    opened = {what: Opened(mount) for what in CALLS}
    before = {user: mount.current(user).read_text() for user in ("mia", "noah")}
    with Hanging(server):
        answers = {what: answer_of(partial(call, mount, opened[what])) for what, call in CALLS.items()}
    assert {what: waited for what, (_, waited) in answers.items() if waited > DEADLINE + SOME} == {}
    assert {what for what, (answer, _) in answers.items() if answer != "ETIMEDOUT"} == {"fsync"}
    wait_until(lambda: answer_of(mount.current("noah").read_bytes)[0] == "done", "the server answers again")
    for user, text in before.items():
        # A timeout says nothing about what was done; but what is there is whole, and nothing of it is lost.
        conversations = [*mount.archived(user).glob("[!o]*.yaml"), mount.current(user)]
        assert "".join(path.read_text() for path in conversations if path.exists()).startswith(text)
    for one in opened.values():
        one.close()
    wait_until((mount.dialogs("mia") / "rejected").is_dir, "what was not finished is set aside")
    number = iter(range(10, 60))
    for user in ("mia", "noah"):
        with mount.current(user).open("a") as file:
            file.write(RECORD.format(next(number)))
        mount.current(user).rename(mount.archived(user) / "after.yaml")


@alone_and_several
def test_a_call_alone_is_answered_within_the_deadline(mount: Mount, server: Servers) -> None:
    """Those that the kernel or the daemon makes several of: each is the first that meets the hanging server."""
    alone = (
        "stat of a conversation",
        "the rest of a record",
        "mv into archived",
        "metadata.yaml",
        "open to read",
        "df",
    )
    for what in alone:
        opened = Opened(mount)
        with Hanging(server):
            answer, waited = answer_of(partial(CALLS[what], mount, opened))
        assert (answer, waited < DEADLINE + SOME) == ("ETIMEDOUT", True), (what, waited)
        wait_until(lambda: answer_of(mount.current("noah").read_bytes)[0] == "done", "the server answers again")
        opened.close()
        with mount.current("mia").open("a") as file:
            file.write(RECORD.format(50))


def test_a_call_that_asks_a_slow_server_often_has_one_deadline_for_all_of_it(
    server: redis_servers.Server, mount_at: Callable[..., Mount]
) -> None:
    with redis_servers.Proxy(server) as proxy:
        mount = mount_at(f"redis://{proxy.place}?timeoutMs={DEADLINE * 1000:.0f}")
        mount.expect_warning(".")
        for number in range(8):
            mount.current("mia").parent.parent.mkdir(exist_ok=True)
            mount.current("mia").write_text(RECORD.format(number))
            mount.current("mia").rename(mount.archived("mia") / f"{number}.yaml")
        # It is asked several times for each archive that was not read before.
        proxy.slow = 0.3 * DEADLINE
        answer, waited = answer_of((mount.users / "mia/metadata.yaml").read_bytes)
        assert (answer, waited < 2 * DEADLINE + SOME) == ("ETIMEDOUT", True)
        # Who answers soon is waited for, however often that is.
        proxy.slow = 0.05 * DEADLINE
        wait_until(lambda: answer_of(mount.current("mia").stat)[0] == "ENOENT", "it answers in time")
        answer, waited = answer_of((mount.users / "mia/metadata.yaml").read_bytes)
        assert (answer, waited > DEADLINE) == ("done", True)
        proxy.slow = 0


def test_many_who_wait_for_the_same_file_do_not_wait_for_one_another(mount: Mount, server: Servers) -> None:
    """The kernel lets one append to a file at a time, and the daemon has few threads for each user."""
    descriptors = [os.open(mount.current("mia"), os.O_WRONLY | os.O_APPEND) for _ in range(300)]
    waits: list[tuple[str, float]] = []

    def append(descriptor: int, number: int) -> None:
        waits.append(answer_of(lambda: os.write(descriptor, RECORD.format(number).encode())))

    try:
        with Hanging(server):
            threads = [
                threading.Thread(target=append, args=(descriptor, 20 + number % 30))
                for number, descriptor in enumerate(descriptors)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert {answer for answer, _ in waits} == {"ETIMEDOUT"}
        # One after another they would take a deadline each.
        assert max(waited for _, waited in waits) < DEADLINE + SOME
        wait_until(
            lambda: answer_of(lambda: os.write(descriptors[0], RECORD.format(50).encode()))[0] == "done",
            "the server answers again",
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.mark.parametrize("end", ["SIGTERM", "umount"])
def test_the_daemon_ends_although_the_server_hangs(mount: Mount, server: Servers, end: str) -> None:
    opened = [Opened(mount) for _ in range(10)] if end == "SIGTERM" else []
    try:
        daemon = mount.daemon
        with Hanging(server):
            begun = time.monotonic()
            if end == "SIGTERM":
                os.kill(daemon, signal.SIGTERM)
            else:
                # Somebody may be looking at all mounts at the moment.
                wait_until(
                    lambda: subprocess.run(["umount", mount.path], capture_output=True, check=False).returncode == 0,
                    "it is unmounted",
                )
            wait_until(lambda: not processes_of(mount.path), "the daemon has ended", 10)
            # What is set aside takes two steps, each with its deadline, whatever the number of files.
            assert time.monotonic() - begun < 2 * DEADLINE + SOME
            assert not is_mounted(mount.path)
    finally:
        for one in opened:
            one.close()


def test_the_daemon_sets_aside_all_that_many_have_not_finished_although_they_are_one_users(
    mount: Mount, server: redis_servers.Server
) -> None:
    with ExitStack() as stack:
        for number in range(300):
            os.write(
                stack.enter_context(opened_to_append(mount.current("mia"))), b"role: user\ncontent: half %d" % number
            )
        os.kill(mount.daemon, signal.SIGTERM)
        wait_until(lambda: not processes_of(mount.path), "the daemon has ended")
    with open_journal(f"redis://{server.place}") as journal:
        found = [found.name for found in journal.backend.set_asides("mia")]
        kept = [journal.backend.open_set_aside("mia", name).read_all() for name in found]
    assert sorted(kept) == sorted(b"role: user\ncontent: half %d" % number for number in range(300))


def test_the_daemon_sets_aside_what_is_not_finished_if_the_server_goes_on_before_two_deadlines(
    mount: Mount, server: redis_servers.Server
) -> None:
    users = ("mia", "noah")
    with ExitStack() as stack:
        for user in 5 * users:
            os.write(stack.enter_context(opened_to_append(mount.current(user))), b"role: user\ncontent: half")
        with Hanging(server):
            os.kill(mount.daemon, signal.SIGTERM)
            time.sleep(1.3 * DEADLINE)
        wait_until(lambda: not processes_of(mount.path), "the daemon has ended")
    with open_journal(f"redis://{server.place}") as journal:
        assert [len(journal.backend.set_asides(user)) for user in users] == [5, 5]


def test_a_second_signal_does_not_end_it_before_all_is_set_aside(mount: Mount, server: Servers) -> None:
    opened = Opened(mount)
    try:
        daemon = mount.daemon
        with Hanging(server):
            # Something is under way that ends with its deadline.
            reader = threading.Thread(target=answer_of, args=(mount.current("noah").read_bytes,))
            reader.start()
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(daemon, number)
                wait_until(lambda: "SIGTERM: unmounting" in mount.log.read_text(), "it has heard the first")
            wait_until(lambda: "did not answer" in mount.log.read_text(), "that has ended")
            # Now nobody listens to signals any more, and what was not finished is being set aside.
            os.kill(daemon, signal.SIGTERM)
        wait_until(lambda: not processes_of(mount.path), "the daemon has ended")
        reader.join()
    finally:
        opened.close()
    assert "are kept in rejected/" in mount.log.read_text()


def test_what_nobody_waits_for_is_set_aside_by_a_server_that_goes_on_in_time(mount: Mount, server: Servers) -> None:
    """Also by one that others were just not answered by."""
    descriptor = os.open(mount.current("mia"), os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"role: user")
    with Hanging(server):
        assert answer_of(mount.current("noah").read_bytes)[0] == "ETIMEDOUT"
        assert answer_of(mount.current("noah").read_bytes)[0] == "ETIMEDOUT"
        # Its error goes nowhere, and its descriptor is gone.
        answer_of(lambda: os.close(descriptor))
    wait_until(lambda: answer_of(mount.current("noah").read_bytes)[0] == "done", "the server answers again")
    wait_until(lambda: answer_of(lambda: os.listdir(mount.dialogs("mia") / "rejected"))[0] == "done", "it is set aside")
    (kept,) = (mount.dialogs("mia") / "rejected").iterdir()
    assert kept.read_bytes() == b"role: user"


def test_what_is_let_go_while_the_server_hangs_keeps_nobody(mount: Mount, server: Servers) -> None:
    descriptors = [os.open(mount.current("mia"), os.O_WRONLY | os.O_APPEND) for _ in range(40)]
    for descriptor in descriptors:
        os.write(descriptor, b"role: user\ncontent: half")
    with Hanging(server):
        all_at_once([partial(os.close, descriptor) for descriptor in descriptors])
        answer, waited = answer_of(mount.current("mia").stat)
        assert (answer, waited < DEADLINE + SOME) == ("ETIMEDOUT", True)


def test_whoever_asks_while_the_daemon_sets_aside_what_it_has_is_told_that_it_is_gone(
    mount: Mount, server: Servers
) -> None:
    opened = Opened(mount)
    daemon = mount.daemon
    with Hanging(server):
        os.kill(daemon, signal.SIGTERM)
        wait_until(lambda: not is_mounted(mount.path), "it is unmounted")
        answer, waited = answer_of(partial(os.fstat, opened.reading))
        assert (answer, waited < DEADLINE) == ("ENOTCONN", True)
        assert processes_of(mount.path) != [], "it is at work still"
    wait_until(lambda: not processes_of(mount.path), "the daemon has ended", 10)
    opened.close()


@pytest.mark.parametrize("outage", [signal.SIGSTOP, signal.SIGKILL])
def test_what_is_let_go_during_an_outage_is_kept_until_it_is_over(
    mount: Mount, server: redis_servers.Server, outage: signal.Signals
) -> None:
    """Longer than any deadline; also a whole message whose writer was told that it may not be stored."""
    whole, half = (os.open(mount.current("mia"), os.O_WRONLY | os.O_APPEND) for _ in range(2))
    os.write(whole, b"role: user\ncontent: whole\n")
    os.write(half, b"role: user\ncontent: half")
    if outage is signal.SIGKILL:
        server.kill()
    else:
        server.signal(outage)
    for descriptor in (whole, half):
        answer_of(partial(os.close, descriptor))
    wait_until(lambda: "cannot be kept in rejected/ yet" in mount.log.read_text(), "it was tried")
    if outage is signal.SIGKILL:
        server.start()
    else:
        server.signal(signal.SIGCONT)
    rejected = mount.dialogs("mia") / "rejected"

    def kept() -> list[str]:
        try:
            return sorted(path.read_text()[:26] for path in rejected.iterdir())
        except OSError:
            return []

    wait_until(lambda: kept() == ["role: user\ncontent: half", "role: user\ncontent: whole\n"], "both are set aside")


@pytest.mark.parametrize("outage", [signal.SIGSTOP, signal.SIGKILL])
def test_many_who_write_and_open_during_an_outage_wait_for_one_deadline_together(
    mount: Mount, server: redis_servers.Server, outage: signal.Signals
) -> None:
    descriptors = [os.open(mount.current("mia"), os.O_WRONLY | os.O_APPEND) for _ in range(60)]
    try:
        if outage is signal.SIGKILL:
            server.kill()
        else:
            server.signal(outage)
        waits = all_at_once(
            [
                *(partial(os.write, one, RECORD.format(at).encode()) for at, one in enumerate(descriptors)),
                *(partial(os.stat, mount.users / f"user {number}") for number in range(20)),
            ]
        )
        assert {answer for answer, _ in waits} <= {"ETIMEDOUT", "EHOSTDOWN"}
        assert max(waited for _, waited in waits) < DEADLINE + SOME
    finally:
        if outage is signal.SIGKILL:
            server.start()
        else:
            server.signal(signal.SIGCONT)
        wait_until(lambda: answer_of(mount.current("noah").stat)[0] == "done", "the server answers again")
        for descriptor in descriptors:
            os.close(descriptor)
