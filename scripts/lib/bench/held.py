"""What other users notice while one user's lock is held by another process, through a mount: nothing, it is hoped."""

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

from bench.places import ENDLESS, potofs, record

SECONDS = 4
#: Who waits for the lock, and who does not.
WAITING = 8
OTHERS = 4


def append(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, record())
    os.close(descriptor)


def append_for(seconds: float, paths: list[Path]) -> list[float]:
    """Has a thread for each path append to it for so long; how long each append took (seconds)."""
    found: list[float] = []
    end = time.perf_counter() + seconds

    def run(path: Path) -> None:
        while (begun := time.perf_counter()) < end:
            append(path)
            found.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=run, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def measure(place: Path, fsync: str, stack: ExitStack) -> Iterator[list[float]]:
    """How long appends of the others took: while nobody holds a lock, and while one user's is held."""
    mountpoint = stack.enter_context(
        potofs(f"file://{place}/{fsync}?{ENDLESS}&fsync={fsync}", place / f"{fsync}-mount")
    )
    for user in ["held", *map(str, range(OTHERS))]:
        (mountpoint / "users" / user).mkdir()
    others = [mountpoint / f"users/{number}/dialogs/current.yaml" for number in range(OTHERS)]
    held = mountpoint / "users/held/dialogs/current.yaml"
    append_for(1, others)
    yield append_for(SECONDS, others)
    with (place / fsync / "users/held/.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = [threading.Thread(target=append, args=(held,)) for _ in range(WAITING)]
        for thread in waiting:
            thread.start()
        yield append_for(SECONDS, others)
    for thread in waiting:
        thread.join()
    assert held.read_bytes().count(b"\n---\n") == WAITING


def table() -> Iterator[str]:
    """The lines of the table."""
    yield f"Appends (open, one record, close) of {OTHERS} users at once through a mount on files, p50 / p99 in ms:\n\n"
    yield f"| | nobody holds a lock | one user's lock is held for {SECONDS} s, {WAITING} writers of that user wait |\n"
    yield "| --- | ---: | ---: |\n"
    with tempfile.TemporaryDirectory(prefix="potofs-bench-") as folder, ExitStack() as stack:
        for fsync in ("never", "always"):
            cells = [
                f"{median(times) * 1e3:.1f} / {quantiles(times, n=100)[98] * 1e3:.1f}"
                for times in measure(Path(folder), fsync, stack)
            ]
            yield f"| fsync={fsync} | {' | '.join(cells)} |\n"
