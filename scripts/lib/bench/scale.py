"""What goes over everything: seconds, and the memory of a process of its own, as `step` does them.

The floor of each figure is what a process needs that opens the journal and does nothing.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import tables
from bench.places import ENDLESS, TIMESTAMP, redis_server
from bench.step import USER

USERS = 100_000
OLD = 10_000
#: A conversation of 1 GB, in messages of 1,000 characters.
BYTES = 10**9
CHARACTERS = 1000


class Taken(NamedTuple):
    """What a step took."""

    seconds: float
    #: In MiB.
    peak_mib: float
    #: What the step says: how many it did.
    done: int


def step(url: str, name: str, argument: str = "") -> Taken:
    """Does a step in a process of its own."""
    command = [sys.executable, "-P", "-m", "bench.step", url, name, argument]
    return Taken(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def row(what: str, *taken: Taken) -> str:
    cells = [f"{tables.short(one.seconds)} s, {one.peak_mib:,.0f} MiB" for one in taken]
    return f"| {what} | {' | '.join(cells)} |\n"


def over_users(place: Path) -> Iterator[str]:
    """What goes over all users."""
    yield f"| over {USERS:,} users of three messages | files | Redis |\n| --- | ---: | ---: |\n"
    with redis_server(place / "redis") as port:
        urls = (f"file://{place}/users?{ENDLESS}&fsync=never", f"redis://127.0.0.1:{port}/0?{ENDLESS}")

        def steps(name: str, argument: str = "", *, expected: int) -> list[Taken]:
            taken = [step(url, name, argument) for url in urls]
            assert [one.done for one in taken] == [expected] * len(urls), taken
            return taken

        yield row("open the journal, and nothing else", *steps("nothing", expected=0))
        yield row("append to each for the first time", *steps("fill", str(USERS), expected=USERS))
        yield row("get_stats, the first one since the machine started", *steps("stats", expected=3 * USERS))
        yield row("get_stats", *steps("stats", expected=3 * USERS))
        steps("age", str(OLD), expected=OLD)
        yield row("cleanup, dry run", *steps("dry-run", expected=OLD))
        yield row(f"cleanup, archives {OLD:,} conversations", *steps("cleanup", expected=OLD))
        yield row("get_stats after that", *steps("stats", expected=3 * USERS))


def over_one(place: Path) -> Iterator[str]:
    """What goes over one conversation."""
    url, other = (f"file://{place}/{name}?{ENDLESS}&fsync=never" for name in ("large", "imported"))
    current = place / f"large/users/{USER}/dialogs/current.yaml"
    messages = write(current)
    yield f"| over a conversation of 1 GB, {messages:,} messages, on files | |\n| --- | ---: |\n"
    yield row("copy the file", copied(current, place / "copy"))
    (place / "copy").unlink()
    for form in ("json", "csv"):
        path = str(place / f"exported.{form}")
        yield row(f"export, {form.upper()}", step(url, "export", path))
        taken = step(other, "import", path)
        assert taken.done == messages
        yield row(f"import, {form.upper()}", taken)
        (place / f"imported/users/{USER}/dialogs/current.yaml").unlink()
    yield row("first append, nothing known of it", step(url, "append"))
    yield row("first append of another process", step(url, "append"))
    yield row("metadata.yaml", step(url, "metadata"))


def write(current: Path) -> int:
    """Writes the conversation as another program would; how many messages it has."""
    (current.parent / "archived").mkdir(parents=True)
    number = 0
    with current.open("wb") as file:
        while file.tell() < BYTES:
            number += 1
            content = f"Number {number} ".ljust(CHARACTERS, "x")
            file.write(f'role: user\ncontent: {content}\ntimestamp: "{TIMESTAMP}"\n---\n'.encode())
    return number


def copied(source: Path, target: Path) -> Taken:
    begun = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    return Taken(time.perf_counter() - begun, 0, 1)


def table() -> Iterator[str]:
    """The lines of the table."""
    yield tables.measured()
    yield "each in a process of its own, the most memory that it had at once behind the seconds.\n\n"
    with tempfile.TemporaryDirectory(prefix="potofs-bench-") as folder:
        yield from over_users(Path(folder))
        yield "\n"
        yield from over_one(Path(folder))
