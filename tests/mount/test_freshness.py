"""What is done elsewhere, through another mount or the library, as a mount shows it: at once, whole, never stale."""

import errno
import mmap
import os
import statistics
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from potofs import DialogueJournal, open_journal
from tests import redis_servers
from tests.mounts import Mount, mounted, run, wait_until

#: What is seen only when the kernel asks again is seen after this (seconds), and some for a busy machine.
KERNEL = 1.0


def record(number: int) -> bytes:
    """A record; every third has many lines."""
    text = "".join(f"  line {line} of {number}\n" for line in range(300 if number % 3 == 0 else 1))
    timestamp = f"2024-01-15T10:{number // 60:02d}:{number % 60:02d}.000Z"
    return f"role: user\ncontent: |\n{text}timestamp: {timestamp}\n---\n".encode()


def short(number: int) -> bytes:
    """One that several of fit into a page of memory."""
    timestamp = f"2024-01-15T{11 + number // 3600}:{number // 60 % 60:02d}:{number % 60:02d}.000Z"
    return f"role: user\ncontent: number {number}\ntimestamp: {timestamp}\n---\n".encode()


def said(first: int, last: int) -> bytes:
    """The records from one number up to another."""
    return b"".join(map(record, range(first, last)))


class Elsewhere(ABC):
    """Who uses the same journal from another place."""

    def __init__(self, journal: DialogueJournal) -> None:
        self.journal = journal

    @abstractmethod
    def append(self, user: str, data: bytes) -> None: ...

    @abstractmethod
    def archive(self, user: str, name: str) -> None: ...

    @abstractmethod
    def create_user(self, user: str) -> None: ...

    def restore(self, user: str, name: str) -> None:
        self.journal.restore_conversation(user, name)


class Library(Elsewhere):
    """A program that uses the library."""

    def append(self, user: str, data: bytes) -> None:
        self.journal.append_pieces(user, [data])

    def archive(self, user: str, name: str) -> None:
        self.journal.archive_conversation(user, name)

    def create_user(self, user: str) -> None:
        self.journal.create_user(user)


class OtherMount(Elsewhere):
    """Another server that mounts it."""

    def __init__(self, journal: DialogueJournal, mount: Mount) -> None:
        super().__init__(journal)
        self.mount = mount

    def append(self, user: str, data: bytes) -> None:
        with self.mount.current(user).open("ab", buffering=0) as file:
            file.write(data)

    def archive(self, user: str, name: str) -> None:
        os.rename(self.mount.current(user), self.mount.archived(user) / f"{name}.yaml")

    def create_user(self, user: str) -> None:
        (self.mount.users / user).mkdir()


class Place:
    """A journal, a mount of it, and what somebody does elsewhere to the same user."""

    def __init__(self, mount: Mount, elsewhere: Elsewhere, user: str) -> None:
        self.mount, self.elsewhere, self.user = mount, elsewhere, user
        self.current = mount.current(user)
        self.archived = mount.archived(user)
        self.dialogs = mount.dialogs(user)
        self.append = partial(elsewhere.append, user)
        self.archive = partial(elsewhere.archive, user)
        self.restore = partial(elsewhere.restore, user)
        elsewhere.create_user(user)


def on_files(folder: Path) -> str:
    """The URL of a journal on files in which nothing is archived by itself."""
    return f"file://{folder}/journal?fsync=never&archiveThreshold=0&maxConversationLength=0"


def on_redis(folder: Path) -> str:
    """The same on a Redis server, under a prefix of its own."""
    return f"redis://{redis_servers.shared().place}?prefix={folder.name}:&archiveThreshold=0&maxConversationLength=0"


@pytest.fixture(
    scope="module", params=[(on_files, OtherMount), (on_files, Library), (on_redis, OtherMount), (on_redis, Library)]
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mount, Elsewhere]]:
    """A mount, and who is elsewhere: each in turn, for all tests."""
    url_in, kind = request.param
    folder = tmp_path_factory.mktemp("pair")
    url = url_in(folder)
    with open_journal(url) as journal, mounted(url, folder / "mnt") as mount:
        if kind is Library:
            yield mount, Library(journal)
            return
        with mounted(url, folder / "other") as other:
            yield mount, OtherMount(journal, other)


@pytest.fixture
def place(pair: tuple[Mount, Elsewhere], request: pytest.FixtureRequest) -> Place:
    """A user of each pair of its own."""
    return Place(*pair, request.node.name)


def test_an_append_is_seen_at_once_by_whoever_opens_or_asks_for_the_size(place: Place) -> None:
    for number in range(20):
        place.append(record(number))
        size = len(said(0, number + 1))
        assert place.current.stat().st_size == size
        assert place.current.read_bytes() == said(0, number + 1)
        if number % 5 == 0:
            assert run("wc", "-c", place.current).stdout.split()[0] == str(size)
            assert run("cat", place.current).stdout.encode() == said(0, number + 1)
            assert f" {size} " in run("ls", "-l", place.current).stdout


def test_an_append_is_in_the_next_read_of_whoever_has_it_open(place: Place) -> None:
    place.append(record(0))
    with place.current.open("rb", buffering=0) as reader:
        assert reader.read() == record(0)
        for number in range(1, 30):
            assert reader.read(1 << 20) == b""
            place.append(record(number))
            assert reader.read(1 << 20) == record(number)
            assert os.fstat(reader.fileno()).st_size == len(said(0, number + 1))


def test_whoever_opened_it_before_the_first_message_reads_that(place: Place) -> None:
    descriptor = os.open(place.current, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        assert os.pread(descriptor, 100, 0) == b""
        place.append(record(1))
        assert os.pread(descriptor, 1000, 0) == record(1)
        assert place.current.read_bytes() == record(1)
    finally:
        os.close(descriptor)


def test_what_is_archived_is_an_archive_at_once_and_the_next_message_begins_another(place: Place) -> None:
    for number in range(10):
        place.append(said(number, number + 2))
        before = place.current.stat()
        with place.current.open("rb", buffering=0) as reader:
            place.archive(f"number {number}")
            assert not place.current.exists()
            with pytest.raises(FileNotFoundError):
                place.current.open("rb")
            assert f"number {number}.yaml" in os.listdir(place.archived)
            archive = place.archived / f"number {number}.yaml"
            assert archive.stat().st_ino == before.st_ino
            assert archive.read_bytes() == said(number, number + 2)
            place.append(record(number + 3))
            assert place.current.read_bytes() == record(number + 3)
            assert place.current.stat().st_ino != before.st_ino
            assert reader.read() == said(number, number + 2)
            place.archive(f"and {number}")


def test_a_user_is_there_at_once(place: Place) -> None:
    for number in range(10):
        assert not (place.mount.users / f"user {number}").exists()
        place.elsewhere.create_user(f"user {number}")
        assert (place.mount.users / f"user {number}").is_dir()
        assert f"user {number}" in os.listdir(place.mount.users)


def test_what_was_mapped_into_memory_while_it_grew_is_read_whole_as_an_archive(place: Place) -> None:
    """A private mapping of current.yaml fills the kernel's pages, which are read again when it is an archive."""
    place.append(record(0))
    with place.current.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
        assert mapped[:] == record(0)
        place.append(said(1, 9))
        assert place.current.read_bytes() == said(0, 9)
        place.archive("grown")
        assert (place.archived / "grown.yaml").read_bytes() == said(0, 9)


def test_no_page_of_the_kernel_is_shared_with_a_program(place: Place) -> None:
    place.append(record(0))
    place.archive("first")
    place.append(record(1))
    for path, data in ((place.archived / "first.yaml", record(0)), (place.current, record(1))):
        with path.open("rb") as file:
            with pytest.raises(OSError) as refused:
                mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
            assert refused.value.errno == errno.ENODEV
            with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
                assert mapped[:] == data


def test_an_archive_that_is_restored_and_gone_on_with_is_never_read_as_it_was(place: Place) -> None:
    place.append(record(0))
    place.archive("first")
    for number in range(1, 6):
        name = f"again {number - 1}" if number > 1 else "first"
        assert (place.archived / f"{name}.yaml").read_bytes() == said(0, number)
        place.restore(name)
        assert place.current.read_bytes() == said(0, number)
        place.append(record(number))
        assert place.current.read_bytes() == said(0, number + 1)
        place.archive(f"again {number}")
        assert (place.archived / f"again {number}.yaml").read_bytes() == said(0, number + 1)


def test_what_is_restored_here_and_archived_elsewhere_is_the_running_conversation_no_longer(place: Place) -> None:
    """The kernel would take what it remembers of an archive along to its new name."""
    place.append(record(0))
    place.archive("first")
    for number in range(0, 80, 2):
        name = f"again {number - 2}" if number else "first"
        assert f"{name}.yaml" in os.listdir(place.archived)
        assert (place.archived / f"{name}.yaml").read_bytes() == record(0)
        os.rename(place.archived / f"{name}.yaml", place.current)
        place.archive(f"again {number}")
        place.append(record(number + 1))
        assert place.current.stat().st_size == len(record(number + 1))
        assert place.current.read_bytes() == record(number + 1)
        with place.current.open("ab", buffering=0) as file:
            file.write(record(number + 2))
        assert place.current.read_bytes() == said(number + 1, number + 3)
        assert place.current.stat().st_ino != (place.archived / f"again {number}.yaml").stat().st_ino
        place.archive(f"and {number}")


def test_a_copy_of_an_archive_that_was_restored_elsewhere_is_an_archive_again(place: Place) -> None:
    refund = _restored_elsewhere(place)
    refund.write_bytes(said(0, 3))
    assert refund.read_bytes() == said(0, 3)
    assert place.current.read_bytes() == said(0, 2)


def test_what_goes_on_with_an_archive_that_was_restored_elsewhere_finds_none(place: Place) -> None:
    refund = _restored_elsewhere(place)
    with pytest.raises(FileNotFoundError):
        os.open(refund, os.O_WRONLY)
    assert place.current.read_bytes() == said(0, 2)


@pytest.mark.parametrize("flags", [os.O_APPEND, os.O_APPEND | os.O_CREAT, 0])
def test_whoever_has_just_looked_the_running_conversation_up_adds_nothing_by_the_name_that_it_had_as_an_archive(
    place: Place, flags: int
) -> None:
    refund = _restored_elsewhere(place)
    assert place.current.stat().st_size == len(said(0, 2))
    with pytest.raises((PermissionError, FileNotFoundError)):
        os.open(refund, os.O_WRONLY | flags)
    with place.current.open("ab", buffering=0) as file:
        file.write(record(2))
    assert place.current.read_bytes() == said(0, 3)


def _restored_elsewhere(place: Place) -> Path:
    """An archive that is the running conversation again, while the kernel remembers its name as that of an archive."""
    refund = place.archived / "refund.yaml"
    refund.write_bytes(said(0, 2))
    assert refund.stat().st_size == len(said(0, 2))
    place.restore("refund")
    assert place.current.read_bytes() == said(0, 2)
    return refund


@pytest.mark.parametrize("pair", [(on_files, Library)], indirect=True)
def test_whoever_has_an_archive_open_reads_no_byte_that_nobody_wrote_while_it_is_gone_on_with(place: Place) -> None:
    """What the kernel keeps in pages of memory it would show with zeros behind it, for a moment, once told of more."""
    place.append(b"".join(map(short, range(1500))))
    place.archive("first")
    is_over = threading.Event()
    seen: list[bytes] = []

    def read(descriptor: int) -> None:
        while not is_over.is_set():
            data = os.pread(descriptor, 1 << 20, 0)
            if b"\0" in data or not data.endswith(b"\n---\n"):
                seen.append(data[-200:])

    with (place.archived / "first.yaml").open("rb") as archive:
        assert len(archive.read()) == archive.tell() > 4096
        threads = [threading.Thread(target=read, args=(archive.fileno(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            place.restore("first")
            for number in range(1500, 3500):
                place.append(short(number))
                place.current.stat()
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    assert seen == []


def test_an_archive_of_the_same_name_that_has_grown_is_shown_whole_within_a_second(place: Place) -> None:
    place.append(record(0))
    place.archive("first")
    archive = place.archived / "first.yaml"
    assert archive.read_bytes() == record(0)
    place.restore("first")
    place.append(said(1, 9))
    place.archive("first")
    seen: list[bytes] = []

    def is_whole() -> bool:
        seen.append(archive.read_bytes())
        return seen[-1] == said(0, 9)

    wait_until(is_whole, "the archive as it is", 10 * KERNEL)
    # Until then as it was, whole as well.
    assert set(seen) <= {record(0), said(0, 9)}


def test_a_moved_conversation_leaves_no_phantom_behind(place: Place) -> None:
    for number in range(3):
        place.append(record(number))
        assert place.current.exists()
        assert run("mv", place.current, place.archived).returncode == 0
        assert not (place.archived / "current.yaml").exists()
        assert not place.current.exists()
        assert "current.yaml" not in os.listdir(place.archived) + os.listdir(place.dialogs)
        if isinstance(place.elsewhere, OtherMount):
            assert not (place.elsewhere.mount.archived(place.user) / "current.yaml").exists()


def test_tail_follows_what_is_appended_archived_and_restored(place: Place) -> None:
    place.append(said(0, 2))
    # Looks ten times a second, and for another file of that name whenever there is nothing new.
    follow = ["tail", "-n", "+1", "-s", "0.1", "--max-unchanged-stats=1", "-F", str(place.current)]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
        try:
            assert tail.stdout is not None
            os.set_blocking(tail.stdout.fileno(), False)
            wanted = shown = b""

            def has_shown(wanted: bytes) -> bool:
                nonlocal shown
                assert tail.stdout is not None
                shown += tail.stdout.read() or b""
                assert wanted.startswith(shown), "nothing is lost, doubled or out of order"
                return shown == wanted

            def shows(more: bytes, what: str) -> None:
                nonlocal wanted
                wanted += more
                wait_until(lambda: has_shown(wanted), f"tail shows {what}")

            shows(said(0, 2), "what was said")
            for number in range(2, 10):
                place.append(record(number))
            shows(said(2, 10), "what is appended")
            # Said just before it is archived: in the file that tail has open.
            place.append(record(10))
            place.archive("first")
            place.append(record(11))
            shows(record(10) + record(11), "the last of one conversation and the first of the next")
            place.append(record(12))
            shows(record(12), "more of that")
            place.archive("second")
            place.restore("first")
            shows(said(0, 11), "what is restored, from its beginning: another file has the name")
            place.append(record(13))
            shows(record(13), "what it is gone on with")
        finally:
            tail.kill()


def seconds_until(condition: Callable[[], bool], what: str) -> float:
    """How long it takes until something holds, looked at as often as can be."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < 10 * KERNEL, f"still not: {what}"
    return time.monotonic() - begun


def changed(directory: Path, since: int) -> Callable[[], bool]:
    return lambda: directory.stat().st_mtime_ns > since


def gone(path: Path) -> Callable[[], bool]:
    return lambda: not path.exists()


@pytest.mark.parametrize("pair", [(on_redis, OtherMount), (on_redis, Library)], indirect=True)
def test_on_redis_what_the_kernel_remembers_is_mended_within_100_milliseconds(place: Place) -> None:
    rename = partial(place.elsewhere.journal.backend.rename_archive, place.user)
    users, archived = place.mount.users, place.archived
    waited: dict[str, list[float]] = {"a user": [], "an archive": [], "one with another name": [], "a restored one": []}
    for number in range(15):
        since = users.stat().st_mtime_ns
        place.elsewhere.create_user(f"one more: {number}")
        waited["a user"].append(seconds_until(changed(users, since), "users/ has changed"))
        place.append(record(number))
        since = archived.stat().st_mtime_ns
        place.archive(f"archive {number}")
        waited["an archive"].append(seconds_until(changed(archived, since), "archived/ has changed"))
        old, new = archived / f"archive {number}.yaml", archived / f"renamed {number}.yaml"
        assert old.stat().st_size == len(record(number))
        rename(f"archive {number}", f"renamed {number}")
        waited["one with another name"].append(seconds_until(gone(old), "its name is gone"))
        assert new.read_bytes() == record(number)
        place.restore(f"renamed {number}")
        waited["a restored one"].append(seconds_until(gone(new), "it is no archive any more"))
        place.archive(f"at last {number}")
    # The usual case, which a busy machine is not always in; without a notice it would be most of a second.
    assert {what: seconds for what, seconds in waited.items() if statistics.median(seconds) > 0.1} == {}


@pytest.mark.parametrize("pair", [(on_redis, Library)], indirect=True)
def test_on_redis_what_was_rejected_and_is_removed_elsewhere_is_gone_within_100_milliseconds(place: Place) -> None:
    backend = place.elsewhere.journal.backend
    waited = []
    for _ in range(9):
        name = backend.set_aside(place.user, b"nothing")
        path = place.dialogs / "rejected" / f"{name}.yaml"
        assert path.read_bytes() == b"nothing"
        backend.remove_set_aside(place.user, name)
        waited.append(seconds_until(gone(path), "it is gone"))
        assert not path.parent.exists()
    assert statistics.median(waited) < 0.1


def test_a_mount_whose_way_to_redis_was_cut_hears_of_changes_again(
    mount_at: Callable[..., Mount], tmp_path: Path
) -> None:
    server = redis_servers.Server(tmp_path / "redis")
    try:
        url = f"redis://{server.place}?timeoutMs=2000"
        mount = mount_at(url)
        numbers = count()
        with open_journal(url) as journal, server.client() as client:

            def listens() -> bool:
                return bool(client.pubsub_numsub("poto:dialogue:changes")[0][1] == 1)

            def hears() -> bool:
                """Whether an archive that gets another name is gone sooner than the kernel would ask again."""
                number = next(numbers)
                journal.append_pieces("mia", [record(number)])
                journal.archive_conversation("mia", f"{number}")
                path = mount.archived("mia") / f"{number}.yaml"
                assert path.exists()
                journal.backend.rename_archive("mia", f"{number}", f"renamed {number}")
                return seconds_until(gone(path), "it is gone") < KERNEL / 2

            wait_until(listens, "it listens")
            wait_until(hears, "it hears")
            for _ in range(3):
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                wait_until(listens, "it listens again")
                wait_until(hears, "it hears again")
        mount.finish()
    finally:
        server.kill()


def test_a_mount_ends_at_once_also_while_it_cannot_listen(mount_at: Callable[..., Mount], tmp_path: Path) -> None:
    server = redis_servers.Server(tmp_path / "redis")
    try:
        mount = mount_at(f"redis://{server.place}?timeoutMs=500")
        mount.expect_warning("cannot be reached")
        server.kill()
        wait_until(lambda: "nothing is heard of it" in mount.log.read_text(), "it says so")
        begun = time.monotonic()
        mount.finish()
        assert time.monotonic() - begun < 5
    finally:
        server.kill()
