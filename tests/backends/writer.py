"""A process of its own that appends:

    python -m tests.backends.writer PLACE USER WRITER FIRST COUNT THREADS [NAME=VALUE…]

It says `ready`, waits for a line, and then says the number of each message once that is stored. With COUNT 0 it goes on
until it is killed. A message's text is as long as `text` makes it.
"""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from potofs.backends.base import Record
from tests.backends.kit import open_filesystem, record


def text(writer: str, number: int) -> str:
    """What message `number` of a writer says: some lines, some more than a page of memory."""
    return f"{writer} {number}\n" + (f"line of {number}\n" * (number * 37 % 500) if number % 3 == 0 else "")


def message(writer: str, number: int) -> Record:
    time = f"2024-01-15T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"
    return record(text(writer, number), time=time)


def start(place: Path, user: str, writer: str, first: int, count: int, *options: str, threads: int = 1) -> "Process":
    """Starts one, ready to begin."""
    arguments = [str(place), user, writer, str(first), str(count), str(threads), *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.backends.writer", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
        pipesize=4096,  # So that it cannot run far ahead of who listens.
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


Process = subprocess.Popen[str]


def begin(process: Process) -> None:
    """Tells one to begin."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def main(place: str, user: str, writer: str, first: str, count: str, threads: str, *options: str) -> None:
    backend = open_filesystem(Path(place), **dict(option.split("=", 1) for option in options))

    def write(writer: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            backend.append(user, [message(writer, number)])
            os.write(1, b"%20d\n" % number)

    os.write(1, b"ready\n")
    sys.stdin.readline()
    ranges = [itertools.count(int(first)) if count == "0" else range(int(first), int(first) + int(count))]
    if threads == "1":
        write(writer, ranges[0])
        return
    running = [threading.Thread(target=write, args=(f"{writer}{name}", ranges[0])) for name in range(int(threads))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
