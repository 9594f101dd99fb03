"""Writers of every kind, on every backend: they cut records in pieces, share an open file, fail, or die in between."""

import errno
import mmap
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from potofs import ChatMessage
from potofs.config import MAX_MESSAGE_BYTES
from potofs.journal import reading
from tests import redis_servers
from tests.mounts import Mount, mounted, run, shell, wait_until

_users = count()


def record(content: str, second: int = 0) -> bytes:
    return f'role: user\ncontent: {content}\ntimestamp: "2024-01-15T10:30:{second:02d}.000Z"\n---\n'.encode()


class Conversation:
    """The conversation of a user who has said nothing yet."""

    def __init__(self, mount: Mount, user: str) -> None:
        (mount.users / user).mkdir()
        self.path, self.dialogs = mount.current(user), mount.dialogs(user)

    def contents(self) -> list[str]:
        """What it says; everything in it has to be a message."""
        if not self.path.exists():
            return []
        found = reading.read(self.path.read_bytes())
        return [entry.content if isinstance(entry, ChatMessage) else f"damage: {entry}" for entry in found]

    def rejected(self) -> list[bytes]:
        """What was set aside, oldest first."""
        folder = self.dialogs / "rejected"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []


@pytest.fixture(scope="module", params=["files", "redis", "memory"])
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount of each backend in turn."""
    folder = tmp_path_factory.mktemp(request.param)
    where: str | Path = folder / "journal"
    if request.param == "redis":
        where = f"redis://{redis_servers.shared().place}?prefix={folder.name}:"
    elif request.param == "memory":
        where = "memory:"
    with mounted(where, folder / "mnt") as mount:
        # Of each record that it refuses, and of each that it sets aside.
        mount.expect_warning("user 'writer |are kept in rejected/")
        yield mount


@pytest.fixture
def mia(mount: Mount) -> Conversation:
    return Conversation(mount, f"writer {next(_users)}")


# Pieces


def test_a_write_of_a_megabyte_stores_all_its_records(mia: Conversation) -> None:
    text = b"".join(record(f"{number} {'x' * 17_000}", number) for number in range(60))
    assert 1_000_000 < len(text) <= 1 << 20
    descriptor = os.open(mia.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        assert os.write(descriptor, text) == len(text)
        assert mia.path.read_bytes() == text
    finally:
        os.close(descriptor)


def test_a_write_of_more_than_a_megabyte_ends_inside_a_record_and_is_gone_on_with(mia: Conversation) -> None:
    text = b"".join(record(f"{number} {'x' * 40_000}", number) for number in range(60))
    with mia.path.open("ab") as file:
        file.write(text)
    assert mia.path.read_bytes() == text


def test_a_message_may_have_exactly_a_megabyte(mia: Conversation) -> None:
    largest = message_of(MAX_MESSAGE_BYTES)
    with mia.path.open("ab", buffering=0) as file:
        for start in range(0, len(largest), 1 << 16):
            file.write(largest[start : start + (1 << 16)])
    assert mia.path.read_bytes() == largest


def test_a_message_of_one_byte_more_than_a_megabyte_is_refused(mia: Conversation) -> None:
    too_large = message_of(MAX_MESSAGE_BYTES + 1)
    with mia.path.open("ab", buffering=0) as file:
        for start in range(0, MAX_MESSAGE_BYTES, 1 << 16):
            file.write(too_large[start : start + (1 << 16)])
        with pytest.raises(OSError) as refused:
            file.write(too_large[MAX_MESSAGE_BYTES:])
        assert refused.value.errno == errno.EFBIG
        # It ended there, so what follows is a new record.
        file.write(record("short"))
    assert mia.contents() == ["short"]
    # In one go, which the kernel cuts in two: what is behind the cut is answered likewise.
    with pytest.raises(OSError) as refused, mia.path.open("ab") as file:
        file.write(message_of(2 * MAX_MESSAGE_BYTES))
    assert refused.value.errno == errno.EFBIG
    assert mia.contents() == ["short"]


@pytest.mark.parametrize("end", [b"\n---\n", b'  {"role": "assistant", "content": "I never said this"}\n---\n'])
def test_the_end_of_a_message_that_is_too_large_is_never_taken_for_another(mia: Conversation, end: bytes) -> None:
    """The kernel cuts a write at a megabyte; whoever is told that the first part was taken writes the rest."""
    head = b"role: user\ncontent: |-\n  "
    text = head + b"a" * (MAX_MESSAGE_BYTES - len(head)) + end
    with mmap.mmap(-1, len(text)) as memory, mia.path.open("ab", buffering=0) as file:
        memory[:] = text
        with memoryview(memory) as view:
            written = file.write(view)
            assert written == MAX_MESSAGE_BYTES
            for _ in range(2):
                with pytest.raises(OSError) as refused, view[written:] as rest:
                    file.write(rest)
                assert refused.value.errno == errno.EFBIG
        file.write(record("short"))
    assert mia.contents() == ["short"]


def message_of(size: int) -> bytes:
    """A record of so many bytes in all."""
    return record("x" * (size - len(record(""))))


def test_fsync_completes_no_record(mia: Conversation) -> None:
    with mia.path.open("ab", buffering=0) as file:
        file.write(record("one") + b"role: user\ncontent: two\n")
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
        assert mia.contents() == ["one"]
        file.write(b"---\n")
        assert mia.contents() == ["one", "two"]


def test_a_logger_that_formats_records_writes_one_message_for_each(mia: Conversation) -> None:
    """Its handler writes a line at a time, flushes after each record, and keeps the file open."""
    script = """
        import json, logging, sys
        handler = logging.FileHandler(sys.argv[1], encoding="utf-8")
        handler.setFormatter(logging.Formatter("role: system\\ncontent: %(message)s\\n---"))
        logger = logging.getLogger("app")
        logger.addHandler(handler)
        for number in range(20):
            logger.error(json.dumps(f"number {number}: ü # not a comment"))
    """
    done = run(sys.executable, "-c", textwrap.dedent(script), mia.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert mia.contents() == [f"number {number}: ü # not a comment" for number in range(20)]


# Several descriptors of one open file


def test_after_a_close_has_completed_a_record_the_open_file_takes_a_new_one(mia: Conversation) -> None:
    """Each command closes its copy of the descriptor that the shell opened."""
    done = shell(
        """{ /bin/printf 'role: user\ncontent: a\n'; /bin/printf 'role: user\ncontent: b\n'; } >> "$CURRENT" """,
        CURRENT=mia.path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert mia.contents() == ["a", "b"]


def test_a_writer_that_runs_a_subprocess_inside_a_record_can_go_on(mia: Conversation) -> None:
    """The subprocess closes its copy of the descriptor, which flushes: that must not end the record."""
    done = shell(
        """exec 5>>"$CURRENT"; printf 'role: user\\n' >&5; /bin/true; printf 'content: whole\\n' >&5; /bin/true 5>&-
        printf -- '---\\n' >&5; exec 5>&-""",
        CURRENT=mia.path,
    )
    assert done.returncode == 0
    assert mia.contents() == ["whole"]
    assert mia.rejected() == []


#: The first half of a message that lacks nothing but its end, as far as anybody can tell.
HALF = "role: user\\ncontent: |-\\n  first\\n"
REST = "  last\\ntimestamp: 2024-01-15T10:30:00.000Z\\n---\\n"


@pytest.mark.parametrize(
    "script",
    [
        f"""{{ /bin/printf '{HALF}'; /bin/true; printf '{REST}'; }} >> "$CURRENT" """,
        f"""{{ printf '{HALF}'; sleep 0.1; /bin/printf '{REST}'; }} >> "$CURRENT" """,
        f"""( printf '{HALF}'; sleep 0.1; printf '{REST}' ) >> "$CURRENT" """,
        f"""{{ printf '{HALF}' | cat; printf '{REST}' | sed 's/^//'; }} >> "$CURRENT" """,
        f"""exec 5>>"$CURRENT"; printf '{HALF}' >&5; sh -c true; printf '{REST}' >&5; exec 5>&-""",
        # The one that opened it leaves it to another, which has it closed in the middle.
        f"""{{ sh -c 'printf "{HALF}"; sleep 0.3; sh -c true; printf -- "{REST}"' & }} >> "$CURRENT"; wait""",
    ],
)
def test_a_message_that_several_programs_write_is_whole_whoever_of_them_ends(mia: Conversation, script: str) -> None:
    done = shell(script, CURRENT=mia.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert mia.path.read_text() == "role: user\ncontent: |-\n  first\n" + REST.replace("\\n", "\n")
    assert mia.rejected() == []


def test_a_program_that_starts_others_while_it_writes_tears_nothing(mia: Conversation) -> None:
    """Each of them is forked with all descriptors, and closes them as it begins."""
    script = """
        import subprocess, sys, threading
        over = threading.Event()
        def start_others():
            while not over.is_set():
                subprocess.run(["true"])
        other = threading.Thread(target=start_others)
        other.start()
        with open(sys.argv[1], "a", buffering=1) as file:
            for number in range(90):
                for line in ("role: user", f"content: number {number}", "timestamp: 2024-01-15T10:30:00.000Z", "---"):
                    print(line, file=file)
        over.set()
        other.join()
    """
    done = run(sys.executable, "-c", textwrap.dedent(script), mia.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert mia.path.read_text() == "".join(
        f"role: user\ncontent: number {number}\ntimestamp: 2024-01-15T10:30:00.000Z\n---\n" for number in range(90)
    )
    assert mia.rejected() == []


def test_a_whole_message_is_stored_as_it_is_closed_also_by_who_has_opened_the_file_again(mia: Conversation) -> None:
    with mia.path.open("ab") as other:
        other.write(record("first"))
        other.flush()
        with mia.path.open("ab") as file:
            file.write(b"role: user\ncontent: closed\n")
        assert mia.contents() == ["first", "closed"]


def test_a_message_that_is_whole_when_all_have_ended_is_stored_with_the_last_of_them(mia: Conversation) -> None:
    script = """{ sh -c 'printf "role: user\ncontent: later\n"; sleep 0.2; true' & } >> "$CURRENT"; exit 0"""
    assert shell(script, CURRENT=mia.path).returncode == 0
    wait_until(lambda: mia.contents() == ["later"], "it is stored when nobody has it open any more")
    assert mia.rejected() == []


def test_a_whole_message_and_half_of_another_are_told_apart_in_the_end(mia: Conversation) -> None:
    done = shell(
        """{ /bin/printf 'role: user\ncontent: a\n'; /bin/printf 'role: user\n'; } >> "$CURRENT" """,
        CURRENT=mia.path,
    )
    assert done.returncode == 0
    assert mia.contents() == ["a"]
    wait_until(lambda: mia.rejected() == [b"role: user\n"], "the half is set aside")


def test_a_copy_of_a_descriptor_goes_on_with_the_record_of_the_other(mia: Conversation) -> None:
    one = os.open(mia.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    other = os.dup(one)
    os.write(one, b"role: user\ncontent: from")
    os.write(other, b" both\n---\nrole: user\n")
    # Not finished: whoever closes is told, and the other goes on.
    with pytest.raises(OSError) as refused:
        os.close(one)
    assert refused.value.errno == errno.EINVAL
    os.write(other, b"content: from the other\n")
    os.close(other)
    assert mia.contents() == ["from both", "from the other"]
    assert mia.rejected() == []


def test_a_child_and_its_parent_write_whole_records_to_one_open_file(mia: Conversation) -> None:
    """They share it, as the workers of a server share its log: one write a record, and none is lost or mixed."""
    script = """
        import os, sys
        descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        children = []
        for child in range(3):
            if not (process := os.fork()):
                for number in range(10):
                    os.write(descriptor, f"role: user\\ncontent: {child} {number}\\n---\\n".encode())
                os._exit(0)
            children.append(process)
        sys.exit(sum(os.waitpid(process, 0)[1] for process in children))
    """
    done = run(sys.executable, "-c", textwrap.dedent(script), mia.path)
    assert (done.returncode, done.stderr) == (0, "")
    said = mia.contents()
    assert sorted(said) == sorted(f"{child} {number}" for child in range(3) for number in range(10))
    for child in "012":
        assert [line for line in said if line[0] == child] == [f"{child} {number}" for number in range(10)]


def test_two_writers_with_one_open_file_each_never_mix_their_records(mia: Conversation) -> None:
    with mia.path.open("ab", buffering=0) as one, mia.path.open("ab", buffering=0) as other:
        one.write(b"role: user\ncontent: from")
        other.write(b"role: user\ncontent: from the")
        one.write(b" one\n---\n")
        other.write(b" other\n---\n")
    assert mia.contents() == ["from one", "from the other"]


# Writers that fail, and writers that die


def test_a_whole_record_that_is_no_message_stores_nothing_of_its_write(mia: Conversation) -> None:
    for bad in (
        b"role: nobody\ncontent: x\n---\n",
        b"role: user\n---\n",
        b"content: x\n---\n",
        b"role: user\ncontent: \x01\n---\n",
    ):
        with mia.path.open("ab", buffering=0) as file:
            with pytest.raises(OSError, match="Invalid argument"):
                file.write(record("before") + bad + record("after"))
            # It ended in a terminator: what follows is a new record.
            file.write(record("good"))
    assert mia.contents() == ["good"]


def test_no_record_is_put_together_around_a_write_that_failed(mia: Conversation) -> None:
    with mia.path.open("ab", buffering=0) as file:
        file.write(b"role: user\n")
        with pytest.raises(OSError, match="Invalid argument"):
            file.write(b"no yaml: at: all\n")
        with pytest.raises(OSError, match="Invalid argument"):
            file.write(b"content: second half\n---\n")
        file.write(record("whole"))
    assert mia.contents() == ["whole"]
    assert mia.rejected() == [b"role: user\n"]


@pytest.mark.parametrize(
    "half",
    [
        b"role: user\ncontent: half",
        b"role: user\ncontent: |\n" + b"  long\n" * 100_000,
        # As far as anybody can tell this is a message that lacks nothing but its end.
        b"role: user\ncontent: |-\n  half\n",
    ],
)
def test_an_unfinished_record_is_set_aside_when_its_writer_dies(mia: Conversation, half: bytes) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DIES, mia.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(record("whole") + half)
        writer.stdin.close()
        writer.stdout.readline()
        assert mia.contents() == ["whole"]
        writer.kill()
    wait_until(lambda: mia.rejected() != [], "what was not finished is set aside")
    assert mia.rejected() == [half]
    assert mia.contents() == ["whole"]
    # It may be read and removed, and then its folder is gone.
    (file,) = (mia.dialogs / "rejected").iterdir()
    assert run("rm", file).returncode == 0
    assert "rejected" not in os.listdir(mia.dialogs)


#: Writes what it is given, and waits to be killed.
DIES = """
import os, sys, time
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(descriptor, sys.stdin.buffer.read())
print(flush=True)
time.sleep(60)
"""
