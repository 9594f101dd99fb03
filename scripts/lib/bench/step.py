"""One step of `scale`, in a process of its own: python -m bench.step URL STEP [ARGUMENT]. Prints what it took as JSON.

The memory is the most that was in use at once (VmHWM), without what a parent had.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.places import message
from potofs import DialogueJournal, open_journal
from potofs.journal.exchange import Format
from potofs.journal.models import CleanupOptions

USER = "user-0"
_PIECE = 1 << 20
_LONG_AGO = 10**18


def fill(journal: DialogueJournal, users: str) -> int:
    """So many users, each with three messages."""
    for number in range(int(users)):
        journal.add_messages(f"user-{number}", [message() for _ in range(3)])
    return int(users)


def grow_old(journal: DialogueJournal, users: str) -> int:
    """So many conversations that are idle for long."""
    for number in range(int(users)):
        journal.backend.set_times(f"user-{number}", None, _LONG_AGO)
    return int(users)


def append(journal: DialogueJournal, _: str) -> int:
    journal.add_message(USER, message())
    return 1


def export(journal: DialogueJournal, path: str) -> int:
    with Path(path).open("w", newline="") as file:
        return sum(file.write(piece) for piece in journal.export_pieces(USER, form_of(path)))


def take_in(journal: DialogueJournal, path: str) -> int:
    def pieces() -> Iterator[bytes]:
        with Path(path).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    return journal.import_pieces(USER, pieces(), form_of(path))


def form_of(path: str) -> Format:
    return "csv" if path.endswith("csv") else "json"


#: What is done, and the figure that says how much that was.
STEPS: dict[str, Callable[[DialogueJournal, str], int]] = {
    "nothing": lambda journal, _: 0,
    "fill": fill,
    "age": grow_old,
    "stats": lambda journal, _: journal.get_stats().total_messages,
    "dry-run": lambda journal, _: journal.cleanup(CleanupOptions(dry_run=True)).archived,
    "cleanup": lambda journal, _: journal.cleanup().archived,
    "append": append,
    "metadata": lambda journal, _: len(journal.user_metadata(USER)),
    "archives": lambda journal, _: len(journal.get_archived_conversations(USER)),
    "export": export,
    "import": take_in,
}


def main(url: str, step: str, argument: str = "") -> None:
    with open_journal(url) as journal:
        begun = time.perf_counter()
        done = STEPS[step](journal, argument)
        seconds = time.perf_counter() - begun
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    json.dump({"seconds": seconds, "peak_mib": int(peak[1]) / 1024, "done": done}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
