"""Programs run by Bun, the runtime that a Poto server is written for."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: The program; `scripts/test` installs it.
BUN = Path(__file__).parents[1] / ".tools/node_modules/.bin/bun"

_POTO = Path(__file__).parent / "poto.ts"

Process = subprocess.Popen[str]


def poto(place: Path, *arguments: str) -> Process:
    """A Poto server at a root or a mount: USER, and what `poto.ts` is to do there."""
    return subprocess.Popen(
        [BUN, _POTO, place, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: Process) -> str:
    """Ends a program's standard input, waits for its end, and returns what it printed; fails if it complained."""
    printed, complaint = process.communicate(timeout=100)
    assert (complaint, process.returncode) == ("", 0)
    return printed


class Reader:
    """One that reads a conversation as often as it is asked."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def read(self) -> list[dict[str, Any]]:
        """The messages that it finds now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            finish(self._process)
        found: list[dict[str, Any]] = json.loads(line)
        return found


@contextmanager
def reader(place: Path, user: str, *archive: str) -> Iterator[Reader]:
    """Reads a user's running conversation, or an archive, at a root or a mount."""
    process = poto(place, user, "read", *archive)
    try:
        yield Reader(process)
        finish(process)
    finally:
        process.kill()
        process.wait()
