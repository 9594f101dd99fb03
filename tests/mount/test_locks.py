"""Another program holds the lock of a user: whoever wants it is told within one deadline, and nobody else waits."""

import fcntl
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.mounts import Mount, all_at_once, answer_of, processes_of, wait_until

#: What a call may take (seconds), and what the machine may add to that.
DEADLINE = 1.0
SOME = 1.5
#: As many as a mount may be asked at once, and more than it has threads.
MANY = 1500
#: Writes so many messages without their ends, waits, and closes all at once; says what came of it, and how long it took
#: at the longest (seconds).
CLOSES = """
import errno, os, sys, threading, time

descriptors = [os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND) for _ in range(int(sys.argv[2]))]
for number, descriptor in enumerate(descriptors):
    os.write(descriptor, b"role: user\\ncontent: number %d\\n" % number)
print("opened", flush=True)
sys.stdin.read()
answers, waits = set(), []

def close(descriptor):
    begun = time.monotonic()
    try:
        os.close(descriptor)
        answers.add("done")
    except OSError as error:
        answers.add(errno.errorcode[error.errno])
    waits.append(time.monotonic() - begun)

threads = [threading.Thread(target=close, args=[descriptor]) for descriptor in descriptors]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(",".join(answers), max(waits))
"""
RECORD = 'role: user\ncontent: number {0}\ntimestamp: "2024-01-15T10:30:{0:02d}.000Z"\n---\n'


@pytest.fixture
def on_files(mount_at: Callable[..., Mount], tmp_path: Path) -> Mount:
    """On files, with the same deadline for locks."""
    settings = f"lockTimeoutMs={DEADLINE * 1000:.0f}&archiveThreshold=0&maxConversationLength=0"
    mount = mount_at(f"file://{tmp_path}/journal?{settings}")
    mount.expect_warning(".")
    for user in ("mia", "noah"):
        (mount.users / user).mkdir()
        with mount.current(user).open("a") as file:
            file.write(RECORD.format(0))
    return mount


@contextmanager
def locked(folder: Path, user: str) -> Iterator[None]:
    """Another program holds the lock of a user."""
    with (folder / "journal/users" / user / ".lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_however_many_wait_for_one_user_nobody_else_waits_nor_they_for_one_another(
    on_files: Mount, tmp_path: Path
) -> None:
    """More than a user has threads, and a program has threads to wait with."""
    command = [sys.executable, "-c", CLOSES, str(on_files.current("mia")), str(MANY)]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == b"opened\n"
        others = []
        with locked(tmp_path, "mia"):
            program.stdin.close()
            while program.poll() is None:
                others.append(answer_of(on_files.current("noah").stat))
                others.append(answer_of(partial(os.listdir, on_files.path / "system")))
        answers, longest = program.stdout.read().decode().split()
    assert {answer for answer, _ in others} == {"done"}
    # They are all answered by one thread, but wait for none of them.
    assert statistics.median(waited for _, waited in others) < DEADLINE / 4
    assert max(waited for _, waited in others) < DEADLINE + SOME
    assert answers == "ETIMEDOUT"
    assert float(longest) < DEADLINE + SOME

    def kept() -> int:
        """How many of them are stored, tried once more as their files were let go, or set aside."""
        rejected = on_files.dialogs("mia") / "rejected"
        return on_files.current("mia").read_text().count("number") + (
            len(os.listdir(rejected)) if rejected.exists() else 0
        )

    wait_until(lambda: kept() == 1 + MANY, "each of them is stored or set aside")


def test_a_message_that_cannot_be_stored_at_the_end_is_set_aside(on_files: Mount, tmp_path: Path) -> None:
    message = b"role: user\ncontent: whole\n"
    descriptor = os.open(on_files.current("mia"), os.O_WRONLY | os.O_APPEND)
    copy = os.dup(descriptor)
    os.write(descriptor, message)
    os.close(descriptor)
    try:
        with locked(tmp_path, "mia"):
            os.kill(on_files.daemon, signal.SIGTERM)
            wait_until(lambda: not processes_of(on_files.path), "the daemon has ended")
    finally:
        with suppress(OSError):
            os.close(copy)
    (kept,) = (tmp_path / "journal/users/mia/dialogs/rejected").iterdir()
    assert kept.read_bytes().startswith(message)


def test_what_one_user_has_let_go_keeps_no_other_users_from_being_set_aside(on_files: Mount, tmp_path: Path) -> None:
    descriptors = [os.open(on_files.current("mia"), os.O_WRONLY | os.O_APPEND) for _ in range(100)]
    for descriptor in descriptors:
        os.write(descriptor, b"role: user\ncontent: half")
    with locked(tmp_path, "mia"):
        all_at_once([partial(os.close, descriptor) for descriptor in descriptors])
        with on_files.current("noah").open("ab", buffering=0) as file:
            file.write(b"role: user\ncontent: half")
            with pytest.raises(OSError, match="Invalid argument"):
                file.close()
        wait_until((on_files.dialogs("noah") / "rejected").exists, "what noah wrote is set aside", DEADLINE)
    wait_until(
        lambda: len(os.listdir(on_files.dialogs("mia") / "rejected")) == len(descriptors), "and then what mia wrote"
    )


def test_appends_that_the_kernel_sends_one_after_the_other_wait_for_one_deadline_together(
    on_files: Mount, tmp_path: Path
) -> None:
    descriptors = [os.open(on_files.current("mia"), os.O_WRONLY | os.O_APPEND) for _ in range(300)]
    try:
        with locked(tmp_path, "mia"):
            waits = all_at_once(
                [
                    partial(os.write, descriptor, RECORD.format(1 + number % 30).encode())
                    for number, descriptor in enumerate(descriptors)
                ]
            )
        assert {answer for answer, _ in waits} == {"ETIMEDOUT"}
        assert max(waited for _, waited in waits) < DEADLINE + SOME
        # It is free again, and nobody is told of the past.
        assert os.write(descriptors[0], RECORD.format(50).encode()) == len(RECORD.format(50))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
